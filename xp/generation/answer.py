"""Answer: the text of a row of new tokens, and why it ends there."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from xp.generation.base import Generation
from xp.generation.habits import base


@dataclass(frozen=True)
class Answer:
    """What a model has written."""

    text: str
    """Without special tokens, and without the text that ended it."""

    finish: Literal["stop", "stop_string", "length", "time"]
    """What ended it: the end token, one of ``stop_strings``, ``max_new_tokens``, or ``max_time``."""

    tokens: int
    """How many were written, with the one that ended it."""


def ending(network: Any, processor: Any) -> set[int]:
    """The tokens that end an answer: what the model's generation config says, else the tokenizer."""
    own = base(network).generation_config.eos_token_id
    found = processor.eos_token_id if own is None else own
    return set(found) if isinstance(found, (list, tuple)) else set() if found is None else {found}


def answered(row: Sequence[int], ends: Collection[int], generation: Generation, processor: Any) -> Answer:
    """What a row of new tokens says.

    Args:
        row: of `Generation.generate`, filled up with whatever token.
        ends: see `ending`.
        generation: how it was written.
        processor: the tokenizer.
    """
    end = next((at for at, token in enumerate(row) if token in ends), None)
    tokens = list(row if end is None else row[: end + 1])
    whole = processor.decode(tokens) if generation.stop_strings else ""
    if stops := [text for text in generation.stop_strings if text in whole]:
        few, many = 0, len(tokens)  # The fewest tokens that hold one of them.
        while few < many:
            middle = (few + many) // 2
            said = processor.decode(tokens[:middle])
            few, many = (few, middle) if any(text in said for text in stops) else (middle + 1, many)
        text = processor.decode(tokens[:many], skip_special_tokens=True)
        cut = min((at for stop in stops if (at := text.find(stop)) >= 0), default=len(text))
        return Answer(text[:cut], "stop_string", many)
    text = processor.decode(tokens, skip_special_tokens=True)
    if end is not None and not (
        generation.forced_eos_token_id is not None and len(tokens) == generation.max_new_tokens
    ):
        return Answer(text, "stop", len(tokens))
    return Answer(text, "length" if len(tokens) >= generation.max_new_tokens else "time", len(tokens))
