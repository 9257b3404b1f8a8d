"""The processes of one run, as each of them sees it: one alone, or the ranks of a torch.distributed group."""

from __future__ import annotations

import os
from datetime import timedelta
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor

PATIENCE = timedelta(hours=2)
"""How long one process waits for the others, who may write a large checkpoint or evaluate; `watch` notices sooner, of
the processes of one machine, who hangs. torch's own 10 minutes with nccl are too few."""


def rank() -> int:
    """Number of this process among those of the run, 0 for the one that tracks and saves."""
    return int(os.environ.get("RANK", "0"))


def size() -> int:
    """How many processes train this run together."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def join(device: str, meeting: str = "env://") -> None:
    """Enter the group of the run's processes; nothing to do when alone.

    Args:
        device: cpu or cuda, which decides how they talk.
        meeting: where they find each other: what torchrun and accelerate launch have prepared, or a ``file://``.
    """
    if size() == 1:
        return
    import torch.distributed

    if not torch.distributed.is_initialized():
        torch.distributed.init_process_group(
            "nccl" if device == "cuda" else "gloo",
            init_method=meeting,
            timeout=PATIENCE,
            rank=rank(),
            world_size=size(),
        )


def leave() -> None:
    """Leave the process group, if there is one."""
    if size() == 1:
        return
    import torch.distributed

    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


def total(value: Tensor) -> Tensor:
    """Sum of ``value`` over all processes, the same on each. A sync point between them."""
    if size() == 1:
        return value
    import torch.distributed

    value = value.clone()
    torch.distributed.all_reduce(value)
    return value


def gather(value: Any) -> list[Any]:
    """The ``value`` of every process in the order of their ranks, the same list on each."""
    if size() == 1:
        return [value]
    import torch.distributed

    values: list[Any] = [None] * size()
    torch.distributed.all_gather_object(values, value)
    return values


def agree(value: Any) -> Any:
    """Rank 0's ``value``, on every process."""
    if size() == 1:
        return value
    import torch.distributed

    box = [value]
    torch.distributed.broadcast_object_list(box, src=0)
    return box[0]
