"""Metric: how good answers are, by name."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal


def check(names: Sequence[str], form: str) -> None:
    """Refuse names of metrics that there are not, or that do not score answers of this form."""


def values(names: Sequence[str]) -> tuple[str, ...]:
    """Names of the numbers that these metrics give."""
    return tuple(names)


def compute(names: Sequence[str], form: str, predictions: Any, references: Any) -> dict[str, float]:
    """The numbers that these metrics give."""
    from sklearn.metrics import accuracy_score, f1_score

    scores = {
        "accuracy": lambda: accuracy_score(references, predictions),
        "f1_macro": lambda: f1_score(references, predictions, average="macro", zero_division=0),
    }
    return {name: float(scores[name]()) for name in names}


def load_imported(name: str) -> None:
    """Make a metric of the hub, or of a folder laid out like one, known by the last part of its id."""


def better(value: str) -> Literal["min", "max"]:
    """Which way a value is good: a loss-like one (loss, perplexity, bits per byte, errors) when it is small."""
    small = ("loss", "perplexity", "bits_per_byte", "error")
    return "min" if value.endswith(small) else "max"
