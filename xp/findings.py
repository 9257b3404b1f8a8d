"""Findings: what an evaluation shows beyond numbers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Findings:
    """Tables and pictures of an evaluation."""

    tables: dict[str, dict[str, list[Any]]] = field(default_factory=dict)
    pictures: dict[str, Callable[[], Any]] = field(default_factory=dict)


def confusion(gold: Sequence[int], predicted: Sequence[int], labels: Sequence[str]) -> Any:
    """A confusion matrix."""


def per_class(gold: Sequence[int], predicted: Sequence[int], labels: Sequence[str]) -> dict[str, list[Any]]:
    """Each class's scores."""
    return {}


def worst(losses: Sequence[float], columns: dict[str, list[Any]], most: int = 50) -> dict[str, list[Any]]:
    """The rows with the highest loss."""
    return {}


def write(findings: Findings, folder: Path) -> None:
    """Write the pictures and tables to a folder."""
