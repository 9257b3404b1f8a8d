"""The one training loop that torch and accelerate share, written against what differs between them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from xp.training.gradients import Accumulating, gradients

if TYPE_CHECKING:
    from torch import Tensor

    from xp.training.job import Job


class Engine(Accumulating, Protocol):
    """The few things that differ between one device and many."""

    def clip(self, most: float) -> Tensor:
        """Scale the gradients down to this length at most; gives their length before."""

    def step(self) -> None:
        """Update the weights and forget the gradients."""


def fit(job: Job, engine: Engine) -> None:
    """Train until the job is done: the whole of it, on one page."""
    most = job.recipe.max_grad_norm or float("inf")
    for planned in job.steps():
        step, losses = gradients(job, planned, engine)
        grad_norm = engine.clip(most)
        learning_rate = float(job.schedule.get_last_lr()[0])
        engine.step()
        job.advance()
        job.finish(step, losses, grad_norm, learning_rate)
        if job.done:
            break
