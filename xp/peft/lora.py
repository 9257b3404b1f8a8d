"""LoRA, under its own friendly names."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, PositiveInt, model_validator

from xp.adapter import Several
from xp.adapter.several import check_names, check_there
from xp.peft import known
from xp.peft.added import Added
from xp.peft.base import check_base
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

    adapters: dict[str, str]
    """LoRAs under the new one, each by a name of your own: ``{law: runs/<run>/model}``. They take part and stay as they
    are, and are saved along with it."""

    @model_validator(mode="after")
    def _known(self) -> Lora:
        known.check_options("LORA", self.options, SETTINGS)
        known.check_bias(self.options, self.bias)
        check_names(self.adapters)
        if self.adapters:
            self._check_on_top()
        return self

    def _check_on_top(self) -> None:
        """Refuse what a LoRA on top of others cannot have.

        Raises:
            ValueError: it has it.
        """
        word = str(self.options.get("init_lora_weights"))
        if word.startswith(("pissa", "olora", "eva", "loftq")):
            raise ValueError(
                f"adapters: init_lora_weights={word} looks at the model alone; use command=merge on them first, and "
                "train on what it saves"
            )
        if self.bias != "none":
            raise ValueError(f"bias={self.bias}: those of the model are not the new adapter's alone; use none")

    @property
    def several(self) -> Several | None:
        """The adapters under the new one."""
        return Several(self.adapters, tuple(self.adapters)) if self.adapters else None

    def check_files(self) -> None:
        """The adapters' folders; what MLflow has is asked for later."""
        check_there(self.adapters)

    def check_use(self, command: str, model: str, merged: list[str]) -> None:
        """Those under the new one need their base, and a training."""
        super().check_use(command, model, merged)
        if not self.adapters:
            return
        check_base(model)
        if command not in ("train", "show"):
            raise ValueError(
                f"peft.adapters: peft={self.name} trains a new one on top of them, command={command} trains nothing; "
                "use peft=none"
            )

    @property
    def method(self) -> Method:
        """LoRA with these settings."""
        own = {"r": self.rank, "lora_alpha": self.alpha, "lora_dropout": self.dropout, "bias": self.bias}
        return Method("LORA", self.target_modules, self.modules_to_save, own | self.options, SETTINGS)
