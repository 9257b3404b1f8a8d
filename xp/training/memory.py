"""Memory: how much goes through a network at once, and what is done where that is too much."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass

from xp.error import UserError
from xp.process import world

SAID = (
    "out of memory",  # CUDA, HIP, XPU, MPS
    "can't allocate memory",  # torch on a CPU
    "not enough memory",
    "bad_alloc",
    "ALLOC_FAILED",  # cuBLAS, cuDNN
    "could not create a memory",  # oneDNN
    "Cannot allocate memory",
)
"""What errors say that are not of torch's or Python's own class for it."""


def short(error: BaseException) -> bool:
    """Whether an error means that the memory of the device, or of the machine, does not suffice."""
    import torch

    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError | OSError) and any(words in str(error) for words in SAID)


def free() -> None:
    """Give back what nobody holds any more."""
    import gc

    import torch

    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


@dataclass
class Portions:
    """How much goes through the network at once; becomes less where memory does not suffice, if it may."""

    auto: bool
    """Whether it may become less: ``training.micro_batch_size=auto``."""

    training: int | None
    """Sequences of a micro-batch; None: all that this process has of a step."""

    evaluation: int
    """Rows of an evaluation's batch."""

    tell: Callable[[str, dict[str, str]], None]
    """Takes a line for people and tags for the tracked run."""

    lessened: bool = False
    """Whether a micro-batch has become smaller and no checkpoint says so yet."""

    def less_training(self, step: int, width: int) -> None:
        """Halve the micro-batch, of which a step has not fitted.

        Raises:
            UserError: it may not, or cannot become smaller.
        """
        if not self.auto or width == 1:
            smaller = f"training.micro_batch_size={width // 2}, or auto, which finds what fits"
            raise UserError(
                f"training.micro_batch_size={self.training or 'null'}: out of memory at step {step} with {width} "
                f"sequence{'s' * (width > 1)} at once; use {f'{smaller}; ' if width > 1 else ''}"
                "training.gradient_checkpointing=true, a smaller task.max_length or a smaller model"
            )
        self.training, self.lessened = width // 2, True
        self._tell(f"out of memory at step {step} with {width} sequences at once; goes on with {self.training}",
                   {"xp.micro_batch_size": f"{self.training} from step {step} on"})  # fmt: skip

    def less_evaluation(self, rows: int) -> int:
        """Halve the batch of evaluations, of which one has not fitted; gives the new size.

        Raises:
            UserError: it may not, or cannot become smaller.
        """
        if not self.auto or rows == 1:
            smaller = f"training.evaluation_batch_size={rows // 2}, or training.micro_batch_size=auto"
            raise UserError(
                f"training.evaluation_batch_size={self.evaluation}: out of memory with {rows} row{'s' * (rows > 1)} "
                f"at once; use {smaller if rows > 1 else 'a smaller task.max_length or a smaller model'}"
            )
        self.evaluation = rows // 2
        self._tell(f"out of memory with {rows} rows in an evaluation at once; goes on with {self.evaluation}",
                   {"xp.evaluation_batch_size": str(self.evaluation)})  # fmt: skip
        return self.evaluation

    def _tell(self, line: str, tags: dict[str, str]) -> None:
        self.tell(line, tags)
        if world.rank():  # The report is of the first process alone.
            print(f"xp: process {world.rank()}: {line}", file=sys.stderr, flush=True)
