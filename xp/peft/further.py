"""Further: the adapter that a network came with, trained on under the settings that it has."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from xp.adapter import kind_of
from xp.error import UserError
from xp.peft.base import trained_in_float32

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from xp.peft.method import Method


def further(method: Method, network: PreTrainedModel) -> PreTrainedModel:
    """The network with its adapter to be trained, if it is one of these settings.

    Args:
        method: what was set.
        network: with an adapter.

    Raises:
        UserError: the adapter is another one.
    """
    there: Any = network.active_peft_config
    kind = kind_of(there)
    if kind != method.kind:
        raise UserError(
            f"peft: this is {method.kind}, and model.path has an adapter of {kind}; give peft=any peft.type={kind} "
            "to train it further, or peft=none to merge it"
        )
    if kind == "ADALORA":
        raise UserError(
            "peft: AdaLoRA has taken rank away by its schedule, and cannot be trained further; give peft=none to "
            "merge it, or start from its base"
        )
    held = sorted(getattr(there, "modules_to_save", None) or ())
    if set(method.modules_to_save) - set(held):
        raise _other("peft.modules_to_save", method.modules_to_save, held)
    given = method.lasting()
    if method.target_modules not in (None, "all-linear"):  # It has the names of those that these were.
        given["target_modules"] = method.target_modules
    for name, wanted in given.items():
        value = getattr(there, name)
        value = sorted(value) if isinstance(value, (set, frozenset)) else value
        if json.loads(json.dumps(value, default=str)) != (sorted(wanted) if isinstance(wanted, list) else wanted):
            key = "peft.target_modules" if name == "target_modules" else method.setting(name)
            raise _other(key, wanted, value)
    return trained_in_float32(network)


def _other(key: str, wanted: Any, there: Any) -> UserError:
    """That an adapter has another value of a setting."""
    return UserError(
        f"{key}={wanted}: the adapter in model.path has {there}; give the same to train it further, or peft=none to "
        "merge it and train all weights"
    )
