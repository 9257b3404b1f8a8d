"""The native PyTorch loop on one device."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any

from pydantic import model_validator

from xp.backend.base import Backend

if TYPE_CHECKING:
    from torch import Tensor

    from xp.training.job import Job


class Torch(Backend, name="torch"):
    """Train in this process on one device, with nothing between the loop and PyTorch. The fastest to start."""

    @model_validator(mode="after")
    def _one_process(self) -> Torch:
        if self.processes != 1:
            raise ValueError(
                f"processes={self.processes}: torch trains in one process; "
                "use backend=accelerate or backend=hf for several, they give the same curve"
            )
        return self

    def fit(self, job: Job) -> None:
        """Do the job on its one device."""
        from xp.backend.loop import fit

        fit(job, OneDevice(job))


class OneDevice:
    """Engine of a single device: plain PyTorch calls."""

    def __init__(self, job: Job) -> None:
        self.network = job.network
        self.optimizer = job.optimizer
        self.parameters = [parameter for parameter in job.network.parameters() if parameter.requires_grad]

    def accumulate(self, last: bool) -> AbstractContextManager[Any]:
        """Nothing to exchange."""
        return nullcontext()

    def backward(self, loss: Tensor) -> None:
        """Plain backward."""
        loss.backward()  # type: ignore[no-untyped-call]

    def clip(self, most: float) -> Tensor:
        """Clip by the norm over all trainable weights."""
        from torch.nn.utils import clip_grad_norm_

        return clip_grad_norm_(self.parameters, most)

    def step(self) -> None:
        """Plain optimizer step."""
        self.optimizer.step()
        self.forget()

    def forget(self) -> None:
        """No gradients any more."""
        self.optimizer.zero_grad()
