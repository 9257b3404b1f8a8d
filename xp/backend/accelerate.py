"""The same loop through accelerate, on one process or many."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any

from xp.backend.base import Backend

if TYPE_CHECKING:
    from torch import Tensor

    from xp.training.job import Job


class Accelerate(Backend, name="accelerate"):
    """Train through accelerate: the same loop, on as many processes as it was launched with."""

    def fit(self, job: Job) -> None:
        """Do the job together with the other processes of the run."""
        from xp.backend.loop import fit

        fit(job, ManyDevices(job))


class ManyDevices:
    """Engine that leaves wrapping, gradient exchange, clipping and stepping to an ``accelerate.Accelerator``."""

    def __init__(self, job: Job) -> None:
        from accelerate import Accelerator

        self.accelerator = Accelerator(
            cpu=job.device.type == "cpu",
            mixed_precision="no",
            gradient_accumulation_steps=1,
            step_scheduler_with_optimizer=False,
        )
        self.network, self.optimizer = self.accelerator.prepare(job.network, job.optimizer)

    def accumulate(self, last: bool) -> AbstractContextManager[Any]:
        """Hold gradients back until the last micro-batch."""
        held: AbstractContextManager[Any] = self.accelerator.no_sync(self.network)
        return nullcontext() if last else held

    def backward(self, loss: Tensor) -> None:
        """accelerate's backward."""
        self.accelerator.backward(loss)

    def clip(self, most: float) -> Tensor:
        """accelerate's clipping."""
        norm: Tensor = self.accelerator.clip_grad_norm_(self.network.parameters(), most)
        return norm

    def step(self) -> None:
        """accelerate's optimizer step."""
        self.optimizer.step()
        self.forget()

    def forget(self) -> None:
        """No gradients any more."""
        self.optimizer.zero_grad()
