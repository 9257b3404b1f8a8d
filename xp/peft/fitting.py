"""Fitting: settings that name parts of the network, which peft would follow into nowhere or leave out unsaid."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from xp.error import UserError

if TYPE_CHECKING:
    from torch import nn
    from transformers import PreTrainedModel

    from xp.peft.method import Method


def check(method: Method, network: PreTrainedModel) -> None:
    """Refuse what the network does not have.

    Args:
        method: what was set.
        network: without an adapter; its weights may be on torch's meta device.

    Raises:
        UserError: tokens or layers beyond its last.
    """
    if "token_indices" in method.options:
        _check_tokens("peft.options.token_indices", method.options["token_indices"], network, method.target_modules)
    tokens = method.options.get("trainable_token_indices") or {}
    for name, numbers in (tokens if isinstance(tokens, dict) else {None: tokens}).items():
        _check_tokens("peft.options.trainable_token_indices", numbers, network, name)
    _check_replication(method.options.get("layer_replication") or [], network)


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
