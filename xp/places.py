"""Places: which rows of the source some encoded rows were made of, for a person who looks for them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from xp.data import Side, Splits
from xp.data.columns import ROW
from xp.task.base import Trainable

if TYPE_CHECKING:
    from datasets import Dataset

MOST = 100_000
"""Rows that are encoded again, at most, to find one."""

CHUNK = 500


def of_encoded(
    task: Trainable,
    splits: Splits,
    side: Side,
    processor: Any,
    labels: Sequence[str],
    encoded: int,
    numbers: Sequence[int],
) -> list[str]:
    """The places of encoded rows in their source, as errors about rows state them.

    Most tasks make one row of one. Of those that split rows, or drop some, the rows are encoded once more to see what
    becomes of which; that is what it costs to be told after a training has failed.

    Args:
        task: that has encoded them.
        splits: the raw rows.
        side: of which these are.
        processor: as they were encoded with.
        labels: names of the classes, likewise.
        encoded: how many encoded rows there are.
        numbers: which of them are asked for.
    """
    rows = splits.train if side == "train" else splits.eval
    assert rows is not None
    if len(rows) == encoded:
        return [splits.place(side, rows[number][ROW]) for number in numbers]
    if len(rows) > MOST:
        return [f"encoded row {number + 1}" for number in numbers]
    found: dict[int, int] = {}
    seen = 0
    for start in range(0, len(rows), CHUNK):
        part = rows.select(range(start, min(start + CHUNK, len(rows))))
        size = _size(task, part, processor, labels)
        within = sorted(number for number in numbers if seen <= number < seen + size)
        for at in range(len(part) if within else 0):
            made = _size(task, part.select([at]), processor, labels)
            found |= {number: start + at for number in within if seen <= number < seen + made}
            seen += made
        seen += 0 if within else size
    return [splits.place(side, rows[found[number]][ROW]) if number in found else f"encoded row {number + 1}"
            for number in numbers]  # fmt: skip


def _size(task: Trainable, rows: Dataset, processor: Any, labels: Sequence[str]) -> int:
    return len(task.encode(rows.remove_columns(ROW), processor, labels).rows)
