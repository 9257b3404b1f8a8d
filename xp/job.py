"""Job: a training that is ready to start. What must be equal on all backends is in here; a backend turns the crank."""

from __future__ import annotations

import hashlib
import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from functools import partial
from itertools import count, islice
from typing import TYPE_CHECKING, Any, Literal

from xp import batching, world
from xp.error import UserError
from xp.step import Step, Window
from xp.stream import Stream, iterable
from xp.training import BY_METRIC, Training

if TYPE_CHECKING:
    import numpy as np
    import torch
    from datasets import Dataset
    from torch import Tensor, nn


@dataclass
class Job:
    """A training that is ready to start.

    A backend's part: for each of `steps`, backward of `loss` for every micro-batch, clip, optimizer and schedule
    step, then `finish`; stop when `done`.
    """

    recipe: Training
    network: nn.Module
    optimizer: torch.optim.Optimizer
    schedule: torch.optim.lr_scheduler.LRScheduler
    rows: Dataset | Stream
    """Encoded training rows, see `xp.task.Encoded`."""

    seed: int
    device: torch.device
    folder: str
    """The run's folder."""

    collate: Callable[[Sequence[Sequence[dict[str, Any]]]], dict[str, Tensor]]
    batch_loss: Callable[[nn.Module, dict[str, Tensor]], Tensor]
    """Summed loss of a batch that is on the device."""

    autocast: Callable[[], AbstractContextManager[Any]]
    draw: Callable[[dict[str, Any], np.random.Generator], dict[str, Any]]
    """What is random about an encoded row."""

    evaluate: Callable[[], dict[str, float]]
    """Scores of the evaluation set, the same on every process."""

    log: Callable[[dict[str, float], int], None]
    """Takes metrics by name and the optimizer step."""

    metric: str
    """The deciding metric, without ``eval/``."""

    goal: Literal["min", "max"]
    capacity: int | None
    """Tokens of a packed sequence; None where rows are not packed."""

    keep: Callable[[], None]
    """Puts the weights aside as the best so far."""

    done: bool = False
    best: float | None = None
    best_step: int = 0
    evaluated_step: int = 0
    metrics: dict[str, float] = field(default_factory=dict)
    """The newest evaluation."""

    notes: dict[str, int] = field(default_factory=dict)
    """Of a stream: what became of its rows."""

    _window: Window = field(default_factory=Window)
    _worse: int = 0

    @property
    def total_steps(self) -> int:
        """Optimizer steps of the whole training."""
        return self.recipe.total_steps(len(self.rows))

    def steps(self) -> Iterator[Step]:
        """Every step of the training, its batches prepared by ``recipe.workers`` processes."""
        from torch.utils.data import DataLoader

        streamed = isinstance(self.rows, Stream)
        plan = [] if streamed else list(islice(self._plan(), self.total_steps))
        loader: DataLoader[Any] = DataLoader(
            iterable(self._streamed) if streamed else range(len(plan)),  # type: ignore[arg-type]
            batch_size=None,
            num_workers=self.recipe.workers,
            multiprocessing_context="fork" if self.recipe.workers else None,  # The job itself cannot be pickled.
            collate_fn=_same if streamed else partial(self._prepare, plan),  # type: ignore[arg-type]
        )
        self.network.train()
        self._window = Window()
        yield from loader

    def _streamed(self) -> Iterator[Step]:
        """Steps from one window of a stream after the other, each window batched like the rows of an epoch."""
        assert isinstance(self.rows, Stream)
        number = 0
        for window, rows in enumerate(self.rows.windows(batching.GROUP * self.recipe.batch_size)):
            lengths = rows["length"][:]
            for step in batching.steps(lengths, self.recipe.batch_size, self.seed, window, self.recipe.batching):
                if number == self.total_steps:
                    return
                yield self._step(rows, number, step, window, ends_epoch=False)
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

    def _prepare(self, plan: list[tuple[list[int], int, bool]], number: int) -> Step:
        assert not isinstance(self.rows, Stream)
        rows, epoch, ends_epoch = plan[number]
        return self._step(self.rows, number, rows, epoch, ends_epoch)

    def _step(self, encoded: Dataset, number: int, rows: list[int], epoch: int, ends_epoch: bool) -> Step:
        import numpy as np

        table = encoded[rows]
        examples = {
            row: self.draw({name: table[name][at] for name in table}, np.random.default_rng([self.seed, epoch, row]))
            for at, row in enumerate(rows)
        }
        lengths = {row: examples[row]["length"] for row in rows}
        whole = batching.sequences(rows, lengths, self.capacity)
        mine = batching.share(whole, self.recipe.micro_batch_size, world.rank(), world.size())
        # A process without sequences of its own joins in with the shortest one, at no weight.
        batches = [self.collate([[examples[row] for row in each] for each in part or whole[-1:]]) for part in mine]
        return Step(
            number=number + 1,
            ends_epoch=ends_epoch,
            items=sum(example["items"] for example in examples.values()),
            batches=batches,
            weights=[1.0 if part else 0.0 for part in mine],
            tokens=sum(lengths[row] for part in mine for each in part for row in each),
            notes=dict(self.rows.notes) if isinstance(self.rows, Stream) else {},
            room=sum(len(part) * max(sum(lengths[row] for row in each) for each in part) for part in mine if part),
        )

    def loss(self, network: nn.Module, step: Step, micro: int) -> Tensor:
        """A micro-batch's share of the step's mean loss, scaled so that the mean over processes is that loss.

        Seeds torch by (seed, step, micro-batch, rank) first: so dropout is the same on every backend, whatever
        was computed in between.
        """
        import torch

        torch.manual_seed(mixed(self.seed, step.number, micro, world.rank()))
        batch = {name: value.to(self.device, non_blocking=True) for name, value in step.batches[micro].items()}
        with self.autocast():
            summed = self.batch_loss(network, batch)
        return summed * (step.weights[micro] * world.size() / step.items)

    def finish(self, step: Step, losses: Tensor, grad_norm: Tensor, learning_rate: float) -> None:
        """Account for a step that was done: log, evaluate, keep the best, decide whether to stop.

        Args:
            step: the step.
            losses: sum of what `loss` gave this process, detached.
            grad_norm: length of the whole gradient before clipping.
            learning_rate: what the step was done with.
        """
        window = self._window
        window.loss = window.loss + losses * (step.items / world.size())
        window.items += step.items
        self.notes = step.notes
        window.tokens += step.tokens
        window.room += step.room
        last = step.number == self.total_steps
        if last or step.number % self.recipe.log_every == 0:
            self._log(step, grad_norm, learning_rate)
        every = self.recipe.evaluate_every
        if last or (step.ends_epoch if every is None else step.number % every == 0):
            paused = time.perf_counter()
            self._evaluate(step)
            self._window.started += time.perf_counter() - paused
        self.done = self.done or last

    def _log(self, step: Step, grad_norm: Tensor, learning_rate: float) -> None:
        import torch

        window, self._window = self._window, Window()
        # note: reading the loss waits for the device; that is why it happens only here
        sums = torch.stack([torch.as_tensor(value, device=self.device, dtype=torch.float32)
                            for value in (window.loss, window.tokens, window.room)])  # fmt: skip
        loss, tokens, room = world.total(sums).tolist()
        loss /= window.items
        if not math.isfinite(loss) or not math.isfinite(float(grad_norm)):
            raise UserError(
                f"training: loss {loss:g}, gradient norm {float(grad_norm):g} at step {step.number}; "
                "lower training.learning_rate, or set training.max_grad_norm, or use precision=fp32"
            )
        points = {
            "train/loss": loss,
            "train/lr": learning_rate,
            "train/grad_norm": float(grad_norm),
            "train/items_per_second": window.items / (time.perf_counter() - window.started),
            "train/padding": 1 - tokens / room,
        }
        self.log(points, step.number)

    def advance(self) -> None:
        """Step the schedule, unless it goes by the evaluations."""
        if self.recipe.schedule not in BY_METRIC:
            self.schedule.step()

    def _evaluate(self, step: Step) -> None:
        self.metrics, self.evaluated_step = self.evaluate(), step.number
        self.network.train()
        self.log({f"eval/{name}": value for name, value in self.metrics.items()}, step.number)
        value = self.metrics[self.metric]
        if self.recipe.schedule in BY_METRIC:
            self.schedule.step(value)  # type: ignore[arg-type]
        # A value that is not finite is never the best; its comparison with anything is false.
        if math.isfinite(value) and (
            self.best is None or (value < self.best if self.goal == "min" else value > self.best)
        ):
            self.best, self.best_step, self._worse = value, step.number, 0
            self.keep()
        else:
            self._worse += 1
            self.done = self.recipe.patience is not None and self._worse >= self.recipe.patience


def _same(step: Step) -> Step:
    return step


def mixed(*parts: int) -> int:
    """A 63-bit seed from several numbers, without the correlations that adding them up would leave."""
    digest = hashlib.blake2b(repr(parts).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1
