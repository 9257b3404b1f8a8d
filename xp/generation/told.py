"""What transformers' ``generate`` is told: settings, with texts as the tokens that they stand for."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from xp.generation import words
from xp.generation.habits import base

if TYPE_CHECKING:
    from torch import nn

    from xp.generation.base import Generation


def told(generation: Generation, network: nn.Module, processor: Any) -> dict[str, Any]:
    """The arguments that a way of writing means for a network and its tokenizer, see `Generation.arguments`."""
    own = base(network).generation_config
    given: dict[str, Any] = generation.model_dump(exclude={"name", "stop_strings"}, exclude_none=True)
    given |= {"do_sample": generation.do_sample, "num_beams": generation.beams}
    for name in ("suppress_tokens", "begin_suppress_tokens"):
        given[name] = words.tokens(name, getattr(generation, name), processor, getattr(own, name))
    for name in ("forced_bos_token_id", "forced_eos_token_id"):
        if name in given:
            given[name] = words.token(name, given[name], processor)
    bad = [each for word in generation.bad_words_ids for each in words.spelled("bad_words_ids", word, processor)]
    given["bad_words_ids"] = [*(own.bad_words_ids or ()), *bad] or None
    pairs: list[Any] = generation.sequence_bias
    biased = {tuple(each): bias for word, bias in pairs for each in words.spelled("sequence_bias", word, processor)}
    given["sequence_bias"] = biased or None
    if generation.exponential_decay_length_penalty is not None:
        start, factor = generation.exponential_decay_length_penalty
        given["exponential_decay_length_penalty"] = (int(start), factor)
    if generation.compile_config is not None:
        from transformers import CompileConfig

        given["compile_config"] = CompileConfig(**generation.compile_config.model_dump())
        given["compile_config"]._compile_all_devices = True
    return {name: value for name, value in given.items() if value is not None}
