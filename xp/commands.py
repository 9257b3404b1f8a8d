"""What a run can be told to do; each command is read from top to bottom."""

from __future__ import annotations

import hashlib
import json
import shutil
import time
from collections import deque
from functools import partial
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from xp import findings, world
from xp.error import UserError
from xp.features import Preparation
from xp.hardware import autocast, choose_device, choose_precision, environment
from xp.metric import better
from xp.model import Wish
from xp.report import Report
from xp.run import Run, flattened
from xp.task import Encoded, Trainable
from xp.tracking import Tracker

if TYPE_CHECKING:
    import torch
    from datasets import Dataset
    from transformers import PreTrainedModel

    from xp.data import Side, Splits
    from xp.evaluation import Evaluation
    from xp.job import Job
    from xp.model import Loaded


def train(run: Run, folder: Path, tracker: Tracker, report: Report) -> dict[str, Any]:
    """Train, evaluate and save a model.

    Returns:
        What goes to ``result.json``: ``objective``, ``metrics``, ``baseline``, sizes, times and places.
    """
    from xp.checkpoint import load_weights
    from xp.peft import count
    from xp.prepare import BEST, check_fit, prepare

    started = time.perf_counter()
    task = run.task
    assert isinstance(task, Trainable)
    device, precision = _machine(run, tracker, report)
    preparation = _preparation(run, task, report)
    splits = run.data.load(task.columns, task.other_columns, task.optional_columns, train=True)
    splits = preparation.checked(splits)
    assert splits.train is not None
    labels = task.label_names(splits.train)
    splits = preparation.with_known_labels(splits, labels)
    _describe_data(run, splits, tracker, report)

    loaded = _load(run, task, precision, labels, _sample(run, preparation, labels, splits))
    check_fit(task, loaded)
    encoded, held_out = _encode_both(run, preparation, splits, loaded, tracker, report)
    loaded.network = _with_adapter(run, loaded, folder).to(device)
    trained, weights = count(loaded.network)
    report.model(run, loaded, trained, weights)

    def log(metrics: dict[str, float], step: int) -> None:
        tracker.log(metrics, step)
        report.point(metrics, step)

    tracker.opened()
    report.start(run.training.total_steps(len(encoded.rows)))
    latest: deque[Evaluation] = deque(maxlen=1)
    cached = {name: value for name, value in vars(loaded.network.config).items() if name == "use_cache"}
    job = prepare(
        recipe=run.training,
        task=task,
        loaded=loaded,
        train=encoded,
        held_out=held_out,
        generation=run.generation,
        seed=run.seed,
        device=device,
        autocast=partial(autocast, precision, device),
        folder=folder,
        log=log,
        found=latest.append,
    )
    began = time.perf_counter()
    with report:
        run.backend.fit(job)
    vars(loaded.network.config).update(cached)
    _describe_stream(job, task, tracker, report)
    seconds = time.perf_counter() - began
    world.gather(None)  # The best weights are on disk once rank 0 is here.
    metrics = job.metrics
    if run.training.keep_best:
        if job.evaluated_step != job.best_step:
            load_weights(loaded.network, folder / BEST)
            metrics = job.evaluate()
            report.say(f"kept the weights of step {job.best_step}")
        tracker.log({f"best/{name}": value for name, value in metrics.items()}, job.best_step)
        world.gather(None)
        if world.rank() == 0:
            (folder / BEST).unlink()
    digest = _save(run, loaded, folder / "model") if world.rank() == 0 else ""
    _show_findings(task, latest[0], loaded, held_out, folder, tracker)
    return _scores(task, job.metric, metrics, loaded, held_out) | {
        "trainable": trained,
        "weights": weights,
        "digest": digest,
        "training_seconds": seconds,
        "seconds": time.perf_counter() - started,
        "model": str(folder / "model"),
    }


def evaluate(run: Run, folder: Path, tracker: Tracker, report: Report) -> dict[str, Any]:
    """Evaluate a trained model.

    Returns:
        What goes to ``result.json``: ``objective``, ``metrics``, ``baseline`` and times.
    """
    from xp import evaluation
    from xp.prepare import check_fit

    started = time.perf_counter()
    task = run.task
    assert isinstance(task, Trainable)
    device, precision = _machine(run, tracker, report)
    preparation = _preparation(run, task, report)
    splits = run.data.load(task.columns, task.other_columns, task.optional_columns, train=False)
    splits = preparation.checked(splits)
    loaded = _load(run, task, precision, [], None)
    check_fit(task, loaded)
    splits = preparation.with_known_labels(splits, loaded.labels)
    _describe_data(run, splits, tracker, report)
    held_out = _encode(preparation, "eval", splits, loaded, tracker, report)
    tracker.opened()
    evaluated = evaluation.evaluate(
        task,
        loaded.network.to(device),
        held_out.rows,
        loaded.labels,
        loaded.processor,
        run.generation,
        run.training.evaluation_batch_size,
        device,
        partial(autocast, precision, device),
    )
    tracker.log({f"eval/{name}": value for name, value in evaluated.scores.items()}, 0)
    _show_findings(task, evaluated, loaded, held_out, folder, tracker)
    metric = run.training.metric or task.scores[0]
    scores = _scores(task, metric, evaluated.scores, loaded, held_out)
    return scores | {"seconds": time.perf_counter() - started}


def _machine(run: Run, tracker: Tracker, report: Report) -> tuple[torch.device, Any]:
    """Device and precision of this run, told and tracked."""
    device = choose_device(run.device)
    precision = choose_precision(run.precision, device)
    found = environment(device)
    report.say(f"{device}, {found['processor']}, {precision}{' (auto)' if run.precision == 'auto' else ''}")
    tracker.params(dict(flattened(run.values())) | {"environment." + name: value for name, value in found.items()})
    tracker.tags({"xp.device": device.type, "xp.precision": precision})
    return device, precision


def _describe_data(run: Run, splits: Splits, tracker: Tracker, report: Report) -> None:
    fingerprint = splits.fingerprint
    sizes = {"train": len(splits.train) if splits.train is not None else 0, "eval": len(splits.eval)}
    counts = ", ".join(f"{number:,} {side} rows" for side, number in sizes.items() if number)
    report.say(f"{splits.source}: {counts}")
    left_out = [f"{number:,} {name.replace('_', ' ')}" for name, number in splits.notes.items() if number]
    if left_out:
        report.say(f"left out: {', '.join(left_out)}")
    tracker.log({f"data/{name}": float(number) for name, number in splits.notes.items()}, 0)
    tracker.tags({"xp.data_fingerprint": fingerprint})
    context = "training" if run.command == "train" else "evaluation"
    tracker.dataset(run.choices["data"], splits.source, fingerprint, sizes, context)


def _load(run: Run, task: Trainable, precision: str, labels: list[str], train: Dataset | None) -> Loaded:
    """The model, ready to be trained on rows ``train`` with these labels, or (None) to be used as it is."""
    import torch

    torch.manual_seed(run.seed)
    in_full = train is not None and run.peft.name == "none"
    return run.model.load(
        Wish(
            auto_class=task.auto_class,
            processor_class=task.processor_class,
            config=task.config,
            labels=labels,
            texts=lambda: [] if train is None else task.texts(train),
            # Weights that train are float32; frozen ones may stay as they are stored, if bf16 is what computes.
            dtype=torch.float32 if in_full or precision == "fp32" else "auto",
            peft_type=task.peft_type,
            train=train is not None,
            locate=partial(run.tracking.locate, runs=run.runs),
        )
    )


def _sample(run: Run, preparation: Preparation, labels: list[str], splits: Splits) -> Dataset:
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


def _preparation(run: Run, task: Trainable, report: Report) -> Preparation:
    return Preparation(task, run.data.on_error, Path(run.runs) / "cache" if run.cache else None, report.say)


def _encode_both(
    run: Run, preparation: Preparation, splits: Splits, loaded: Loaded, tracker: Tracker, report: Report
) -> tuple[Encoded, Encoded]:
    """Train rows, which may be a stream, and eval rows as features."""
    if run.data.streaming:
        splits = preparation.with_known_labels(splits, loaded.labels)
        encoded = Encoded(preparation.stream(run.data, splits, loaded.processor, loaded.labels))
    else:
        encoded = _encode(preparation, "train", splits, loaded, tracker, report)
    return encoded, _encode(preparation, "eval", splits, loaded, tracker, report)


def _describe_stream(job: Job, task: Trainable, tracker: Tracker, report: Report) -> None:
    """What became of the rows of a stream, which nobody knew before."""
    if job.notes:
        report.say(f"train: {job.notes['read']:,} rows read from the stream")
        report.rows("train", {"rows": job.notes["read"]} | job.notes, task.longest)
        tracker.log({f"data/train_{name}": float(number) for name, number in job.notes.items()}, job.total_steps)


def _encode(
    preparation: Preparation, side: Side, splits: Splits, loaded: Loaded, tracker: Tracker, report: Report
) -> Encoded:
    """A split as features; whether they were in the cache, and what became of long rows, is told and tracked."""
    encoded, how = preparation.encoded(side, splits, loaded.processor, loaded.labels)
    tracker.tags({f"xp.cache.{side}": how})
    report.rows(side, encoded.notes, preparation.task.longest)
    tracker.log({f"data/{side}_{name}": float(number) for name, number in encoded.notes.items()}, 0)
    return encoded


def _scores(
    task: Trainable, metric: str, metrics: dict[str, float], loaded: Loaded, held_out: Encoded
) -> dict[str, Any]:
    """What every result begins with: the objective, and all metrics beside the baseline."""
    baseline = task.baseline(held_out.rows, loaded.labels)
    return {
        "objective": metrics[metric],
        "metric": f"eval/{metric}",
        "goal": better(metric),
        "metrics": {f"eval/{name}": value for name, value in metrics.items()},
        "baseline": {f"eval/{name}": value for name, value in baseline.items()},
    }


def _show_findings(
    task: Trainable, evaluated: Evaluation, loaded: Loaded, held_out: Encoded, folder: Path, tracker: Tracker
) -> None:
    """Put the pictures and tables of an evaluation into the run's folder and into MLflow."""
    if world.rank() != 0:
        return
    found = task.findings(evaluated.outcomes, held_out.rows, loaded.labels, loaded.processor)
    findings.write(found, folder / "evaluation")
    for name in found.pictures:
        tracker.artifact(folder / "evaluation" / f"{name}.png", "evaluation")
    for name, table in found.tables.items():
        tracker.table(table, f"evaluation/{name}.json")


def _with_adapter(run: Run, loaded: Loaded, folder: Path) -> PreTrainedModel:
    """The network, its weights to train marked; an adapter's random base is saved, for it is nowhere else."""
    if run.model.name == "scratch" and run.peft.name != "none":
        base = folder / "base"
        loaded.network.name_or_path = str(base.absolute())
        if world.rank() == 0:
            loaded.network.save_pretrained(base)
            loaded.processor.save_pretrained(base)
    assert isinstance(run.task, Trainable)
    return run.peft.apply(loaded.network, run.task.peft_type, [] if run.model.name == "scratch" else loaded.new)


def _save(run: Run, loaded: Loaded, folder: Path) -> str:
    """Write a plain Hugging Face folder, or a PEFT folder with the base's config; gives its digest."""
    import torch

    part = folder.with_name(folder.name + ".part")
    shutil.rmtree(part, ignore_errors=True)
    network = loaded.network
    if run.training.save_dtype is not None:
        network = network.to(getattr(torch, run.training.save_dtype))
    network.save_pretrained(part)
    if hasattr(network, "peft_config"):
        network.config.save_pretrained(part)
    loaded.processor.save_pretrained(part)
    part.replace(folder)
    digest = hashlib.sha256()
    for file in sorted(folder.glob("*.safetensors")):
        digest.update(file.read_bytes())
    return digest.hexdigest()


def write_result(result: dict[str, Any], folder: Path) -> Path:
    """Put a command's result beside the run."""
    file = folder / "result.json"
    file.write_text(json.dumps(result, indent=2) + "\n")
    return file
