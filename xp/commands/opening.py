"""What commands open with: the machine, the rows, the model, the features."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from xp.data.columns import ROW
from xp.error import UserError
from xp.features import Preparation
from xp.generation import caching
from xp.hardware import choose_device, choose_precision, environment
from xp.model import Wish, nameless, placement
from xp.report import Report
from xp.run import Run, flattened
from xp.task import Encoded, Trainable
from xp.tracking import Tracker
from xp.training.optimizer import check_device

if TYPE_CHECKING:
    import torch
    from datasets import Dataset

    from xp.data import Side, Splits
    from xp.model import Loaded
    from xp.training.job import Job


def choose_machine(run: Run, tracker: Tracker, report: Report, before: str | None = None) -> tuple[torch.device, Any]:
    """Device and precision of this run, told and tracked; auto stays what it was ``before``."""
    device = choose_device(run.device)
    if run.command == "train":
        check_device(run.training.optimizer, device)
    if run.command in ("generate", "chat") or (run.command != "merge" and run.task.generates):
        caching.check(run.generation, device)
    wanted: Any = before if before and run.precision == "auto" else run.precision
    precision = choose_precision(wanted, device)
    found = environment(device)
    auto = f" ({'as before' if before else 'auto'})" if run.precision == "auto" else ""
    report.say(f"{device}, {found['processor']}, {precision}{auto}")
    tracker.params(dict(flattened(run.values())) | {"environment." + name: value for name, value in found.items()})
    tracker.tags({"xp.device": device.type, "xp.precision": precision})
    return device, precision


def telling(tracker: Tracker, report: Report) -> Callable[[str, dict[str, str]], None]:
    """What takes news of a run: a line for people, and tags for the tracked run."""

    def tell(line: str, tags: dict[str, str]) -> None:
        report.say(line)
        tracker.tags(tags)

    return tell


def read(
    run: Run, report: Report, train: bool, tracker: Tracker | None = None
) -> tuple[Trainable, Splits, Preparation]:
    """The task as the rows settle it, the rows that it can use, and how they become features.

    What the task left to the rows to decide is told and tracked.
    """
    task = run.task
    assert isinstance(task, Trainable)
    cache = Path(run.runs_folder) / "cache" if run.cache else None
    preparation = Preparation(task, run.data.on_error, cache, report.say)
    splits = run.data.load(task.columns, task.other_columns, task.optional_columns, train=train)
    splits = preparation.checked(splits)
    resolved = task.resolved(splits.eval if splits.train is None else splits.train)
    for name in type(task).model_fields:
        if (value := getattr(resolved, name)) != getattr(task, name):
            report.say(f"task.{name}={value} ({getattr(task, name)}, by the rows)")
            if tracker is not None:
                tracker.tags({f"xp.task.{name}": str(value)})
    return resolved, splits, replace(preparation, task=resolved)


def describe_data(run: Run, splits: Splits, tracker: Tracker, report: Report) -> None:
    """Tell where the rows come from, and make them an input of the tracked run."""
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


def load(run: Run, task: Trainable, precision: str, labels: list[str], train: Dataset | None, report: Report) -> Loaded:
    """The model, ready to be trained on rows ``train`` with these labels, or (None) to be used as it is."""
    import torch

    torch.manual_seed(run.seed)
    in_full = train is not None and run.peft.in_full
    # Weights that train are float32; frozen ones may stay as they are stored, if bf16 is what computes.
    dtype: torch.dtype | Literal["auto"] = torch.float32 if in_full or precision == "fp32" else "auto"
    loaded = take(run, wish(run, task, dtype, labels, train, precision), report)
    for line in task.equip(loaded.processor, loaded.network, adapted=not in_full):
        report.say(line)
    return loaded


def take(run: Run, wanted: Wish, report: Report) -> Loaded:
    """The run's model as a wish has it; what a person should know of it is told."""
    loaded = run.model.load(wanted)
    for line in loaded.notes:
        report.say(line)
    return loaded


def wish(
    run: Run,
    task: Trainable,
    dtype: torch.dtype | Literal["auto"],
    labels: list[str],
    train: Dataset | None,
    precision: str,
) -> Wish:
    """What a task needs of the model."""
    return Wish(
        auto_class=task.auto_class,
        processor_class=task.processor_class,
        config=task.config,
        labels=labels,
        texts=lambda: [] if train is None else task.texts(train),
        dtype=dtype,
        peft_type=task.peft_type,
        train=train is not None,
        locate=partial(run.tracking.locate, runs=run.runs_folder),
        in_full=train is not None and run.peft.in_full,
        kept=tuple(getattr(run.peft, "modules_to_save", None) or ()),
        **machine(run, precision),
        special_tokens=task.special_tokens,
    )


def machine(run: Run, precision: str) -> dict[str, Any]:
    """Where a model is to be, what it is to compute in, and with which adapters, for a `Wish`."""
    import torch

    return {
        "device": choose_device(run.device),
        "computes_in": torch.float32 if precision == "fp32" else torch.bfloat16,
        "adapters": run.peft.several,
    }


def describe_model(loaded: Loaded, tracker: Tracker, report: Report) -> None:
    """Tell and track what a quantized model takes in memory, and where the parts are of one that is spread."""
    if loaded.footprint is not None:
        report.say(str(loaded.footprint))
        sizes = {"before": loaded.footprint.before, "after": loaded.footprint.after}
        tracker.log({f"model/bytes_{name}": float(value) for name, value in sizes.items()}, 0)
        tracker.tags({"xp.quantization": loaded.footprint.how})
    if placement.spread(loaded.network):
        report.say(placement.told(loaded.network))
        tracker.tags({"xp.placement": placement.told(loaded.network)})


def label_names(run: Run, task: Trainable, splits: Splits) -> list[str]:
    """Names of the classes that the train rows have; of a stream, none where the model is to name them.

    Raises:
        UserError: nobody names those of a stream.
    """
    assert splits.train is not None
    labels = task.label_names(splits.train)
    if not run.data.streaming or labels or "id2label" not in task.config([]):
        return labels
    if run.model.name == "scratch" or nameless(run.model.describe(wish(run, task, "auto", [], None, "fp32")).labels):
        column = (*task.label_columns, "label")[0]
        setting = "give task.labels=[<all of them>]" if hasattr(task, "labels") else "use data whose labels have names"
        raise UserError(
            f"data.streaming=true: the labels of a stream cannot be counted, and neither data.columns.{column} nor "
            f"the model states them; {setting}"
        )
    return labels


def sample(run: Run, preparation: Preparation, splits: Splits) -> Dataset:
    """The train rows, of a stream the first ten thousand: all that the model needs to see before the training."""
    assert splits.train is not None
    if not run.data.streaming:
        return splits.train
    from datasets import concatenate_datasets

    blocks = list(islice(run.data.blocks([name for name in splits.train.column_names if name != ROW], {}), 10))
    return concatenate_datasets([preparation.usable(splits, rows) for rows in blocks]) if blocks else splits.train


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


def places(task: Trainable, splits: Splits, loaded: Loaded, encoded: Encoded, numbers: list[int]) -> list[str]:
    """Where encoded train rows come from, for a person to find them."""
    from xp.places import of_encoded

    if not len(encoded.rows):  # Of a stream, nobody knows how many there are.
        return [f"{number + 1} of its part of the stream" for number in numbers]
    return of_encoded(task, splits, "train", loaded.processor, loaded.labels, len(encoded.rows), numbers)


def describe_stream(job: Job, task: Trainable, tracker: Tracker, report: Report) -> None:
    """What became of the rows of a stream, which nobody knew before."""
    if job.notes:
        report.say(f"train: {job.notes['read']:,} rows read from the stream")
        report.rows("train", {"rows": job.notes["read"]} | job.notes, task.longest)
        tracker.log({f"data/train_{name}": float(number) for name, number in job.notes.items()}, job.total_steps)


def encode(
    preparation: Preparation, side: Side, splits: Splits, loaded: Loaded, tracker: Tracker, report: Report
) -> Encoded:
    """A split as features; where they are from, and what became of rows that were too long, is told and tracked."""
    encoded, how = preparation.encoded(side, splits, loaded.processor, loaded.labels)
    tracker.tags({f"xp.cache.{side}": how})
    report.rows(side, encoded.notes, preparation.task.longest)
    for warning in encoded.warnings:
        report.say(f"warning: {side}: {warning}")
    if encoded.warnings:
        tracker.tags({f"xp.warnings.{side}": " | ".join(encoded.warnings)})
    tracker.log({f"data/{side}_{name}": float(number) for name, number in encoded.notes.items()}, 0)
    return encoded
