"""Job: a training that is ready to start. What must be equal on all backends is in here; a backend turns the crank."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from xp.process import interrupt, pulse, world
from xp.training import batching, finite
from xp.training.feed import Feed
from xp.training.memory import Portions
from xp.training.recipe import BY_METRIC, Training
from xp.training.step import Step, Window

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

    from xp.peft.upkeep import Upkeep


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
    feed: Feed
    seed: int
    device: torch.device
    folder: str
    """The run's folder."""

    batch_loss: Callable[[nn.Module, dict[str, Tensor]], Tensor]
    """Summed loss of a batch that is on the device."""

    autocast: Callable[[], AbstractContextManager[Any]]
    evaluate: Callable[[], dict[str, float]]
    """Scores of the evaluation set, the same on every process."""

    log: Callable[[dict[str, float], int], None]
    """Takes metrics by name and the optimizer step."""

    metric: str
    """The deciding metric, without ``eval/``."""

    goal: Literal["min", "max"]
    places: Callable[[list[int]], list[str]]
    """Where encoded train rows come from, for a person to find them."""

    keep: Callable[[Job], None]
    """Puts the weights aside as the best so far."""

    save: Callable[[Job], None]
    """Writes a checkpoint of the step that was done."""

    portions: Portions
    """How much goes through the network at once."""

    settle: Callable[[], None]
    """Waits until what was saved is on disk, on every process."""

    upkeep: Upkeep | None = None
    """What the adapter's method does beside the gradient steps."""

    step: int = 0
    """The step that was done last."""

    done: bool = False
    best: float | None = None
    best_step: int = 0
    evaluated_step: int = 0
    metrics: dict[str, float] = field(default_factory=dict)
    """The newest evaluation."""

    notes: dict[str, int] = field(default_factory=dict)
    """Of a stream: what became of its rows."""

    lengths: list[list[int]] = field(default_factory=list)
    """After which step the schedule is that of how many steps: one pair, and one for each time it became longer."""

    window: Window = field(default_factory=Window)
    worse: int = 0
    """Evaluations since the best one."""

    saved_step: int = 0
    """The step of the newest checkpoint."""

    _followed: int = 0
    _coming: Generator[Step] = field(init=False)

    @property
    def total_steps(self) -> int:
        """Optimizer steps of the whole training."""
        return self.feed.total_steps

    def steps(self) -> Iterator[Step]:
        """Every step from here to the end of the training."""
        self.network.train()
        self._coming = self.feed.steps(self.step, self.portions.training)
        while (step := next(self._coming, None)) is not None:
            yield step

    def again(self, step: Step) -> Step:
        """The same step in smaller micro-batches, and so are those after it; a `UserError` if they cannot be."""
        self.portions.less_training(step.number, step.width)
        self._coming.close()
        self._coming = self.feed.steps(self.step, self.portions.training)
        return next(self._coming)

    def loss(self, network: nn.Module, step: Step, micro: int) -> Tensor:
        """A micro-batch's share of the step's mean loss, scaled so that the mean over processes is that loss.

        Seeds torch and numpy by (seed, step, micro-batch, rank) first: so dropout, and the masks that speech models
        draw with numpy, are the same on every backend, whatever was computed in between.
        """
        import numpy as np
        import torch

        pulse.beat()
        seed = batching.mixed(self.seed, step.number, micro, world.rank())
        torch.manual_seed(seed)
        np.random.seed(seed % 2**32)
        batch = {name: value.to(self.device, non_blocking=True) for name, value in step.batches[micro].items()}
        with self.autocast():
            summed = self.batch_loss(network, batch)
        loss = summed * (step.weights[micro] * world.size() / step.items)
        return loss if self.upkeep is None else loss + self.upkeep.penalty() / len(step.batches)

    def finish(self, step: Step, losses: Tensor, grad_norm: Tensor, learning_rate: float) -> None:
        """Account for a step that was done: log, evaluate, keep the best, decide whether to stop.

        Args:
            step: the step.
            losses: sum of what `loss` gave this process, detached.
            grad_norm: length of the whole gradient before clipping.
            learning_rate: what the step was done with.
        """
        pulse.beat()
        window = self.window
        window.loss = window.loss + losses * (step.items / world.size())
        window.items += step.items
        window.tokens += step.tokens
        window.room += step.room
        window.steps.append((step.number, step.rows, losses, grad_norm))
        self.step, self.notes = step.number, step.notes
        last = step.number == self.total_steps
        if last or step.number % self.recipe.log_every == 0:
            self._log(learning_rate)
        every = self.recipe.evaluate_every
        evaluates = last or (step.ends_epoch if every is None else step.number % every == 0)
        if evaluates:
            paused = time.perf_counter()
            finite.check(self.window, self.places, self.saved_step)
            self._evaluate()
            self.window.started += time.perf_counter() - paused
        self.done = self.done or last
        self.follow_length()
        # A smaller micro-batch draws another dropout: the sooner a checkpoint knows of it, the less is done again.
        every = self.recipe.save_every
        if evaluates or self.portions.lessened or (every is not None and step.number % every == 0):
            self._save()
        self._leave()

    def _save(self) -> None:
        """A checkpoint, unless this step has one or none are wanted."""
        if self.recipe.save_total and self.saved_step != self.step:
            finite.check(self.window, self.places, self.saved_step)
            self.save(self)
            self.saved_step, self.portions.lessened = self.step, False

    def _leave(self) -> None:
        """Where a signal asks for it: save, and leave; several processes agree on it where they wait anyway."""
        if world.size() > 1:
            if self.window.steps and self.step != self.saved_step:
                return
            number = max(world.gather(interrupt.asked()))
        else:
            number = interrupt.asked()
        if number and not self.done:
            self._save()
            self.settle()
            interrupt.leave(number)

    def _log(self, learning_rate: float) -> None:
        import torch

        window = self.window
        grad_norm = float(window.steps[-1][3])
        finite.check(self.window, self.places, self.saved_step)
        self.window = Window()
        sums = torch.stack([torch.as_tensor(value, device=self.device, dtype=torch.float32)
                            for value in (window.loss, window.tokens, window.room)])  # fmt: skip
        loss, tokens, room = world.total(sums).tolist()
        points = {
            "train/loss": loss / window.items,
            "train/lr": learning_rate,
            "train/grad_norm": grad_norm,
            "train/items_per_second": window.items / (time.perf_counter() - window.started),
            "train/padding": 1 - tokens / room,
        }
        self.log(points, self.step)

    def follow_length(self) -> None:
        """Where the training became longer after the step that was done: go on by the schedule of that length."""
        totals = [total for since, total in self.lengths if since <= self.step]
        if totals and totals[-1] != self._followed:
            self.recipe.stretch(self.schedule, totals[-1])
            self._followed = totals[-1]

    def advance(self) -> None:
        """Step the schedule, unless it goes by the evaluations."""
        if self.recipe.schedule not in BY_METRIC:
            self.schedule.step()

    def _evaluate(self) -> None:
        self.metrics, self.evaluated_step = self.evaluate(), self.step
        self.network.train()
        self.log({f"eval/{name}": value for name, value in self.metrics.items()}, self.step)
        value = self.metrics[self.metric]
        if self.recipe.schedule in BY_METRIC:
            self.schedule.step(value)  # type: ignore[arg-type]
        # A value that is not finite is never the best; its comparison with anything is false.
        if math.isfinite(value) and (
            self.best is None or (value < self.best if self.goal == "min" else value > self.best)
        ):
            self.best, self.best_step, self.worse = value, self.step, 0
            self.keep(self)
        else:
            self.worse += 1
            self.done = self.out_of_patience

    @property
    def out_of_patience(self) -> bool:
        """Whether the evaluations have not become better for too long."""
        return self.recipe.patience is not None and self.worse >= self.recipe.patience
