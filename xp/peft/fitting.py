"""Fitting: settings that name parts of the network, which peft would follow into nowhere or leave out unsaid."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from xp.error import UserError, nearest
from xp.peft import known, layers

if TYPE_CHECKING:
    from torch import nn
    from transformers import PreTrainedModel

    from xp.peft.method import Method


NEEDED = {
    "adapter_layers": "<number>",
    "adapter_len": "<number>",
    "num_virtual_tokens": "<number>",
    "token_indices": "[<token ids>]",
}
"""Options for which peft has no value of its own, and what to give; CPT counts its tokens itself."""


def check(method: Method, network: PreTrainedModel) -> None:
    """Refuse what the network does not have, and options without a value.

    Args:
        method: what was set.
        network: without an adapter; its weights may be on torch's meta device.

    Raises:
        UserError: layers of no such name, tokens or layers beyond its last; an option that needs a value.
    """
    for option in sorted(NEEDED.keys() & known.options(method.kind)):
        if not method.options.get(option) and method.kind != "CPT":
            key = f"peft.options.{option}"
            raise UserError(f"{key} has no value, and {method.kind} needs one; give {key}={NEEDED[option]}")
    names = [name for name, _ in network.named_modules() if name]
    check_names("peft.modules_to_save", method.modules_to_save, names)
    for option in sorted(known.LAYERS & method.options.keys()):
        key, wanted = f"peft.options.{option}", method.options[option]
        if isinstance(wanted, list):
            check_names(key, wanted, names)
        elif wanted and not any(re.fullmatch(wanted, name) for name in names):
            raise layers.nothing(wanted, network, key, more="")
    if "token_indices" in method.options:
        _check_tokens("peft.options.token_indices", method.options["token_indices"], network, method.target_modules)
    tokens = method.options.get("trainable_token_indices") or {}
    for name, numbers in (tokens if isinstance(tokens, dict) else {None: tokens}).items():
        _check_tokens("peft.options.trainable_token_indices", numbers, network, name)
    _check_replication(method.options.get("layer_replication") or [], network)


def check_adapted(method: Method, adapted: Any) -> None:
    """Refuse what has come to nothing.

    Args:
        method: what was set.
        adapted: the network with the adapter.

    Raises:
        UserError: some of the layers to adapt are not there, or ranks or scales are for none that is adapted.
    """
    config = adapted.active_peft_config
    left = config.target_modules if hasattr(config, "target_modules") else None  # peft has renamed those of experts.
    if isinstance(method.target_modules, list):
        names = [name for name, _ in adapted.get_base_model().named_modules()]
        check_names("peft.target_modules", [name for name in method.target_modules if name in (left or ())], names)
    tuner = adapted.base_model
    targeted = [*getattr(tuner, "targeted_module_names", [])]
    targeted += [each.rpartition(".")[0] for each in getattr(tuner, "targeted_parameter_names", [])]
    for option in ("rank_pattern", "alpha_pattern"):
        for pattern in method.options.get(option) or {} if targeted else ():
            if not any(re.match(rf"(.*\.)?({pattern})$", name) for name in targeted):
                raise UserError(
                    f"peft.options.{option}: no adapted layer matches {pattern}.{nearest(pattern, _last(targeted))}"
                )


def check_names(key: str, wanted: list[str], names: list[str]) -> None:
    """Refuse a name that no layer has, or ends with."""
    for word in wanted:
        if not any(f".{name}".endswith(f".{word}") for name in names):
            raise UserError(f"{key}: no layer of this model is called {word}.{nearest(word, _last(names))}")


def _last(names: Iterable[str]) -> set[str]:
    """The last words of layers' names, without those that are numbers."""
    return {word for name in names if not (word := name.rpartition(".")[2]).isdigit()}


def _check_tokens(key: str, numbers: list[int], network: PreTrainedModel, layer: str | list[str] | None) -> None:
    """Refuse tokens that have no row in an embedding."""
    names = [layer] if isinstance(layer, str) else layer or []
    named: list[nn.Module] = [part for name, part in network.named_modules() if name.endswith((*names, "\0"))]
    for embedding in named or [network.get_input_embeddings()]:
        weight: Any = getattr(embedding, "weight", None)
        for number in numbers if weight is not None else ():
            if not 0 <= number < len(weight):
                raise UserError(f"{key}: there is no token {number}; this model has those from 0 to {len(weight) - 1}")


def _check_replication(ranges: list[Any], network: PreTrainedModel) -> None:
    """Refuse ranges of layers that are not there."""
    number = getattr(network.config.get_text_config(), "num_hidden_layers", None)
    for begin, end in ranges:
        if number is not None and not 0 <= begin < end <= number:
            raise UserError(
                f"peft.options.layer_replication: there are no layers [{begin}, {end}]; this model has {number}: give "
                f"[<first>, <one after the last>] from 0 to {number}"
            )
