"""The rows of a run on their way to features: what became of them is told and tracked."""

from __future__ import annotations

from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from xp.error import UserError
from xp.features import Preparation
from xp.report import Report
from xp.run import Run
from xp.task import Encoded, Trainable
from xp.tracking import Tracker

if TYPE_CHECKING:
    from datasets import Dataset

    from xp.data import Side, Splits
    from xp.job import Job
    from xp.model import Loaded


def describe(run: Run, splits: Splits, tracker: Tracker, report: Report) -> None:
    """Where the rows are from, how many there are, and how many were left out."""
    fingerprint = splits.fingerprint
    sizes = {"train": len(splits.train) if splits.train is not None else 0, "eval": len(splits.eval)}
    counts = ", ".join(f"{number:,} {side} rows" for side, number in sizes.items() if number)
    report.say(f"{splits.source}: {counts}")
    left_out = [f"{number:,} {name.replace('_', ' ')}" for name, number in splits.notes.items() if number]
    if left_out:
        report.say(f"left out: {', '.join(left_out)}")
    if splits.notes:
        tracker.log({f"data/{name}": float(number) for name, number in splits.notes.items()}, 0)
    tracker.tags({"xp.data_fingerprint": fingerprint})
    context = "training" if run.command == "train" else "evaluation"
    tracker.dataset(run.choices["data"], splits.source, fingerprint, sizes, context)


def sample(run: Run, preparation: Preparation, labels: list[str], splits: Splits) -> Dataset:
    """The train rows, of a stream the first ten thousand: all that the model needs to see before the training."""
    assert splits.train is not None
    if not run.data.streaming:
        return splits.train
    if preparation.task.label_columns and not labels and run.model.name == "scratch":
        raise UserError(
            "data.streaming=true: the labels are not known before all rows are read; "
            "start from a model that has them, or use data with a ClassLabel column"
        )
    from datasets import concatenate_datasets

    blocks = list(islice(run.data.blocks([name for name in splits.train.column_names if name != "_row"], {}), 10))
    return concatenate_datasets([preparation.usable(splits, rows) for rows in blocks]) if blocks else splits.train


def preparation_of(run: Run, task: Trainable, report: Report) -> Preparation:
    """How this run's rows become features."""
    return Preparation(task, run.data.on_error, Path(run.runs) / "cache" if run.cache else None, report.say)


def encode_both(
    run: Run, preparation: Preparation, splits: Splits, loaded: Loaded, tracker: Tracker, report: Report
) -> tuple[Encoded, Encoded]:
    """Train rows, which may be a stream, and eval rows as features."""
    if run.data.streaming:
        splits = preparation.with_known_labels(splits, loaded.labels)
        encoded = Encoded(preparation.stream(run.data, splits, loaded.processor, loaded.labels))
    else:
        encoded = encode(preparation, "train", splits, loaded, tracker, report)
    return encoded, encode(preparation, "eval", splits, loaded, tracker, report)


def describe_stream(job: Job, task: Trainable, tracker: Tracker, report: Report) -> None:
    """What became of the rows of a stream, which nobody knew before."""
    if job.notes:
        report.say(f"train: {job.notes['read']:,} rows read from the stream")
        report.rows("train", {"rows": job.notes["read"]} | job.notes, task.longest)
        tracker.log({f"data/train_{name}": float(number) for name, number in job.notes.items()}, job.total_steps)


def encode(
    preparation: Preparation, side: Side, splits: Splits, loaded: Loaded, tracker: Tracker, report: Report
) -> Encoded:
    """A split as features; whether they were in the cache, and what became of long rows, is told and tracked."""
    encoded, how = preparation.encoded(side, splits, loaded.processor, loaded.labels)
    tracker.tags({f"xp.cache.{side}": how})
    report.rows(side, encoded.notes, preparation.task.longest)
    tracker.log({f"data/{side}_{name}": float(number) for name, number in encoded.notes.items()}, 0)
    return encoded
