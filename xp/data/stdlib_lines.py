"""The standard library as questions about its lines: which comes next, and does this one?"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import Any

CHOICES = 4
BEFORE = 3
"""Lines that a question shows."""

EVERY = 8
"""Lines from one question of a file to the next."""


def next_lines(path: str, text: str) -> Iterator[dict[str, Any]]:
    """Lines of code in a row (``text``), four lines of the file (``choices``), and which comes next (``label``)."""
    lines = [line for line in text.split("\n") if line.strip() and len(line) <= 100]
    others = sorted({*lines})
    if len(others) < 2 * CHOICES:
        return
    for at in range(BEFORE, len(lines), EVERY):
        choices = [lines[at]]
        draw = 0
        while len(choices) < CHOICES:
            other = others[int(chance(path, at, draw) * len(others))]
            draw += 1
            if other not in choices:
                choices.append(other)
        label = int(chance(path, at, "label") * CHOICES)
        choices[0], choices[label] = choices[label], choices[0]
        yield {"text": "\n".join(lines[at - BEFORE : at]), "choices": choices, "label": label}


def line_pairs(path: str, text: str) -> Iterator[dict[str, Any]]:
    """Lines of code in a row (``text``), a line of the file (``text_pair``), and whether it comes ``next``."""
    for number, row in enumerate(next_lines(path, text)):
        follows = chance(path, number, "follows") < 0.5
        at = row["label"] if follows else (row["label"] + 1) % CHOICES
        yield {"text": row["text"], "text_pair": row["choices"][at], "label": "next" if follows else "other"}


def chance(*of: Any) -> float:
    """A number in [0, 1) that is always the same of the same: not Python's ``hash``, which differs by process."""
    return int.from_bytes(hashlib.sha256(repr(of).encode()).digest()[:6], "big") / (1 << 48)
