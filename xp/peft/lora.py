"""LoRA, under its own friendly names."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, PositiveInt, model_validator

from xp.peft import known
from xp.peft.added import Added
from xp.peft.method import Method
from xp.peft.targets import Targets

SETTINGS = {
    "r": "rank",
    "lora_alpha": "alpha",
    "lora_dropout": "dropout",
    "target_modules": "target_modules",
    "bias": "bias",
    "modules_to_save": "modules_to_save",
}
"""What peft's options are called here."""


class Lora(Added, name="lora"):
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

    @model_validator(mode="after")
    def _known(self) -> Lora:
        known.check_options("LORA", self.options, SETTINGS)
        known.check_bias(self.options, self.bias)
        self._check_under("LORA")
        if self.adapters and self.bias != "none":
            raise ValueError(f"bias={self.bias}: those of the model are not the new adapter's alone; use none")
        return self

    @property
    def method(self) -> Method:
        """LoRA with these settings."""
        own = {"r": self.rank, "lora_alpha": self.alpha, "lora_dropout": self.dropout, "bias": self.bias}
        return Method("LORA", self.target_modules, self.modules_to_save, own | self.options, SETTINGS)
