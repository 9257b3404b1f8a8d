"""Mixing: what X-LoRA needs beside its options, for it is made of LoRAs that there are."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from xp.adapter import Folder, Several, experts, explained, located
from xp.error import UserError
from xp.peft.base import Purpose
from xp.peft.method import Method

if TYPE_CHECKING:
    from peft import PeftConfig
    from transformers import PreTrainedModel

SETTING = "peft.options.adapters"


def read(options: dict[str, Any], locate: Callable[[str], str] | None = None) -> dict[str, Folder]:
    """The experts by the names that were given to them; without ``locate``, not those that MLflow has.

    Raises:
        UserError: there are none, or one that peft cannot mix.
    """
    paths = options.get("adapters")
    if not paths:
        raise UserError(f"{SETTING}: X-LoRA mixes LoRAs that there are; give {SETTING}={{<name>: <folder>, ...}}")
    there = {name: path for name, path in paths.items() if locate is not None or not path.startswith("mlflow:")}
    return {
        name: experts.read_expert(located(path, f"{SETTING}.{name}", locate or str), f"{SETTING}.{name}={path}")
        for name, path in there.items()
    }


def check(options: dict[str, Any]) -> None:
    """Refuse experts that cannot be.

    Raises:
        ValueError: they are no names and folders, or are to be trained.
    """
    paths = options.get("adapters") or {}
    if not isinstance(paths, dict) or not all(isinstance(path, str) for path in paths.values()):
        raise ValueError("options.adapters: it must be names and folders, {<name>: <folder>, ...}")
    if options.get("use_trainable_adapters"):
        raise ValueError("options.use_trainable_adapters: peft does not save what the experts learn; leave it out")


@dataclass(frozen=True)
class Mixture(Method):
    """X-LoRA: what mixes LoRAs that there are is trained, and they stay as they are."""

    def plan(self, skeleton: Callable[[], PreTrainedModel], purpose: Purpose, under: Several | None) -> None:
        """Tell which LoRAs are mixed.

        Raises:
            UserError: there are none, or one that peft cannot mix.
        """
        self.check(purpose)
        folders = read(self.options, purpose.locate)
        purpose.say(f"xlora mixes {len(folders)} experts: {', '.join(folders)}")

    def lasting(self) -> dict[str, Any]:
        """The options but the experts."""
        if self.options.get("adapters"):
            raise UserError(f"{SETTING}: the X-LoRA in model.path has its own experts; leave them out")
        return {name: value for name, value in self.options.items() if name != "adapters"}

    def _put_on(self, network: PreTrainedModel, config: PeftConfig, purpose: Purpose) -> tuple[Any, list[str]]:
        from peft import get_peft_model

        folders = read(self.options, purpose.locate)
        experts.check_network(network, "peft.type=XLORA")
        of: Any = config
        of.hidden_size = network.config.get_text_config().hidden_size
        of.adapters = {str(number): folder.path for number, folder in enumerate(folders.values())}
        notes: list[str] = []
        with explained(next(iter(folders.values())), network, notes):
            adapted = get_peft_model(network, config)
        return adapted, notes
