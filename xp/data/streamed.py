"""Rows that are read one after the other, when they are asked for."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from typing import TYPE_CHECKING, Any

from xp.data.columns import FAULT
from xp.data.loading import loaded

if TYPE_CHECKING:
    from datasets import Dataset, IterableDataset

LOOK = 1000
"""Rows that tell the types of columns where the source states none."""


def iterated(kind: str, files: Sequence[str]) -> IterableDataset:
    """Files through datasets' reader, undecoded, with their types."""
    return undecoded_stream(loaded(kind, files, "data.train", streaming=True))


def undecoded_stream(rows: IterableDataset) -> IterableDataset:
    """Media as they are stored, and types told by the first rows where the source states none."""
    from dataclasses import replace

    rows = rows if rows.features is not None else rows._resolve_features()
    for name, feature in rows.features.items():
        if type(feature).__name__ in ("Image", "Audio") and feature.decode:
            rows = rows.cast_column(name, replace(feature, decode=False))
    return rows


def blank(rows: IterableDataset) -> Dataset:
    """No rows, with the columns and types of a stream."""
    from datasets import Dataset

    return Dataset.from_dict({name: [] for name in rows.features}, features=rows.features)


def typed(
    names: Sequence[str], rows: Callable[[], Iterator[dict[str, Any]]]
) -> tuple[Dataset, Iterator[dict[str, Any]]]:
    """Rows of text as rows of numbers where the first `LOOK` of a column are numbers; one that is none is at fault."""
    from datasets import Dataset, Features, Value

    first = [row for row in islice(rows(), LOOK) if row[FAULT] is None]
    kinds = {name: _kind([row[name] for row in first]) for name in names}
    words = {int: "int64", float: "float64", str: "string"}
    features = Features({name: Value(words[kind]) for name, kind in kinds.items()} | {FAULT: Value("string")})

    def converted() -> Iterator[dict[str, Any]]:
        for row in rows():
            made = dict(row)
            for name, kind in kinds.items():
                if kind is not str and row[FAULT] is None:
                    try:
                        made[name] = kind(row[name])
                    except ValueError:
                        made[name] = None
                        made[FAULT] = f"{name}: {row[name]!r} is no number, as it is in other rows"
            yield made

    return Dataset.from_dict({name: [] for name in features}, features=features), converted()


def _kind(values: Sequence[str]) -> type:
    """int, float or str: what all of the values are."""
    for kind in (int, float):
        try:
            for value in values:
                kind(value)
        except ValueError:
            continue
        if values:
            return kind
    return str
