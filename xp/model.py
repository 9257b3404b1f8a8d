"""Model: the network and its tokenizer, pretrained (bundled, a folder, the hub) or from scratch."""

from __future__ import annotations

import json
from abc import abstractmethod
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import PositiveInt

from xp.component import Component
from xp.error import UserError, nearest
from xp.tokenizer import settle_pad, train_tokenizer

if TYPE_CHECKING:
    import torch
    from transformers import PretrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

ASSETS = Path(__file__).parent / "assets"


@dataclass
class Loaded:
    """A network in memory, with what goes along with it."""

    network: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    labels: list[str]
    """The label names the network answers with, in the order of its ids; empty for a task without labels."""

    new: list[str] = field(default_factory=list)
    """Names of weights that are random because the source has none, for example of a new head."""


@dataclass(frozen=True)
class Wish:
    """What a command needs of a model, whichever model it is."""

    auto_class: str
    """Which of transformers' Auto classes."""

    config: Callable[[list[str]], dict[str, Any]]
    """Values of the model's config that the task sets, given its label names."""

    labels: list[str]
    """Label names of the training rows; empty where the model's own are to be kept."""

    texts: Callable[[], Iterable[str]]
    """The training texts, for a tokenizer to be trained on."""

    dtype: torch.dtype | Literal["auto"]
    """Type of the weights where ``model.dtype`` is auto."""

    train: bool
    """Whether it will be trained: then a head that the source lacks is made anew, else it is an error."""

    locate: Callable[[str], str]
    """Turns ``mlflow:<run id>`` into a folder and leaves any other path as it is."""


class Model(Component):
    """A network with its tokenizer."""

    dtype: Literal["auto", "float32", "bfloat16", "float16"]
    """Type of the weights in memory. auto: float32 for what is trained in full or in precision=fp32, else as stored."""

    config: dict[str, Any]
    """Values of the model's own config to set, for example ``{attention_dropout: 0.1}``."""

    @abstractmethod
    def load(self, wish: Wish) -> Loaded:
        """The network with a head for the task, and its tokenizer.

        Raises:
            UserError: no such model, an unknown config value, or a model that cannot do the task.
        """

    def _dtype(self, wish: Wish) -> torch.dtype | Literal["auto"]:
        import torch

        if self.dtype == "auto":
            return wish.dtype
        dtype = getattr(torch, self.dtype)
        assert isinstance(dtype, torch.dtype)
        return dtype

    def _check_config(self, config: PretrainedConfig) -> None:
        known = set(config.to_dict()) | set(getattr(config, "attribute_map", {}))
        for key in self.config:
            if key not in known:
                raise UserError(
                    f"model.config.{key}: a {config.model_type} model has no such value.{nearest(key, known)}"
                )


class Pretrained(Model, name="pretrained"):
    """Weights that exist: the bundled model, a folder, a repository of the hub, or the model of an MLflow run."""

    path: str
    """``bundled``, a folder (adapter folders too), a repository id of the hub, or ``mlflow:<run id>``."""

    revision: str | None
    """Branch, tag or commit on the hub; null takes the newest."""

    trust_remote_code: bool
    """Whether Python code in the model's repository may run on this machine. It can do anything you can."""

    def load(self, wish: Wish) -> Loaded:
        """Load weights, config and tokenizer; an adapter folder comes with its base."""
        path = str(ASSETS / "bundled") if self.path == "bundled" else wish.locate(self.path)
        if path.startswith((".", "/", "~", "runs/")) and not Path(path).expanduser().is_dir():
            beside = [str(entry) for entry in Path(path).parent.glob("*") if entry.is_dir()]
            raise UserError(
                f"model.path={self.path}: there is no such folder.{nearest(path, beside) if beside else ''}"
            )
        adapter = Path(path) / "adapter_config.json"
        if not adapter.is_file():
            return self._load(path, path, wish)
        from peft import PeftModel

        base = json.loads(adapter.read_text())["base_model_name_or_path"]
        loaded = self._load(base, path if Path(path, "config.json").is_file() else base, wish)
        if wish.train and wish.labels and loaded.labels != self._known_labels(path):
            raise UserError(
                f"model.path={self.path}: this adapter answers {', '.join(self._known_labels(path))}; "
                f"the training rows have {', '.join(wish.labels)}. Train on such rows, or start from {base}"
            )
        loaded.network = PeftModel.from_pretrained(loaded.network, path, is_trainable=wish.train)
        loaded.new = []
        return loaded

    def _load(self, path: str, described_by: str, wish: Wish) -> Loaded:
        """The network in ``path`` with the config, labels and tokenizer that are in ``described_by``."""
        import transformers

        source: dict[str, Any] = {"revision": self.revision or "main", "trust_remote_code": self.trust_remote_code}
        with _loading(self.path):
            described = transformers.AutoConfig.from_pretrained(described_by, **source)
        self._check_config(described)
        labels = self._labels(described, wish)
        values = wish.config(labels) | self.config
        with _loading(self.path):
            config = transformers.AutoConfig.from_pretrained(described_by, **values, **source)
            tokenizer = transformers.AutoTokenizer.from_pretrained(described_by, **source)
        settle_pad(tokenizer, config)
        auto = getattr(transformers, wish.auto_class)
        with _loading(self.path, wish.auto_class):
            network, report = auto.from_pretrained(
                path,
                config=config,
                dtype=self._dtype(wish),
                ignore_mismatched_sizes=wish.train or path != described_by,
                output_loading_info=True,
                **source,
            )
        mismatched = {name if isinstance(name, str) else name[0] for name in report["mismatched_keys"]}
        new = sorted(set(report["missing_keys"]) | mismatched)
        if new and not wish.train and path == described_by:
            raise UserError(
                f"model.path={self.path}: it has no trained head for this task (no weights for {', '.join(new[:3])}); "
                "train it first, or give the folder of a model that was trained for it"
            )
        return Loaded(network, tokenizer, labels, new)

    def _labels(self, config: PretrainedConfig, wish: Wish) -> list[str]:
        """The model's own labels, where they are those of the rows (or of no rows); else those of the rows."""
        own = _label_names(config)
        if not wish.config([]):
            return []
        if not wish.train or sorted(own) == sorted(wish.labels):
            return own
        return wish.labels

    def _known_labels(self, path: str) -> list[str]:
        import transformers

        return _label_names(transformers.AutoConfig.from_pretrained(path))


class Scratch(Model, name="scratch"):
    """Random weights in an architecture of one's own choosing."""

    type: str
    """transformers' model type: llama, gpt2, bert, ..."""

    tokenizer: str | None
    """Folder or hub id of a tokenizer; null trains a byte-level BPE on the training texts."""

    vocabulary: PositiveInt
    """Tokens of the trained tokenizer; with a tokenizer given, the model has at least this many embeddings."""

    def load(self, wish: Wish) -> Loaded:
        """A new network, initialised by its architecture's own rule from torch's current random state."""
        import transformers
        from transformers.models.auto.configuration_auto import CONFIG_MAPPING_NAMES

        if self.type not in CONFIG_MAPPING_NAMES:
            raise UserError(
                f"model.type={self.type}: transformers has no such type.{nearest(self.type, CONFIG_MAPPING_NAMES)}"
            )
        if not wish.train:
            raise UserError("model=scratch has random weights: there is nothing to evaluate; give model.path=<folder>")
        self._check_config(transformers.AutoConfig.for_model(self.type))
        if self.tokenizer is None:
            tokenizer = train_tokenizer(wish.texts(), self.vocabulary)
        else:
            with _loading(self.tokenizer):
                tokenizer = transformers.AutoTokenizer.from_pretrained(wish.locate(self.tokenizer))
        values = {"vocab_size": max(len(tokenizer), self.vocabulary)}
        values |= {f"{name}_token_id": getattr(tokenizer, f"{name}_token_id") for name in ("bos", "eos", "pad")}
        with _loading(f"scratch {self.type}"):
            config = transformers.AutoConfig.for_model(self.type, **values | wish.config(wish.labels) | self.config)
        settle_pad(tokenizer, config)
        with _loading(f"scratch {self.type}", wish.auto_class):
            network = getattr(transformers, wish.auto_class).from_config(config)
        import torch

        dtype = self._dtype(wish)
        return Loaded(network.to(torch.float32 if dtype == "auto" else dtype), tokenizer, wish.labels)


def positions(config: PretrainedConfig) -> int | None:
    """Longest sequence that a model's positions reach, in tokens; None where its config sets no bound."""
    return getattr(config, "max_position_embeddings", None)


def _label_names(config: PretrainedConfig) -> list[str]:
    return [name for _, name in sorted((config.id2label or {}).items())]


@contextmanager
def _loading(path: str, auto_class: str = "") -> Iterator[None]:
    """Turns what transformers raises on a missing, broken or unfit model into a `UserError`."""
    from huggingface_hub.errors import StrictDataclassError

    try:
        yield
    except (OSError, ValueError, KeyError, RuntimeError, TypeError, StrictDataclassError) as error:
        if isinstance(error, UserError):
            raise
        said = " ".join(str(error).split())
        if "trust_remote_code" in said:
            said = "its repository wants to run its own code; read that code, then set model.trust_remote_code=true"
        elif "Unrecognized configuration class" in said:
            said = f"transformers has no {auto_class} for this architecture; choose another model or task"
        elif isinstance(error, OSError) and not Path(path).exists():
            said = "neither a folder here nor a model that the hub or its cache gives; check the name, or go online"
        raise UserError(f"model.path={path}: {said[:400]}") from error
