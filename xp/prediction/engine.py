"""The one loop over inputs: sorted by length, batched, what fails narrowed down to single inputs, order restored."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from xp.error import UserError
from xp.prediction import media
from xp.prediction.inputs import Item
from xp.prediction.predictor import Predictor


@dataclass
class Outcome:
    """What became of an input."""

    item: Item
    output: Any = None
    error: str = ""
    """Why there is no output; empty where there is one."""

    truncated: bool = False
    """Whether the output is of the beginning of the input alone."""

    seconds: float = 0.0
    """How long the batch took that the input went through the network in."""


def predict(
    predictor: Predictor,
    items: list[Item],
    most: Callable[[int], int],
    seed: int,
    keep: Callable[[Item, Any], Any],
    done: Callable[[int], None],
    say: Callable[[str], None],
) -> list[Outcome]:
    """An outcome for each input, in their order.

    Inputs go through the network sorted by size, the largest first: if memory is short, it shows at once.

    Args:
        most: how many inputs go at once, given the size of the largest of them.
        seed: of what is drawn at random, for example the next token.
        keep: turns an item's prediction, as soon as it is there, into what is kept of it in memory.
        done: is told of every so many inputs that have an outcome.
        say: is told, once, that memory is short.

    Raises:
        UserError: a package that is not installed.
    """
    import torch

    outcomes = [Outcome(item, error=item.error) for item in items]
    numbers = [at for at, item in enumerate(items) if not item.error]
    sizes = dict(zip(numbers, predictor.measure([items[at].row for at in numbers]), strict=True))
    done(len(items) - len(numbers))
    for at in numbers:
        _check_length(predictor, outcomes[at], sizes[at])
    rest = [at for at in numbers if not outcomes[at].error]
    done(len(numbers) - len(rest))
    short = False
    with torch.inference_mode():
        for batch in _batches(predictor, {at: sizes[at] for at in rest}, items, most):
            ready: list[tuple[Outcome, dict[str, Any]]] = []
            for at in batch:
                try:
                    ready.append((outcomes[at], media.load(items[at].row, predictor.rate)))
                except (ValueError, OSError) as error:
                    if isinstance(error, UserError):
                        raise
                    outcomes[at].error = str(error)
            torch.manual_seed(seed + batch[0])
            if _run(predictor, ready) and not short:
                short = True
                say(
                    f"warning: {len(ready)} inputs of {sizes[batch[0]]:,} at most need more memory than there is, and "
                    "go through in halves; fewer at once cost no time for that"
                )
            for outcome, _ in ready:
                if not outcome.error:
                    outcome.output = keep(outcome.item, outcome.output)
            done(len(batch))
    return outcomes


def described(outcome: Outcome) -> str:
    """Which input has no prediction, and why."""
    place = f" ({outcome.item.place})" if outcome.item.place else ""
    return f"input {outcome.item.position}{place}: {outcome.error}"


def _check_length(predictor: Predictor, outcome: Outcome, size: int) -> None:
    """Note an input that is longer than the model reaches: to be truncated, or an error."""
    if predictor.tokenizer is None or size <= predictor.limit:
        return
    if predictor.truncates:
        outcome.truncated = True
    else:
        may = getattr(predictor.task, "overlong", "truncate") != "truncate" and predictor.task.truncating(1) is not None
        cut = ", or choose task.overlong=truncate" if may else ""
        outcome.error = f"it has {size} tokens, and {predictor.limit_means}; shorten it{cut}"


def _batches(
    predictor: Predictor, sizes: dict[int, int], items: list[Item], most: Callable[[int], int]
) -> Iterator[list[int]]:
    """Numbers of inputs that go through the network together, the largest first."""
    # The pipeline is told something along with each batch, and does not take chats and texts in one.
    told = {
        at: json.dumps([predictor.task.arguments(items[at].row), *[type(v).__name__ for v in items[at].row.values()]],
                       sort_keys=True, default=str)
        for at in sizes
    }  # fmt: skip
    batch: list[int] = []
    for at in sorted(sizes, key=lambda at: (told[at], -sizes[at])):
        same = batch and told[at] == told[batch[0]] and (not predictor.even or sizes[at] == sizes[batch[0]])
        if batch and (not same or not predictor.task.batches or len(batch) >= most(sizes[batch[0]])):
            yield batch
            batch = []
        batch.append(at)
    if batch:
        yield batch


def _run(predictor: Predictor, ready: list[tuple[Outcome, dict[str, Any]]]) -> bool:
    """Predict a batch; where it fails, its halves, down to the inputs that are to blame. Says if memory was short."""
    if not ready:
        return False
    began = time.perf_counter()
    try:
        outputs = predictor.call([row for _, row in ready])
        if len(outputs) != len(ready):
            raise RuntimeError(f"{len(outputs)} predictions came of {len(ready)} inputs")
    except UserError:
        raise
    except ImportError as error:
        raise media.lacking(error) from error
    except Exception as error:
        said = " ".join(str(error).split())
        short = "out of memory" in said or "not enough memory" in said
        if len(ready) == 1:
            ready[0][0].error = "it needs more memory than there is; " * short + f"{type(error).__name__}: {said[:300]}"
            return short
    else:
        seconds = time.perf_counter() - began
        for (outcome, _), output in zip(ready, outputs, strict=True):
            outcome.output, outcome.seconds = output, seconds
        return False
    if short:
        import torch

        torch.cuda.empty_cache()  # Outside of the except clause, whose error still holds what did not fit.
    half = len(ready) // 2
    return any([_run(predictor, ready[:half]), _run(predictor, ready[half:]), short])
