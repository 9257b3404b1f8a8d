"""The standard library as questions about its lines: which of four was written, and was this one?"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from typing import Any

CHOICES = 4
BEFORE = 2
"""Lines that a question shows."""

EVERY = 8
"""Lines from one question of a file to the next."""

LONGEST = 100
"""Characters of a line; longer ones are left out."""


def next_lines(path: str, text: str) -> Iterator[dict[str, Any]]:
    """Lines of code (``text``), the next one with its words in four orders (``choices``), the right one (``label``)."""
    for at, before, line in _questions(text):
        pieces = re.findall(r"\w+|[^\w\s]|\s+", line)
        words = [piece for piece in pieces if not piece.isspace()]
        choices = [line]
        for draw in range(3 * CHOICES):
            order = iter(sorted(range(len(words)), key=lambda word: chance(path, at, draw, word)))
            other = "".join(piece if piece.isspace() else words[next(order)] for piece in pieces)
            if other not in choices and len(choices) < CHOICES:
                choices.append(other)
        if len(choices) == CHOICES:
            label = int(chance(path, at, "label") * CHOICES)
            choices[0], choices[label] = choices[label], choices[0]
            yield {"text": before, "choices": choices, "label": label}


def line_pairs(path: str, text: str) -> Iterator[dict[str, Any]]:
    """Lines of code (``text``) and the next one (``text_pair``), as ``written`` or with its words in another order."""
    for number, row in enumerate(next_lines(path, text)):
        written = chance(path, number, "written") < 0.5
        at = row["label"] if written else (row["label"] + 1) % CHOICES
        yield {"text": row["text"], "text_pair": row["choices"][at], "label": "written" if written else "shuffled"}


def _questions(text: str) -> Iterator[tuple[int, str, str]]:
    """The number of a line, some lines in a row, and the one after them."""
    lines = [line for line in text.split("\n") if line.strip() and len(line) <= LONGEST]
    for at in range(BEFORE, len(lines), EVERY):
        yield at, "\n".join(lines[at - BEFORE : at]), lines[at]


def chance(*of: Any) -> float:
    """A number in [0, 1) that is always the same of the same: not Python's ``hash``, which differs by process."""
    return int.from_bytes(hashlib.sha256(repr(of).encode()).digest()[:6], "big") / (1 << 48)
