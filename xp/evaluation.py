"""The one loop over an evaluation set, for every task and however many processes."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any

from xp import world
from xp.task.base import Task

if TYPE_CHECKING:
    import torch
    from datasets import Dataset
    from torch import nn


def evaluate(
    task: Task,
    network: nn.Module,
    rows: Dataset,
    labels: list[str],
    pad: int,
    batch_size: int,
    device: torch.device,
    autocast: Callable[[], AbstractContextManager[Any]],
) -> dict[str, float]:
    """The task's metrics on encoded ``rows``, the same on every process.

    Rows go through the network sorted by length (the longest first: if memory is short, it shows at once), a
    ``batch_size`` of them at a time, each process taking every n-th batch; the metrics see them in their order.
    """
    import numpy as np
    import torch

    order = np.argsort(-np.asarray(rows["length"][:]), kind="stable")
    batches = [order[start : start + batch_size] for start in range(0, len(order), batch_size)]
    parts: list[dict[str, np.ndarray]] = []
    network.eval()
    with torch.inference_mode():
        for numbers in batches[world.rank() :: world.size()]:
            table = rows[numbers.tolist()]
            examples = [{name: table[name][at] for name in table} for at in range(len(numbers))]
            batch = task.collate([[example] for example in examples], pad)
            batch = {name: value.to(device, non_blocking=True) for name, value in batch.items()}
            with autocast():
                parts.append({"row": numbers} | task.outcomes(network, batch))
    everywhere = [part for parts in world.gather(parts) for part in parts]
    joined = {name: np.concatenate([part[name] for part in everywhere]) for name in everywhere[0]}
    restored = np.argsort(joined.pop("row"))
    return task.metrics({name: value[restored] for name, value in joined.items()}, rows, labels)
