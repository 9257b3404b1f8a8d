"""Feed: the steps of a training one after the other, prepared ahead by worker processes."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import count, islice
from typing import TYPE_CHECKING, Any

from xp.error import UserError
from xp.process import world
from xp.training import batching
from xp.training.recipe import Training
from xp.training.step import Step
from xp.training.stream import Stream, iterable

if TYPE_CHECKING:
    import numpy as np
    from datasets import Dataset
    from torch import Tensor
    from torch.utils.data import DataLoader


@dataclass
class Feed:
    """What the steps of a training are made of: a function of rows, recipe and seed, wherever it begins."""

    recipe: Training
    rows: Dataset | Stream
    """Encoded training rows, see `xp.task.Encoded`."""

    seed: int
    collate: Callable[[Sequence[Sequence[dict[str, Any]]]], dict[str, Tensor]]
    draw: Callable[[dict[str, Any], np.random.Generator], dict[str, Any]]
    """What is random about an encoded row."""

    capacity: int | None
    """Tokens of a packed sequence; None where rows are not packed."""

    @property
    def total_steps(self) -> int:
        """Optimizer steps of the whole training."""
        return self.recipe.total_steps(len(self.rows))

    def steps(self, done: int, micro: int | None) -> Generator[Step]:
        """Every step after the first ``done`` ones, its batches prepared by ``recipe.workers`` processes.

        Args:
            done: how many steps are left out.
            micro: sequences of a micro-batch; None: all that this process has of a step.
        """
        from torch.utils.data import DataLoader

        streamed = isinstance(self.rows, Stream)
        plan = [] if streamed else list(islice(self._plan(), self.total_steps))
        left = range(done, len(plan))
        loader: DataLoader[Any] = DataLoader(
            iterable(partial(self._streamed, done, micro)) if streamed else left,  # type: ignore[arg-type]
            batch_size=None,
            num_workers=self.recipe.workers,
            multiprocessing_context="fork" if self.recipe.workers else None,  # The feed itself cannot be pickled.
            collate_fn=_same if streamed else partial(self._prepare, plan, micro),  # type: ignore[arg-type]
        )
        try:
            yield from loader
        except UserError as error:  # From a worker it comes with the worker's traceback, which ends in its one line.
            raise UserError(str(error).rstrip().rpartition("UserError: ")[2]) from error

    def _streamed(self, done: int, micro: int | None) -> Iterator[Step]:
        """Steps from one window of a stream after the other, each window batched like the rows of an epoch."""
        assert isinstance(self.rows, Stream)
        self.rows.notes.clear()  # It is read from its begin.
        number = 0
        for window, rows in enumerate(self.rows.windows(batching.GROUP * self.recipe.batch_size)):
            lengths = rows["length"][:]
            for step in batching.steps(lengths, self.recipe.batch_size, self.seed, window, self.recipe.batching):
                if number == self.total_steps:
                    return
                if number >= done:  # What a training that goes on has seen already is read, but not prepared.
                    yield self._step(rows, number, step, window, micro, ends_epoch=False)
                number += 1
        raise UserError("data.streaming=true: the stream has no row that can be trained on")

    def _plan(self) -> Iterator[tuple[list[int], int, bool]]:
        """Rows of one step after the other, their epoch, and whether it ends with them; goes on for ever."""
        assert not isinstance(self.rows, Stream)
        lengths = self.rows["length"][:]
        for epoch in count():
            steps = batching.steps(lengths, self.recipe.batch_size, self.seed, epoch, self.recipe.batching)
            for number, step in enumerate(steps, 1):
                yield step, epoch, number == len(steps)

    def _prepare(self, plan: list[tuple[list[int], int, bool]], micro: int | None, number: int) -> Step:
        assert not isinstance(self.rows, Stream)
        rows, epoch, ends_epoch = plan[number]
        return self._step(self.rows, number, rows, epoch, micro, ends_epoch)

    def _step(
        self, encoded: Dataset, number: int, rows: list[int], epoch: int, micro: int | None, ends_epoch: bool
    ) -> Step:
        import numpy as np

        table = encoded[rows]
        examples = {
            row: self.draw({name: table[name][at] for name in table}, np.random.default_rng([self.seed, epoch, row]))
            for at, row in enumerate(rows)
        }
        lengths = {row: examples[row]["length"] for row in rows}
        whole = batching.sequences(rows, lengths, self.capacity)
        mine = batching.share(whole, micro, world.rank(), world.size())
        # A process without sequences of its own joins in with the shortest one, at no weight.
        batches = [self.collate([[examples[row] for row in each] for each in part or whole[-1:]]) for part in mine]
        return Step(
            number=number + 1,
            rows=rows,
            ends_epoch=ends_epoch,
            items=sum(example["items"] for example in examples.values()),
            width=min(micro or len(whole), -(-len(whole) // world.size())),
            batches=batches,
            weights=[1.0 if part else 0.0 for part in mine],
            tokens=sum(examples[row].get("tokens", lengths[row]) for part in mine for each in part for row in each),
            notes=dict(self.rows.notes) if isinstance(self.rows, Stream) else {},
            room=sum(len(part) * max(sum(lengths[row] for row in each) for each in part) for part in mine if part),
        )


def _same(step: Step) -> Step:
    return step
