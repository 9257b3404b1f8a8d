"""Gradients of a step: micro-batch by micro-batch, in smaller ones where memory does not suffice."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any, Protocol

from xp.process import world
from xp.training import memory
from xp.training.step import Step

if TYPE_CHECKING:
    from torch import Tensor, nn

    from xp.training.job import Job


class Accumulating(Protocol):
    """What backends differ in where gradients are added up."""

    network: nn.Module
    """The network to call in training, wrapped if need be."""

    def accumulate(self, last: bool) -> AbstractContextManager[Any]:
        """Context of a micro-batch; only the last one of a step exchanges gradients."""

    def backward(self, loss: Tensor) -> None:
        """Add the loss's gradients to those of the weights."""

    def forget(self) -> None:
        """Take all gradients back."""


def gradients(job: Job, step: Step, engine: Accumulating) -> tuple[Step, Tensor]:
    """Add up the gradients of a step; gives it as it was done at last, and what `Job.loss` gave, summed.

    Where memory does not suffice and ``training.micro_batch_size`` is auto, the step is done again from its begin
    with the same rows in smaller micro-batches. Several processes agree on it: each is through with its own
    micro-batches before any gradient is exchanged, so none waits in an exchange for one that cannot go on. (That
    costs auto the overlap of backward and exchange.)

    Raises:
        UserError: not even one sequence fits, or the micro-batch's size is fixed.
    """
    together = job.portions.auto and world.size() > 1
    while True:
        losses, fits = _attempt(job, step, engine, together)
        if together:
            import torch

            fits = not float(world.total(torch.tensor(0.0 if fits else 1.0, device=job.device)))
        if fits:
            break
        engine.forget()
        memory.free()
        step = job.again(step)
    if together:
        _exchange(job)
    return step, losses


def _attempt(job: Job, step: Step, engine: Accumulating, together: bool) -> tuple[Tensor, bool]:
    """The summed loss, and whether there was memory for it; of a step that failed, nothing is held any more."""
    import torch

    network = job.network if together else engine.network
    losses = torch.zeros((), device=job.device)
    last = len(step.batches) - 1
    try:
        for micro in range(len(step.batches)):
            with nullcontext() if together else engine.accumulate(last=micro == last):
                loss = job.loss(network, step, micro)
                engine.backward(loss)
            losses += loss.detach()
    except Exception as error:
        if not memory.short(error):
            raise
        return losses, False
    return losses, True


def _exchange(job: Job) -> None:
    """Give every process the mean of all gradients."""
    import torch

    for parameter in job.network.parameters():
        if parameter.requires_grad:
            own = parameter.grad if parameter.grad is not None else torch.zeros_like(parameter)
            parameter.grad = world.total(own).div_(world.size())
