"""Stream: encoded train rows that are read as the training needs them, for data that fits nowhere."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from datasets import Dataset
    from torch.utils.data import IterableDataset

    from xp.task import Encoded


@dataclass
class Stream:
    """Rows in windows; of what was read, only a window is in memory."""

    blocks: Callable[[], Iterator[Dataset]]
    """The raw rows from the first to the last, some at a time."""

    encode: Callable[[Dataset], Encoded]
    """Checks and encodes a block."""

    notes: dict[str, int] = field(default_factory=dict)
    """What became of the rows so far, as encoding counts it."""

    def __len__(self) -> int:
        """Not known: a training on a stream goes by ``max_steps``."""
        return 0

    def windows(self, size: int) -> Iterator[Dataset]:
        """Encoded rows, ``size`` at a time, in the order of the stream; begins again after the last one.

        A window never holds rows of two passes, so the last one of each pass may be smaller.
        """
        from datasets import concatenate_datasets

        while True:
            waiting: list[Dataset] = []
            found = 0
            for block in self.blocks():
                encoded = self.encode(block)
                for name, number in encoded.notes.items():
                    self.notes[name] = self.notes.get(name, 0) + number
                if len(encoded.rows):
                    waiting.append(encoded.rows)
                found += len(encoded.rows)
                while sum(map(len, waiting)) >= size:
                    rows = concatenate_datasets(waiting)
                    yield rows.select(range(size))
                    waiting = [rows.select(range(size, len(rows)))] if len(rows) > size else []
            if rest := [rows for rows in waiting if len(rows)]:
                yield concatenate_datasets(rest)
            if not found:
                return

    def select(self, numbers: Sequence[int]) -> Dataset:
        """A few of the first encoded rows, to look at."""
        return next(self.windows(max(numbers) + 1)).select(numbers)


def iterable(make: Callable[[], Iterator[Any]]) -> IterableDataset[Any]:
    """What ``make`` yields, as a data set of torch's data loader."""
    from torch.utils.data import IterableDataset

    class Made(IterableDataset[Any]):
        def __iter__(self) -> Iterator[Any]:
            return make()

    return Made()
