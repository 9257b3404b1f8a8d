"""Continuous batching: transformers' own scheduler, where an answer that ends makes room for the next prompt."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from xp.generation.base import Generation
from xp.generation.habits import base

OF_ALL = ("name", "max_new_tokens", "use_cache", "disable_compile")
"""Settings of greedy writing that it can honour; all others must be off."""


def check(generation: Generation) -> None:
    """Refuse a way of writing that continuous batching would not follow.

    Raises:
        ValueError: names the setting.
    """
    if generation.name != "greedy":
        raise ValueError(
            f"prediction.continuous_batching=true: generation={generation.name} would not be repeatable in it, or is "
            "none of its ways; use generation=greedy, or false"
        )
    for name, value in generation.model_dump().items():
        if name not in OF_ALL and value not in (None, [], False, 0, 1):
            raise ValueError(
                f"generation.{name}: prediction.continuous_batching=true cannot honour it; take one of them back"
            )


def write(network: Any, prompts: Sequence[Sequence[int]], processor: Any, generation: Generation) -> list[list[int]]:
    """The new tokens of each prompt.

    Args:
        network: a decoder, in evaluation mode.
        prompts: tokens.
        processor: the tokenizer.
        generation: greedy, see `check`.

    Raises:
        RuntimeError: a prompt that has failed.
    """
    from transformers import ContinuousBatchingConfig, GenerationConfig

    inner = base(network)
    own = inner.generation_config.eos_token_id
    told = generation.arguments(network, processor) | {
        "eos_token_id": processor.eos_token_id if own is None else own,
        "pad_token_id": processor.pad_token_id,
    }
    found = inner.generate_batch(
        [list(each) for each in prompts],
        generation_config=GenerationConfig(**told),
        continuous_batching_config=ContinuousBatchingConfig(drop_unsupported_processors=False),
        progress_bar=False,
    )
    outputs = [found.get(f"req_{at}") for at in range(len(prompts))]
    lost = [each for each in outputs if each is None or each.error]
    if lost:
        raise RuntimeError(f"continuous batching: {lost[0].error if lost[0] is not None else 'an answer is missing'}")
    return [list(each.generated_tokens) for each in outputs if each is not None]
