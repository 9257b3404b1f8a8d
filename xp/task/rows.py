"""Encoded rows: their form, how they are made of raw ones, and put into tensors."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from xp.error import UserError

if TYPE_CHECKING:
    import numpy as np
    from datasets import Dataset
    from torch import Tensor

IGNORE = -100
"""Label of a token that is not to be predicted (PyTorch's ``ignore_index``)."""


@dataclass(frozen=True)
class Encoded:
    """Rows as the model takes them, and what became of those that were too long."""

    rows: Dataset
    """Columns: ``length`` (tokens, or 1), ``items`` (what the loss is divided by), and the task's own; ``tokens`` where
    a row takes more room by itself (``length``) than it has tokens."""

    notes: dict[str, int] = field(default_factory=dict)
    """Counts for the log and MLflow, for example ``{"rows": 10, "truncated": 3}``."""

    warnings: list[str] = field(default_factory=list)
    """What is odd about the rows and should be known before training, a line each."""

    faults: list[tuple[int, str]] = field(default_factory=list)
    """Position and reason of each row that turned out to be of no use, and has no part in ``rows``."""


def text_fault(row: dict[str, Any], column: str, may_be_blank: bool = False) -> str | None:
    """Why a row's text cannot be used: ``text: is empty``; None if it can."""
    text = row[column]
    if text is None or (text == "" or (isinstance(text, str) and not text.strip())) > may_be_blank:
        return f"{column}: is empty"
    return None if isinstance(text, str) else f"{column}: is {text!r:.40}, which is not text"


def objects(values: Sequence[Any]) -> np.ndarray:
    """Lists or texts, one a row, as an array of objects (rows,): the form of an outcome that is not a number."""
    import numpy as np

    return np.fromiter(values, dtype=object, count=len(values))


def settled(
    encoded: Dataset, overlong: str, most: float, what: str, setting: str = "max_length", unit: str = "tokens"
) -> Encoded:
    """Do with rows that are ``over`` (a boolean column) what ``task.overlong`` says, and count them.

    Args:
        encoded: encoded rows, the long ones cut already where that is what becomes of them.
        overlong: truncate, drop or error.
        most: the bound, for the message.
        what: plural of what a row is, for the message.
        setting: the task's setting that is the bound.
        unit: of the bound.

    Raises:
        UserError: a row is over and ``overlong`` is error.
    """
    count = sum(encoded["over"])
    if count and overlong == "error":
        raise UserError(
            f"task.overlong=error: {count} of {len(encoded)} {what} have more than "
            f"task.{setting}={most} {unit}; raise it, or choose task.overlong=truncate or drop"
        )
    notes = {"rows": len(encoded), {"truncate": "truncated", "drop": "dropped"}.get(overlong, "over"): count}
    if count and overlong == "drop":
        encoded = encoded.filter(lambda over: [not value for value in over], input_columns="over", batched=True)
    return Encoded(encoded.remove_columns("over"), notes)


def padded(rows: Sequence[Sequence[int]], value: int) -> Tensor:
    """Rows of unequal length as an int64 tensor (rows, longest), filled up on the right with ``value``."""
    import torch

    longest = max(map(len, rows))
    return torch.tensor([[*row, *[value] * (longest - len(row))] for row in rows], dtype=torch.long)
