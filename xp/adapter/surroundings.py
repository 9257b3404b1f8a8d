"""Surroundings: what a network with an adapter needs around its forward, so that every task may call it as before."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from xp.adapter import experts
from xp.adapter.folder import kind_of

if TYPE_CHECKING:
    from transformers import PreTrainedModel

TOKENWISE = ("logits", "start_logits", "end_logits")
"""Outputs that have a place for each token."""


def surround(network: PreTrainedModel) -> PreTrainedModel:
    """The network with what its adapter's method asks for.

    Virtual tokens get logits of their own, before those of the text: they are cut off, so that logits and labels
    have the same places again. Methods that mix several tasks are told that all rows are of the first. What mixes
    experts gets what it sees in the type of its own weights.
    """
    config: Any = network.active_peft_config
    kind = kind_of(config)
    if kind in ("POLY", "MULTITASK_PROMPT_TUNING"):
        network.register_forward_pre_hook(_of_the_first_task, with_kwargs=True)
        _generate_of_the_first_task(network)
    if kind == experts.KIND:
        network.internal_xlora_classifier.layers[0].register_forward_pre_hook(_in_its_type)
    if config.is_prompt_learning:
        network.register_forward_hook(_without_virtual, with_kwargs=True)
    return network


def _of_the_first_task(network: Any, arguments: Any, named: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
    rows = next(value for value in (*arguments, *named.values()) if hasattr(value, "shape"))
    return arguments, {"task_ids": _zeros(rows)} | named


def _in_its_type(layer: Any, arguments: Any) -> Any:
    return arguments[0].to(layer.weight.dtype)


def _zeros(rows: Any) -> Any:
    import torch

    return torch.zeros(len(rows), dtype=torch.long, device=rows.device)


def _generate_of_the_first_task(network: Any) -> None:
    generate = network.generate

    def told(*arguments: Any, **named: Any) -> Any:
        rows = named["input_ids"] if "input_ids" in named else named.get("inputs", *arguments[:1])
        return generate(*arguments, **({"task_ids": _zeros(rows)} | named))

    network.generate = told


def _without_virtual(network: Any, arguments: Any, named: dict[str, Any], output: Any) -> Any:
    """Cut what virtual tokens have added in front."""
    given = named.get("decoder_input_ids")
    if given is None:
        given = named.get("input_ids", *arguments[:1])
    if given is None:
        return output
    extra = network.active_peft_config.num_virtual_tokens
    for name in TOKENWISE:
        logits = getattr(output, name, None)
        if logits is not None and logits.ndim > 1 and logits.shape[1] == given.shape[1] + extra:
            output[name] = logits[:, extra:]
    return output
