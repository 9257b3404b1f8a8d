"""The standard library as questions with several answers: which line comes next?"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

CHOICES = 4
BEFORE = 3
"""Lines that a question shows."""

EVERY = 8
"""Lines from one question of a file to the next."""


def next_lines(path: str, text: str) -> Iterator[dict[str, Any]]:
    """Lines of code in a row (``text``), four lines of the file (``choices``), and which comes next (``label``)."""
    from xp.data.stdlib_labels import chance

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
