"""Weights that exist: the bundled model, a folder, the hub, an MLflow run; and adapters on top of them."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from xp.error import UserError, nearest
from xp.model.base import Loaded, Model, Wish, loading
from xp.model.tokenizer import settle_pad

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedModel

ASSETS = Path(__file__).parent.parent / "assets"


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
        path = str(ASSETS / "bundled") if self.path == "bundled" else os.path.expanduser(wish.locate(self.path))
        if path.startswith((".", "/", "runs/")) and not Path(path).is_dir():
            beside = [str(entry) for entry in Path(path).parent.glob("*") if entry.is_dir()]
            raise UserError(
                f"model.path={self.path}: there is no such folder.{nearest(path, beside) if beside else ''}"
            )
        adapter = Path(path) / "adapter_config.json"
        if not adapter.is_file():
            return self._load(path, path, wish)
        from peft import PeftConfig, PeftModel

        with loading(self.path):
            config = PeftConfig.from_pretrained(path)
        if config.task_type not in (None, wish.peft_type):
            raise UserError(
                f"model.path={self.path}: this adapter is for {config.task_type}, the task for {wish.peft_type}"
            )
        base = str(config.base_model_name_or_path)
        described = path if Path(path, "config.json").is_file() else base
        loaded = self._load(base, described, wish)
        if wish.train and wish.labels and loaded.labels != self._known_labels(described):
            raise UserError(
                f"model.path={self.path}: this adapter answers {', '.join(self._known_labels(described))}; "
                f"the training rows have {', '.join(wish.labels)}. Train on such rows, or start from {base}"
            )
        with loading(self.path):
            loaded.network = PeftModel.from_pretrained(loaded.network, path, is_trainable=wish.train)
        kept = tuple(config.modules_to_save or ())
        lost = [
            name
            for name in loaded.new
            if not any(module in name.split(".") or name.startswith(module) for module in kept)
        ]
        if lost:
            raise UserError(
                f"model.path={self.path}: neither the adapter nor its base {base} has weights for {lost[0]}"
            )
        loaded.new = []
        return loaded

    def _load(self, path: str, described_by: str, wish: Wish) -> Loaded:
        """The network in ``path`` with the config, labels and tokenizer that are in ``described_by``."""
        import transformers

        source: dict[str, Any] = {"revision": self.revision or "main", "trust_remote_code": self.trust_remote_code}
        with loading(self.path):
            described = transformers.AutoConfig.from_pretrained(described_by, **source)
        self._check_config(described)
        own, labels = _label_names(described), self._labels(described, wish)
        values = wish.config(labels) | self.config
        with loading(self.path):
            config = transformers.AutoConfig.from_pretrained(described_by, **values, **source)
            processor = getattr(transformers, wish.processor_class).from_pretrained(described_by, **source)
        if hasattr(processor, "pad_token_id"):
            settle_pad(processor, config)
        auto = getattr(transformers, wish.auto_class)
        with loading(self.path, wish.auto_class):
            network, report = auto.from_pretrained(
                str(Path(path).absolute()) if Path(path).is_dir() else path,  # An adapter's config will name it.
                config=config,
                dtype=self._dtype(wish),
                ignore_mismatched_sizes=wish.train or path != described_by,
                output_loading_info=True,
                **source,
            )
        mismatched = {name if isinstance(name, str) else name[0] for name in report["mismatched_keys"]}
        new = sorted(set(report["missing_keys"]) | mismatched)
        if not new and labels != own and not all(name.startswith("LABEL_") for name in own):
            # As many labels as before, but others: what the head knows of the old ones misleads.
            new = _renewed_head(network)
        if new and not wish.train and path == described_by:
            raise UserError(
                f"model.path={self.path}: it has no trained head for this task (no weights for {', '.join(new[:3])}); "
                "train it first, or give the folder of a model that was trained for it"
            )
        return Loaded(network, processor, labels, new)

    def _labels(self, config: PretrainedConfig, wish: Wish) -> list[str]:
        """The model's own labels, where they are those of the rows (or of no rows); else those of the rows."""
        own = _label_names(config)
        if not wish.config([]):
            return []
        if not wish.train or not wish.labels or sorted(own) == sorted(wish.labels):
            return own
        return wish.labels

    def _known_labels(self, path: str) -> list[str]:
        import transformers

        return _label_names(transformers.AutoConfig.from_pretrained(path))


def _label_names(config: PretrainedConfig) -> list[str]:
    return [name for _, name in sorted((config.id2label or {}).items())]


def _renewed_head(network: PreTrainedModel) -> list[str]:
    """Make all that lies outside of the base model random again; gives the names of these weights."""
    names = []
    for name, part in network.named_children():
        if name != network.base_model_prefix:
            for module in part.modules():
                if hasattr(module, "reset_parameters"):
                    module.reset_parameters()
            names += [f"{name}.{inner}" for inner, _ in part.named_parameters()]
    return names
