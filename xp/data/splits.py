"""Splits: the rows of a run, and where each of them is from."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from datasets import Dataset

    from xp.data.base import Data

Side = Literal["train", "eval"]


@dataclass(frozen=True)
class Splits:
    """The rows of a run, with the columns named as the task names them, and ``_row``, their number in the source."""

    train: Dataset | None
    eval: Dataset
    source: str
    """Where the rows come from, for a person to read."""

    data: Data | None = None
    """What has read them."""

    notes: dict[str, int] = field(default_factory=dict)
    """Rows that were left out on purpose, for the log and MLflow: ``train_filtered``, ``train_duplicates``, ..."""

    @cached_property
    def fingerprints(self) -> dict[str, str]:
        """SHA-256 over the content of each split."""
        from xp.data.fingerprint import fingerprint

        sides = {"train": self.train, "eval": self.eval}
        return {side: fingerprint(rows) for side, rows in sides.items() if rows is not None}

    @property
    def fingerprint(self) -> str:
        """SHA-256 over the content of both splits: the same rows in the same order, the same fingerprint."""
        return hashlib.sha256(repr(self.fingerprints).encode()).hexdigest()

    def place(self, side: Side, row: int) -> str:
        """Where a row is, by its ``_row``: ``train.csv, row 17``, counted from 1."""
        return self.data.place(self._origin(side), row) if self.data is not None else f"{side}, row {row + 1}"

    def key(self, side: Side) -> str:
        """The setting that a split comes from, to begin an error message with: ``data.train=`` or ``data: ``."""
        origin = self._origin(side)
        return f"data.{origin}=" if self.data is not None and origin in type(self.data).model_fields else "data: "

    def _origin(self, side: Side) -> Side:
        return "train" if self.data is not None and self.data.eval_share is not None else side
