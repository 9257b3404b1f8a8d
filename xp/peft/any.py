"""Any method of the installed peft."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from pydantic import model_validator

from xp.adapter import experts
from xp.peft import known, mixing
from xp.peft.base import Peft, Purpose
from xp.peft.targets import TargetsOrUsual

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from xp.peft.method import Method

SETTINGS = {"target_modules": "target_modules", "modules_to_save": "modules_to_save"}
"""What peft's options are called here."""


class AnyMethod(Peft, name="any"):
    """Train an adapter by any method that the installed peft has."""

    type: str
    """The method as peft calls it: VERA, IA3, PREFIX_TUNING, ..."""

    target_modules: TargetsOrUsual
    """Layers to adapt: names, a regular expression, ``all-linear``; null takes those that peft knows to be usual."""

    modules_to_save: list[str]
    """Layers to train and save in full beside it; a new head is one of them anyway."""

    options: dict[str, Any]
    """Fields of the method's configuration class in peft, such as ``{r: 64}``."""

    @model_validator(mode="after")
    def _known(self) -> AnyMethod:
        kind = known.check_type(self.type)
        for name in SETTINGS:
            if getattr(self, name) and name not in known.options(kind):
                raise ValueError(f"{name}: peft's {kind} has no such option; leave it out")
        known.check_options(kind, self.options, SETTINGS)
        if kind == experts.KIND:
            mixing.check(self.options)
        return self

    @property
    def _method(self) -> Method:
        from xp.peft.method import Method

        kind = known.check_type(self.type)
        return Method(kind, self.target_modules, self.modules_to_save, self.options, SETTINGS)

    def check_files(self) -> None:
        """The folders of the LoRAs that an X-LoRA mixes; what MLflow has is asked for later."""
        if self.options.get("adapters"):
            mixing.read(self.options)

    def check(self, purpose: Purpose) -> None:
        """Have peft check the options."""
        self._method.check(purpose)

    def plan(self, skeleton: Callable[[], PreTrainedModel], purpose: Purpose) -> None:
        """Tell which layers it will be on."""
        self._method.plan(skeleton, purpose)

    def apply(self, network: PreTrainedModel, purpose: Purpose) -> PreTrainedModel:
        """A ``peft.PeftModel`` around the network; an adapter that it came with is trained further."""
        return self._method.apply(network, purpose)
