"""Step: what one process does of one optimizer step; Window: what happened since the curves' last point."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Step:
    """One optimizer step, as one process does it."""

    number: int
    """Counted from 1 over the whole training."""

    rows: list[int]
    """Numbers of the encoded rows of the whole step (of a stream: inside its window)."""

    ends_epoch: bool
    items: int
    """Items of the whole step over all processes: what its loss is divided by."""

    width: int
    """Sequences of its largest micro-batch, the same on every process."""

    batches: list[dict[str, Tensor]]
    """This process's micro-batches, on the CPU."""

    weights: list[float]
    """1.0 for each micro-batch, 0.0 for one that only keeps step with other processes."""

    tokens: int
    """Tokens in this process's micro-batches, without padding."""

    room: int
    """The same with padding."""

    notes: dict[str, int] = field(default_factory=dict)
    """Of a stream: what became of the rows up to here."""


@dataclass
class Window:
    """What happened since the last point of the training curves."""

    loss: Tensor | float = 0.0
    """This process's summed loss; stays on the device, because reading it would stop the device."""

    steps: list[tuple[int, list[int], Tensor, Tensor]] = field(default_factory=list)
    """Number, rows, loss and length of the gradient of each step that nobody has looked at yet; on the device."""

    items: int = 0
    tokens: int = 0
    room: int = 0
    started: float = field(default_factory=time.perf_counter)
