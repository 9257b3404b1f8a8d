"""Words: texts in settings, as the tokens that they stand for."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from xp.error import UserError


def spelled(key: str, word: str | list[int], processor: Any) -> list[list[int]]:
    """The tokens of a text as it stands and, where it begins a word, after a space: tokenizers tell the two apart.

    Ids of tokens are what they are.

    Raises:
        UserError: there is no such id.
    """
    if not isinstance(word, str):
        return [[token(key, each, processor) for each in word]]
    spellings = [word] if word[:1].isspace() else [word, f" {word}"]
    found = [processor.encode(each, add_special_tokens=False) for each in spellings]
    return [each for at, each in enumerate(found) if each and each not in found[:at]]


def token(key: str, value: str | int, processor: Any) -> int:
    """The one token that a text is, or that has this id.

    Raises:
        UserError: the text is several tokens, or there is no such id.
    """
    if isinstance(value, int):
        if not 0 <= value < len(processor):
            raise UserError(f"generation.{key}={value}: the tokenizer's last token is {len(processor) - 1}")
        return value
    found = processor.encode(value, add_special_tokens=False)
    if len(found) != 1:
        parts = " ".join(processor.convert_ids_to_tokens(found)) or "none"
        raise UserError(f"generation.{key}={value}: it must be one token; this tokenizer makes it {parts}")
    return int(found[0])


def tokens(key: str, values: Iterable[str | int], processor: Any, own: Iterable[int] | None) -> list[int] | None:
    """Tokens by text or id, after those that the model itself states; None where there are none."""
    found = [*(own or ()), *(token(key, value, processor) for value in values)]
    return list(dict.fromkeys(found)) or None
