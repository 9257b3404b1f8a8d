"""The one training loop that torch and accelerate share, written against what differs between them."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from torch import Tensor, nn

    from xp.job import Job


class Engine(Protocol):
    """The few things that differ between one device and many."""

    network: nn.Module
    """The network to call in training, wrapped if need be."""

    def accumulate(self, last: bool) -> AbstractContextManager[Any]:
        """Context of a micro-batch; only the last one of a step exchanges gradients."""

    def backward(self, loss: Tensor) -> None:
        """Add the loss's gradients to those of the weights."""

    def clip(self, most: float) -> Tensor:
        """Scale the gradients down to this length at most; gives their length before."""

    def step(self) -> None:
        """Update the weights and forget the gradients."""


def fit(job: Job, engine: Engine) -> None:
    """Train until the job is done: the whole of it, on one page."""
    from torch import zeros

    most = job.recipe.max_grad_norm or float("inf")
    for step in job.steps():
        losses = zeros((), device=job.device)
        for micro in range(len(step.batches)):
            with engine.accumulate(last=micro == len(step.batches) - 1):
                loss = job.loss(engine.network, step, micro)
                engine.backward(loss)
            losses += loss.detach()
        grad_norm = engine.clip(most)
        learning_rate = float(job.schedule.get_last_lr()[0])
        engine.step()
        job.advance()
        job.finish(step, losses, grad_norm, learning_rate)
        if job.done:
            break
