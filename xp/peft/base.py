"""Peft: the kind, and what an adapter is told of the training that it is for."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from xp.adapter import Several
from xp.component import Component

if TYPE_CHECKING:
    from torch import Tensor, nn
    from transformers import PreTrainedModel


@dataclass(frozen=True)
class Purpose:
    """What an adapter is made for."""

    task_type: str | None
    """peft's name for the task, by which a head stays trainable; None where it has none."""

    new: list[str] = field(default_factory=list)
    """Names of random weights that the pretrained model had none for; they are trained and saved in full."""

    steps: int = 0
    """Optimizer steps of the whole training; 0 while the rows are not counted."""

    batches: Callable[[], Iterable[dict[str, Tensor]]] = tuple
    """The first batches of the training, for initialisations that look at what the layers see."""

    locate: Callable[[str], str] = str
    """Turns ``mlflow:<run id>`` into a folder and leaves any other path as it is."""

    folder: Path | None = None
    """The run's, for what must be kept until the adapter is saved; None while no run has begun."""

    say: Callable[[str], None] = lambda line: None
    """Is told what the settings have come to, a line each."""


class Peft(Component):
    """Parameter-efficient fine-tuning, or none."""

    @property
    def several(self) -> Several | None:
        """Adapters that there are, to be put on the model; None where it is to stay as it is."""
        return None

    @property
    def in_full(self) -> bool:
        """Whether it is the model's own weights that are trained."""
        return False

    def check_files(self) -> None:
        """See whether the files that the settings name are there, before anything heavy is imported.

        Raises:
            UserError: one is not.
        """

    def check_use(self, command: str, model: str, merged: list[str]) -> None:
        """Refuse what does not go with the rest of the run.

        Args:
            command: what the model is for.
            model: which kind of model it is.
            merged: names of the adapters that are to be merged by weight.

        Raises:
            ValueError: the adapters that there are do not go with these.
        """
        if command == "merge":
            raise ValueError(f"peft={self.name}: command=merge makes no adapter; leave it out")

    def check(self, purpose: Purpose) -> None:
        """Refuse what the method does not have. Imports peft, which takes seconds; reads no weights.

        Raises:
            UserError: an option that the method does not have, or a value that it does not take.
        """

    def plan(self, skeleton: Callable[[], PreTrainedModel], purpose: Purpose) -> None:
        """Tell which layers will be adapted, before any weights are read.

        Args:
            skeleton: makes the network without weights, on torch's meta device.
            purpose: what the adapter is for.

        Raises:
            UserError: the settings fit no layer of this network.
        """

    @abstractmethod
    def apply(self, network: PreTrainedModel, purpose: Purpose) -> PreTrainedModel:
        """The network with just the weights trainable that are to be trained.

        Args:
            network: as loaded; a ``PeftModel`` where the model's path was an adapter folder.
            purpose: what it will be trained for.

        Raises:
            UserError: the settings fit no layer of this network.
        """


def check_base(model: str) -> None:
    """Refuse ``peft.adapters`` on weights that no adapter was trained on.

    Args:
        model: which kind of model it is.

    Raises:
        ValueError: its weights are new.
    """
    if model != "pretrained":
        raise ValueError(
            f"peft.adapters: model={model} has new weights, which no adapter was trained on; give model.path=<base>"
        )


def trained_in_float32(network: PreTrainedModel) -> PreTrainedModel:
    """The network with its trainable weights in float32: updates of a few 1e-5 vanish in bfloat16's 8 bits."""
    for parameter in network.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.float()
    return network


def count(network: nn.Module) -> tuple[int, int]:
    """Numbers of trainable and of all weights; of those in 4 bits, two in a byte, each one."""
    shapes = [getattr(getattr(each, "quant_state", None), "shape", each.shape) for each in network.parameters()]
    sizes = [(shape.numel(), each.requires_grad) for shape, each in zip(shapes, network.parameters(), strict=True)]
    return sum(size for size, trained in sizes if trained), sum(size for size, _ in sizes)
