"""The one loop over an evaluation set, for every task and however many processes."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from xp.process import pulse, world
from xp.task.base import Trainable
from xp.training import memory
from xp.training.memory import Portions

if TYPE_CHECKING:
    import numpy as np
    import torch
    from datasets import Dataset
    from torch import nn

    from xp.generation import Generation


@dataclass(frozen=True)
class Evaluation:
    """What an evaluation has found."""

    scores: dict[str, float]
    """The task's scores by name."""

    outcomes: dict[str, np.ndarray]
    """What they come from: one value a row, in the order of the rows."""


def _unless_short(
    part: Callable[[np.ndarray], dict[str, np.ndarray]], numbers: np.ndarray
) -> dict[str, np.ndarray] | None:
    """What becomes of a batch; None where memory does not suffice. Nothing of what failed is held any more."""
    try:
        return part(numbers)
    except Exception as error:
        if not memory.short(error):
            raise
        return None


def evaluate(
    task: Trainable,
    network: nn.Module,
    rows: Dataset,
    labels: list[str],
    processor: Any,
    generation: Generation,
    portions: Portions | int,
    device: torch.device,
    autocast: Callable[[], AbstractContextManager[Any]],
) -> Evaluation:
    """The task's scores on encoded ``rows``, the same on every process.

    Rows go through the network sorted by length (the longest first: if memory is short, it shows at once), a
    some at a time, each process taking every n-th batch, in halves where memory does not suffice and ``portions`` let
    it; the scores see them in their order.
    What a task draws at random is drawn by the row's index alone: every evaluation of a row is the same.
    """
    import numpy as np
    import torch

    order = np.argsort(-np.asarray(rows["length"][:]), kind="stable")
    size = portions if isinstance(portions, int) else portions.evaluation
    batches = [order[start : start + size] for start in range(0, len(order), size)]
    parts: list[dict[str, np.ndarray]] = []
    network.eval()

    def part(numbers: np.ndarray) -> dict[str, np.ndarray]:
        pulse.beat()
        table = rows[numbers.tolist()]
        examples = [
            task.draw({name: table[name][at] for name in table}, np.random.default_rng([int(row)]), processor)
            for at, row in enumerate(numbers)
        ]
        batch = task.collate([[example] for example in examples], processor)
        batch = {name: value.to(device, non_blocking=True) for name, value in batch.items()}
        torch.manual_seed(int(numbers[0]))  # For generation that samples.
        with autocast():
            outcomes = task.outcomes(network, batch, processor, generation)
        items = np.asarray([example["items"] for example in examples])
        return {"row": numbers, "items": items} | outcomes

    waiting = batches[world.rank() :: world.size()]
    with torch.inference_mode():
        while waiting:
            if (found := _unless_short(part, waiting[0])) is not None:
                parts.append(found)
                waiting = waiting[1:]
            elif isinstance(portions, int):
                Portions(False, None, portions, lambda line, tags: None).less_evaluation(len(waiting[0]))
            else:
                memory.free()
                most = portions.less_evaluation(len(waiting[0]))
                waiting = [half for each in waiting for half in np.split(each, range(most, len(each), most))]
    everywhere = [part for parts in world.gather(parts) for part in parts]
    joined = {name: np.concatenate([part[name] for part in everywhere]) for name in everywhere[0]}
    restored = np.argsort(joined.pop("row"))
    outcomes = {name: value[restored] for name, value in joined.items()}
    return Evaluation(task.score(outcomes, rows, labels), outcomes)
