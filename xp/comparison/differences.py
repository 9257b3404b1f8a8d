"""Differences: what differs between runs, section by section, and where their curves part."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from typing import Any

from xp.comparison.facts import CURVE, Facts

Rows = dict[str, list[Any]]
"""What differs: by its name, the value of each run."""

ABSENT = "-"
"""In place of a value that a run does not have."""

Differences = dict[str, Rows]
"""Rows by section: settings, environment, code, data, outcome, metrics; only those where something differs."""


def differences(runs: Sequence[Facts]) -> Differences:
    """What differs between runs. A section of which one of them knows nothing is left out.

    Of a metric the last values are compared, speeds aside; whole curves by `curves`.
    """
    sections: dict[str, list[dict[str, Any]]] = {
        name: [getattr(each, name) for each in runs] for name in ("settings", "environment", "code", "data", "outcome")
    }
    sections["metrics"] = [each.last for each in runs]
    found = {name: _rows(known) for name, known in sections.items() if all(known)}
    return {name: rows for name, rows in found.items() if rows}


def _rows(known: Sequence[dict[str, Any]]) -> Rows:
    names = dict.fromkeys(name for each in known for name in each)
    rows = {name: [each.get(name, ABSENT) for each in known] for name in names}
    return {name: values for name, values in rows.items() if any(not same(values[0], each) for each in values[1:])}


def same(one: Any, other: Any) -> bool:
    """Whether two values are the same to the last bit; what is no number is so, too."""
    if isinstance(one, float) and isinstance(other, float) and math.isnan(one):
        return math.isnan(other)
    return bool(one == other)


def curves(runs: Sequence[Facts], name: str = CURVE) -> tuple[bool, str]:
    """Whether the curves of a metric are the same at every step that all runs have logged, and where they part.

    Returns:
        Whether they are, and that in words; none where a run has no such curve.
    """
    known = [each.points.get(name, {}) for each in runs]
    steps = sorted(set(known[0]).intersection(*known[1:]))
    if not steps:
        return True, ""
    for number, step in enumerate(steps):
        values = [each[step] for each in known]
        if any(not same(values[0], each) for each in values[1:]):
            before = f"equal up to step {steps[number - 1]}, then" if number else "differs from the first point on:"
            return False, f"{name}: {before} {' against '.join(digits(values))} at step {step}"
    longest = max(max(each) for each in known)
    end = f"; step {steps[-1]} is the last that all of them have" if longest > steps[-1] else ""
    return True, f"{name}: equal at all {len(steps)} points of the curve{end}"


def digits(values: Sequence[Any]) -> list[str]:
    """Measured values as text, in as few digits as it takes to tell different ones apart, four of them at least."""
    numbers = {each for each in values if isinstance(each, float)}
    if numbers and all(each.is_integer() for each in numbers) and max(map(abs, numbers)) > 1:  # Counts.
        return [f"{each:,.0f}" if isinstance(each, float) else written(each) for each in values]
    places = next((each for each in range(4, 17) if len({f"{one:.{each}f}" for one in numbers}) == len(numbers)), 0)
    return [f"{each:,.{places}f}" if isinstance(each, float) and places else written(each) for each in values]


def written(value: Any) -> str:
    """A setting or the like as text."""
    return value if isinstance(value, str) and value.isprintable() else json.dumps(value)
