"""An adapter that is added to a model and trained: what all methods of peft share."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from xp.peft.base import Peft, Purpose
from xp.peft.method import Method

if TYPE_CHECKING:
    from transformers import PreTrainedModel


class Added(Peft):
    """A new adapter."""

    modules_to_save: list[str]
    """Layers to train and save in full beside it; a new head is one of them anyway."""

    options: dict[str, Any]
    """Further fields of the method's configuration class in peft, such as ``{r: 64}`` or ``{use_dora: true}``."""

    @property
    @abstractmethod
    def method(self) -> Method:
        """The method of peft, with its options."""

    def check(self, purpose: Purpose) -> None:
        """Have peft check the options."""
        self.method.check(purpose)

    def plan(self, skeleton: Callable[[], PreTrainedModel], purpose: Purpose) -> None:
        """Tell which layers it will be on."""
        self.method.plan(skeleton, purpose, self.several)

    def apply(self, network: PreTrainedModel, purpose: Purpose) -> PreTrainedModel:
        """A ``peft.PeftModel`` around the network; an adapter that ``model.path`` came with is trained further."""
        return self.method.apply(network, purpose, self.several)
