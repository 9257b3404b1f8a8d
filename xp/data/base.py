"""Data: the kind, and what every source does with its rows once it has them."""

from __future__ import annotations

import hashlib
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pydantic import PositiveInt

from xp.component import Component
from xp.error import UserError, nearest

if TYPE_CHECKING:
    from datasets import Dataset


@dataclass(frozen=True)
class Splits:
    """The rows of a run, with the columns named as the task names them."""

    train: Dataset | None
    eval: Dataset
    source: str
    """Where the rows come from, for a person to read."""

    @property
    def fingerprint(self) -> str:
        """SHA-256 over the content of both splits: the same rows in the same order, the same fingerprint."""
        digest = hashlib.sha256()
        for rows in (self.train, self.eval):
            if rows is None:
                continue
            for batch in rows.iter(10_000):
                digest.update(repr(sorted(batch.items())).encode(errors="surrogatepass"))
        return digest.hexdigest()


class Data(Component):
    """Rows to train on and rows to evaluate on."""

    columns: dict[str, str]
    """What the task's columns are called in the source, for example ``{text: sentence, label: label}``."""

    train_rows: PositiveInt | None
    """Train on at most this many rows, chosen at random but always the same ones; null takes all."""

    eval_rows: PositiveInt | None
    """Evaluate on at most this many rows, likewise."""

    @abstractmethod
    def read(self, train: bool) -> tuple[Dataset | None, Dataset | None, str]:
        """The train and eval rows as the source has them, and where they come from.

        Args:
            train: whether rows to train on are needed.

        Raises:
            UserError: the source is not there or cannot be read.
        """

    def load(
        self,
        columns: Sequence[str],
        others: Sequence[Sequence[str]] = (),
        optional: Sequence[str] = (),
        *,
        train: bool,
    ) -> Splits:
        """Both splits with just ``columns``.

        Args:
            columns: the columns that the task reads.
            others: other sets of columns that do as well; the first set that is there is taken.
            optional: columns that are taken where they are there.
            train: whether rows to train on are needed.

        Raises:
            UserError: no such source, a missing column (lists those there are), or a split without rows.
        """
        train_rows, eval_rows, source = self.read(train)
        train_rows, eval_rows = (None if rows is None else _undecoded(rows) for rows in (train_rows, eval_rows))
        there = {name for rows in (train_rows, eval_rows) if rows is not None for name in rows.column_names}
        complete = [each for each in (columns, *others) if all(self.columns.get(c, c) in there for c in each)]
        columns = [*(complete or [columns])[0], *(c for c in optional if self.columns.get(c, c) in there)]
        named = [self.columns.get(column, column) for column in columns]
        if len(set(named)) < len(named):
            raise UserError(f"data.columns: {' and '.join(columns)} cannot both be {named[0]!r}")
        if eval_rows is None or (train and train_rows is None):
            side = "eval" if eval_rows is None else "train"
            raise UserError(f"data.{side} is not set: give data.{side}=<a file or split>")
        return Splits(
            train=self._prepared(train_rows, columns, self.train_rows, "train") if train and train_rows else None,
            eval=self._prepared(eval_rows, columns, self.eval_rows, "eval"),
            source=source,
        )

    def _prepared(self, rows: Dataset, columns: Sequence[str], most: int | None, split: str) -> Dataset:
        for column in columns:
            there = self.columns.get(column, column)
            if there not in rows.column_names:
                raise UserError(
                    f"data.columns.{column}={there}: the {split} rows of {self.name!r} have no such column."
                    f"{nearest(there, rows.column_names)} Their columns: {', '.join(rows.column_names)}"
                )
        rows = rows.select_columns([self.columns.get(column, column) for column in columns])
        rows = rows.rename_columns({self.columns[c]: c for c in columns if self.columns.get(c, c) != c})
        if not len(rows):
            raise UserError(f"data: the {split} split has no rows")
        if most is not None and most < len(rows):
            import numpy as np

            rows = rows.select(np.sort(np.random.default_rng(0).permutation(len(rows))[:most]))
        if "text" in columns:
            _check_text(rows, self.columns.get("text", "text"), split)
        return rows


def _undecoded(rows: Dataset) -> Dataset:
    """Rows whose images and sounds stay the files they are until a task needs them, as ``{"bytes", "path"}``."""
    from datasets import Audio, Image

    for name, feature in rows.features.items():
        if isinstance(feature, Audio | Image) and feature.decode:
            rows = rows.cast_column(name, type(feature)(decode=False))
    return rows


def _check_text(rows: Dataset, name: str, split: str) -> None:
    kind = getattr(rows.features["text"], "dtype", "a list")
    if kind not in ("string", "large_string"):
        raise UserError(f"data.columns.text={name}: the {split} rows hold {kind} there, not text")
    for number, text in enumerate(rows["text"]):
        if text is None:
            raise UserError(f"data.columns.text={name}: row {number} of the {split} split is empty; remove or fill it")
