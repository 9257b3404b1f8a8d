"""LoRA, under its own friendly names."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field, PositiveInt, model_validator

from xp.peft import known
from xp.peft.base import Peft, Purpose
from xp.peft.targets import Targets

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from xp.peft.method import Method

SETTINGS = {
    "r": "rank",
    "lora_alpha": "alpha",
    "lora_dropout": "dropout",
    "target_modules": "target_modules",
    "bias": "bias",
    "modules_to_save": "modules_to_save",
}
"""What peft's options are called here."""


class Lora(Peft, name="lora"):
    """Train low-rank updates of chosen layers (Hu et al., 2021, arXiv:2106.09685)."""

    rank: PositiveInt
    """Width of the update; the number of trained weights grows with it."""

    alpha: PositiveInt
    """Scale of the update: it is multiplied by alpha / rank."""

    dropout: Annotated[float, Field(ge=0, lt=1)]
    """Share of the update's inputs that is dropped in training."""

    target_modules: Targets
    """Layers to adapt: ``all-linear``, a regular expression over full names, or a list of name endings."""

    bias: Literal["none", "all", "lora_only"]
    """Which bias weights are trained along."""

    modules_to_save: list[str]
    """Layers to train and save in full beside it; a new head is one of them anyway."""

    options: dict[str, Any]
    """Further fields of ``peft.LoraConfig``, such as ``init_lora_weights``, ``rank_pattern``, ``use_dora``."""

    @model_validator(mode="after")
    def _known(self) -> Lora:
        known.check_options("LORA", self.options, SETTINGS)
        known.check_bias(self.options, self.bias)
        return self

    @property
    def _method(self) -> Method:
        from xp.peft.method import Method

        own = {"r": self.rank, "lora_alpha": self.alpha, "lora_dropout": self.dropout, "bias": self.bias}
        return Method("LORA", self.target_modules, self.modules_to_save, own | self.options, SETTINGS)

    def check(self, purpose: Purpose) -> None:
        """Have peft check the options."""
        self._method.check(purpose)

    def plan(self, skeleton: Callable[[], PreTrainedModel], purpose: Purpose) -> None:
        """Tell which layers it will be on."""
        self._method.plan(skeleton, purpose)

    def apply(self, network: PreTrainedModel, purpose: Purpose) -> PreTrainedModel:
        """A ``peft.PeftModel`` around the network; an adapter that it came with is trained further."""
        return self._method.apply(network, purpose)
