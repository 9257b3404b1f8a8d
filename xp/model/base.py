"""Model: the kind, what a command wishes of it and what it gets."""

from __future__ import annotations

import os
from abc import abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from xp import hub
from xp.component import Component
from xp.error import UserError, nearest
from xp.unpickled import Pickled, held, told, unpickled

if TYPE_CHECKING:
    import torch
    from transformers import PretrainedConfig, PreTrainedModel

    from xp.adapter import Several
    from xp.model.footprint import Footprint


@dataclass
class Loaded:
    """A network in memory, with what goes along with it."""

    network: PreTrainedModel
    processor: Any
    """What turns inputs into tensors: a tokenizer, an image processor, a feature extractor."""

    labels: list[str]
    """The label names the network answers with, in the order of its ids; empty for a task without labels."""

    new: list[str] = field(default_factory=list)
    """Names of weights that are random because the source has none, for example of a new head."""

    described_by: str = ""
    """Folder or hub id that its config comes from, and whatever else turns inputs into tensors."""

    footprint: Footprint | None = None
    """What its weights take in memory, where they are quantized."""

    notes: list[str] = field(default_factory=list)
    """What a person should know of how it was loaded, a line each."""


@dataclass(frozen=True)
class Described:
    """What is known of a model without its weights."""

    processor: Any
    labels: list[str]
    config: PretrainedConfig


@dataclass(frozen=True)
class Wish:
    """What a command needs of a model, whichever model it is."""

    auto_class: str | tuple[str, ...]
    """Which of transformers' Auto classes has the network; of several, one that has the model's architecture."""

    processor_class: str
    """Which of transformers' Auto classes has what turns inputs into tensors; empty where it is not needed."""

    config: Callable[[list[str]], dict[str, Any]]
    """Values of the model's config that the task sets, given its label names."""

    labels: list[str]
    """Label names of the training rows; empty where the model's own are to be kept."""

    texts: Callable[[], Iterable[str]]
    """The training texts, for a tokenizer to be trained on."""

    dtype: torch.dtype | Literal["auto"]
    """Type of the weights where ``model.dtype`` is auto."""

    peft_type: str | None
    """peft's name for the task, which an adapter must have been made for."""

    train: bool
    """Whether it will be trained: then a head that the source lacks is made anew, else it is an error."""

    locate: Callable[[str], str]
    """Turns ``mlflow:<run id>`` into a folder and leaves any other path as it is."""

    device: torch.device
    """Where it will be; what is quantized is quantized there."""

    computes_in: torch.dtype
    """What ``precision`` says."""

    in_full: bool = False
    """Whether all of its weights will be trained."""

    kept: tuple[str, ...] = ()
    """Names of modules that an adapter trains in full, so that they are not quantized."""

    special_tokens: tuple[str, ...] = ()
    """Special tokens beside padding, begin and end that a tokenizer trained for this needs, such as ``mask_token``."""

    adapters: Several | None = None
    """Adapters to put on it."""

    classes: int | None = None
    """How many classes the head has that an adapter brings along, where no config says so; they have no names then."""

    spare: tuple[str, ...] = ()
    """Parts of the network whose weights may be missing, because nobody needs them."""


class Model(Component):
    """A network with what turns inputs into tensors."""

    dtype: Literal["auto", "float32", "bfloat16", "float16"]
    """Type of the weights in memory. auto: float32 for what is trained in full or in precision=fp32, else as stored."""

    config: dict[str, Any]
    """Values of the model's own config to set, for example ``{attention_dropout: 0.1}``."""

    processor: dict[str, Any]
    """Options of its tokenizer, image processor or feature extractor, for example ``{do_resize: false}``."""

    def check_files(self) -> None:
        """See whether the files that the settings name are there, before anything heavy is imported.

        Raises:
            UserError: one is not.
        """

    @abstractmethod
    def describe(self, wish: Wish) -> Described:
        """The processor, labels and config that `load` gives, without loading any weights.

        Raises:
            UserError: as `load`.
        """

    @abstractmethod
    def load(self, wish: Wish) -> Loaded:
        """The network with a head for the task, and its processor.

        Raises:
            UserError: no such model, an unknown config value, or a model that cannot do the task.
        """

    def skeleton(self, wish: Wish) -> Callable[[], PreTrainedModel] | None:
        """Makes the network that `load` gives, on torch's meta device; None where `load` reads none, or an adapter.

        Raises:
            UserError: as `describe`.
        """
        return None

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


def head(network: PreTrainedModel) -> list[str]:
    """Names of the weights outside of the base model: those of the head for a task."""
    return [name for name, _ in network.named_parameters() if not name.startswith(f"{network.base_model_prefix}.")]


def nameless(labels: Sequence[str]) -> bool:
    """Whether a model's labels are but what transformers puts where a config has none: LABEL_0, LABEL_1."""
    return all(label.startswith("LABEL_") for label in labels)


def positions(config: PretrainedConfig) -> int | None:
    """Longest sequence that a model's positions reach, in tokens; None where its config sets no bound."""
    return getattr(config, "max_position_embeddings", None)


@contextmanager
def loading(path: str, auto_class: str = "", revision: str | None = None) -> Iterator[None]:
    """Turns what transformers raises on a missing, broken or unfit model into a `UserError`."""
    from huggingface_hub.errors import StrictDataclassError
    from safetensors import SafetensorError

    os.environ.setdefault("DISABLE_SAFETENSORS_CONVERSION", "1")  # It would have a stranger's program convert weights.
    more = (StrictDataclassError, SafetensorError, RecursionError, ArithmeticError, AssertionError)
    try:
        with unpickled():
            yield
    except (OSError, ValueError, KeyError, RuntimeError, TypeError, AttributeError, ImportError, *more) as error:
        if isinstance(error, UserError):
            raise
        said = " ".join(str(error).split())
        lacking = "cannot be loaded with `safetensors`" in said or "no file named" in said
        if isinstance(error, Pickled) or (lacking and (not os.path.isdir(path) or held(Path(path)))):
            raise UserError(f"model.path={path}: {told(path, auto_class)}") from error
        if "trust_remote_code" in said:
            said = "its repository wants to run its own code; read that code, then set model.trust_remote_code=true"
        elif "Some modules are dispatched on the CPU or the disk" in said:
            said = f"it does not fit where quantized layers can be, which is {_room()}"
        elif "Unrecognized configuration class" in said:
            said = f"transformers has no {auto_class} for this architecture; choose another model or task"
            if auto_class == "AutoModelForSeq2SeqLM":
                said += " (a decoder learns to answer with task=chat)"
        elif isinstance(error, OSError) and not Path(path).exists():
            key, why = hub.fault("model", path, revision, error) or ("path", said)
            if key == "revision":
                raise UserError(f"model.revision={revision}: {why}") from error
            said = f"there is no such folder here; as an id of the hub: {why}"
        raise UserError(f"model.path={path}: {said[:400] or repr(error)[:400]}") from error


def _room() -> str:
    """Where bitsandbytes' layers can be on this machine, and what to do where they do not fit there."""
    import torch

    if not torch.cuda.is_available():
        return "the CPU's memory, as there is no GPU; raise model.max_memory, or set it and model.device_map to null"
    return (
        "a GPU; raise model.max_memory, or say what is to stay whole elsewhere: model.device_map={<module>: <device>, "
        "...} model.quantization_options.llm_int8_enable_fp32_cpu_offload=true"
    )
