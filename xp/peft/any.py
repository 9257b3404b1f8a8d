"""Any method of the installed peft."""

from __future__ import annotations

from pydantic import model_validator

from xp.adapter import experts
from xp.peft import known, mixing
from xp.peft.added import Added
from xp.peft.method import Method
from xp.peft.targets import TargetsOrUsual

SETTINGS = {"target_modules": "target_modules", "modules_to_save": "modules_to_save"}
"""What peft's options are called here."""


class AnyMethod(Added, name="any"):
    """Train an adapter by any method that the installed peft has."""

    type: str
    """The method as peft calls it: VERA, IA3, PREFIX_TUNING, ..."""

    target_modules: TargetsOrUsual
    """Layers to adapt: names, a regular expression, ``all-linear``; null takes those that peft knows to be usual."""

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
    def method(self) -> Method:
        """The method with these options."""
        kind = known.check_type(self.type)
        made = mixing.Mixture if kind == experts.KIND else Method
        return made(kind, self.target_modules, self.modules_to_save, self.options, SETTINGS)

    def check_files(self) -> None:
        """The folders of the LoRAs that an X-LoRA mixes; what MLflow has is asked for later."""
        if self.options.get("adapters"):
            mixing.read(self.options)
