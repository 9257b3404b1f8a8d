"""Data: the kind, and what every source does with its rows once it has them."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field, NonNegativeInt, PositiveInt, field_validator, model_validator

from xp.component import Component
from xp.data.columns import ROW, has_column, shaped, undecoded
from xp.data.filters import Condition, kept
from xp.data.fingerprint import deduplicated
from xp.data.splits import Side, Splits
from xp.error import UserError

if TYPE_CHECKING:
    from datasets import Dataset


class Data(Component):
    """Rows to train on and rows to evaluate on."""

    columns: dict[str, str | list[str]]
    """What the task's columns are called in the source: ``{text: sentence}``; a dotted name reads a field of a nested
    column (``translation.en``), a list makes one column of several (``endings: [ending0, ending1]``)."""

    train_rows: PositiveInt | None
    """Train on at most this many rows, chosen at random but always the same ones (the first ones of a stream); null
    takes all."""

    eval_rows: PositiveInt | None
    """Evaluate on at most this many rows, likewise."""

    eval_share: Annotated[float, Field(gt=0, lt=1)] | None
    """Share of the train rows that is set aside to evaluate on, for a source without a split for that."""

    split_seed: NonNegativeInt
    """Which rows ``eval_share`` sets aside."""

    filters: list[str]
    """Conditions on columns of the source that every row must meet: ``stars >= 3``, ``language in [en, fr]``,
    ``text is not null``, ``length(text) > 20``. A row without the value meets none but ``is null``."""

    deduplicate: bool
    """Leave out train rows that equal an earlier one or an eval row in all of the task's columns."""

    streaming: bool
    """Read train rows as they are needed, for data that fits neither memory nor disk; needs ``training.max_steps``."""

    on_error: Literal["error", "skip"]
    """What a row that cannot be used does: end the run, or be skipped and counted. A file that breaks off, or a quote
    that never closes, ends the run in any case: nobody knows which rows are lost."""

    @field_validator("filters")
    @classmethod
    def _conditions(cls, filters: list[str]) -> list[str]:
        for each in filters:
            Condition.parse(each)
        return filters

    @model_validator(mode="after")
    def _one_eval_split(self) -> Data:
        given = getattr(self, "eval", None)
        if self.eval_share is not None and given is not None:
            raise ValueError(f"eval_share={self.eval_share}: there is an eval split, eval={given}; set one to null")
        for name in ("deduplicate", "eval_share") if self.streaming else ():
            value = getattr(self, name)
            if value:
                said = str(value).lower()
                raise ValueError(f"{name}={said}: it needs all rows at once, which streaming=true never has; unset one")
        return self

    def check_files(self, train: bool) -> None:
        """See whether the files that the settings name are there, before anything heavy is imported.

        Args:
            train: whether rows to train on are needed.

        Raises:
            UserError: one is not, or cannot be what it is to be.
        """

    @abstractmethod
    def read(self, train: bool) -> tuple[Dataset | None, Dataset | None, str]:
        """The train and eval rows as the source has them, and where they come from.

        A row that could not be read, where ``on_error`` is skip, is there with the reason in a column ``_fault``.

        Args:
            train: whether rows to train on are needed.

        Raises:
            UserError: the source is not there or cannot be read.
        """

    def stream(self) -> tuple[Any, Iterator[dict[str, Any]]]:
        """The types of the train rows' columns, and the rows as they come, each read when it is asked for.

        Raises:
            UserError: this source cannot be read bit by bit.
        """
        raise UserError(f"data.streaming=true: data of the kind {self.name!r} is read at once; set it to false")

    def blocks(self, columns: Sequence[str], notes: dict[str, int]) -> Iterator[Dataset]:
        """The train rows as `load` would give them, a thousand at a time; counts go to ``notes``."""
        from xp.data.streamed import blocks

        room = self.train_rows
        conditions = [Condition.parse(each) for each in self.filters]
        for block in blocks(*self.stream()):
            rows = kept(block, conditions, "train")
            notes["filtered"] = notes.get("filtered", 0) + len(block) - len(rows)
            rows = rows if room is None else rows.select(range(min(room, len(rows))))
            if len(rows):
                yield self._shaped(rows, columns, "train")
            room = None if room is None else room - len(rows)
            if room == 0:
                return

    def place(self, side: Side, row: int) -> str:
        """Where a row of the source is, for a person to read; ``row`` counts from 0."""
        return f"{side} rows, row {row + 1}"

    def load(
        self,
        columns: Sequence[str],
        others: Sequence[Sequence[str]] = (),
        optional: Sequence[str] = (),
        *,
        train: bool,
    ) -> Splits:
        """Both splits with just ``columns`` and ``_row``; of a stream's train rows only their columns, see `blocks`.

        Args:
            columns: the columns that the task reads.
            others: other sets of columns that do as well; the first set that is there is taken.
            optional: columns that are taken where they are there.
            train: whether rows to train on are needed.

        Raises:
            UserError: no such source, a missing column (lists those there are), or a split without rows.
        """
        notes: dict[str, int] = {}
        found, source = self.sides(columns, others, optional, train, notes)
        for side in ("eval", "train") if train else ("eval",):
            if side not in found:
                raise UserError(
                    f"data.{side} is not set: give data.{side}=<a file or split>"
                    f"{' or data.eval_share=<a share of the train rows>' if side == 'eval' else ''}"
                )
        return Splits(found["train"] if train else None, found["eval"], source, self, notes)

    def sides(
        self,
        columns: Sequence[str],
        others: Sequence[Sequence[str]],
        optional: Sequence[str],
        train: bool,
        notes: dict[str, int],
    ) -> tuple[dict[str, Dataset], str]:
        """Those splits that there are, as `load` gives them, and where they come from; counts go to ``notes``."""
        train_rows, eval_rows, source = self.read((train or self.eval_share is not None) and not self.streaming)
        if train and self.streaming:
            from datasets import Dataset

            features, _ = self.stream()
            train_rows = Dataset.from_dict({name: [] for name in features}, features=features)
        there = {side: rows for side, rows in (("train", train_rows), ("eval", eval_rows)) if rows is not None}
        columns = self.picked(list(there.values()), columns, others, optional)
        found = {side: self.prepared(rows, columns, side, notes) for side, rows in there.items()}
        if self.eval_share is not None:
            if "eval" in found:
                raise UserError(f"data.eval_share={self.eval_share}: {self.name} has an eval split; set it to null")
            if "train" in found:
                found = self._set_aside(found, notes)
        elif self.deduplicate and "train" in found:
            found["train"] = deduplicated(found["train"], found.get("eval"), notes)
        most = {"train": self.train_rows, "eval": self.eval_rows}
        return {side: self._capped(rows, most[side]) for side, rows in found.items()}, source

    def picked(
        self,
        splits: Sequence[Dataset],
        columns: Sequence[str],
        others: Sequence[Sequence[str]] = (),
        optional: Sequence[str] = (),
    ) -> list[str]:
        """Which columns are read: the first complete set, and what there is of ``optional``."""

        def there(column: str, every: bool = False) -> bool:
            return (all if every else any)(has_column(rows, self.columns.get(column, column)) for rows in splits)

        complete = [each for each in (columns, *others) if all(map(there, each))]
        taken = (complete or [columns])[0]
        return [*taken, *(column for column in optional if column not in taken and there(column, every=True))]

    def prepared(self, rows: Dataset, columns: Sequence[str], side: str, notes: dict[str, int]) -> Dataset:
        """Those of the source's rows that meet the filters, with just ``columns`` and ``_row``.

        Raises:
            UserError: a column is missing or of another type than its filter, or no rows are left.
        """
        import numpy as np

        if side == "train" and self.streaming:
            return self._shaped(rows, columns, side)
        if not len(rows):
            raise UserError(f"data: the {side} split has no rows")
        if ROW not in rows.column_names:
            rows = rows.add_column(ROW, np.arange(len(rows)))
        if self.filters:
            before = len(rows)
            rows = kept(rows, [Condition.parse(each) for each in self.filters], side)
            notes[f"{side}_filtered"] = notes.get(f"{side}_filtered", 0) + before - len(rows)
            if not len(rows):
                raise UserError(f"data.filters: none of the {before} {side} rows meets them all; loosen one")
        return self._shaped(rows, columns, side)

    def _shaped(self, rows: Dataset, columns: Sequence[str], side: str) -> Dataset:
        wanted = {column: self.columns.get(column, column) for column in columns}
        rows = undecoded(shaped(rows, wanted, f"{side} rows of {self.name!r}"))
        _check_text(rows, self.columns.get("text", "text"), side)
        return rows

    def _set_aside(self, found: dict[str, Dataset], notes: dict[str, int]) -> dict[str, Dataset]:
        import numpy as np

        rows = found["train"] if not self.deduplicate else deduplicated(found["train"], None, notes)
        assert self.eval_share is not None
        size = max(1, round(self.eval_share * len(rows)))
        if size == len(rows):
            raise UserError(f"data.eval_share={self.eval_share}: it leaves none of the {len(rows)} rows to train on")
        order = np.random.default_rng(self.split_seed).permutation(len(rows))
        return {"eval": rows.select(np.sort(order[:size])), "train": rows.select(np.sort(order[size:]))}

    @staticmethod
    def _capped(rows: Dataset, most: int | None) -> Dataset:
        if most is None or most >= len(rows):
            return rows
        import numpy as np

        return rows.select(np.sort(np.random.default_rng(0).permutation(len(rows))[:most]))


def _check_text(rows: Dataset, name: str | list[str], side: str) -> None:
    """Refuse a column of text that holds no text at all, which is a wrong column rather than a wrong row."""
    if "text" not in rows.features:
        return
    feature = rows.features["text"]
    kind = getattr(feature, "dtype", "lists")
    wrong = kind not in ("string", "large_string", "string_view", "null") and type(feature).__name__ != "Json"
    if wrong or hasattr(feature, "names"):
        raise UserError(f"data.columns.text={name}: the {side} rows hold {kind} there, not text")
