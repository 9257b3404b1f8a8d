"""What a run can be told to do; each command is read from top to bottom."""

from __future__ import annotations

import hashlib
import json
import shutil
import time
from collections import deque
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from xp import findings, rows, world
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

    from xp.evaluation import Evaluation
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
    preparation = rows.preparation_of(run, task, report)
    splits = run.data.load(task.columns, task.other_columns, task.optional_columns, train=True)
    splits = preparation.checked(splits)
    assert splits.train is not None
    labels = task.label_names(splits.train)
    splits = preparation.with_known_labels(splits, labels)
    rows.describe(run, splits, tracker, report)

    loaded = _load(run, task, precision, labels, rows.sample(run, preparation, labels, splits))
    check_fit(task, loaded)
    encoded, held_out = rows.encode_both(run, preparation, splits, loaded, tracker, report)
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
    rows.describe_stream(job, task, tracker, report)
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
    preparation = rows.preparation_of(run, task, report)
    splits = run.data.load(task.columns, task.other_columns, task.optional_columns, train=False)
    splits = preparation.checked(splits)
    loaded = _load(run, task, precision, [], None)
    check_fit(task, loaded)
    splits = preparation.with_known_labels(splits, loaded.labels)
    rows.describe(run, splits, tracker, report)
    held_out = rows.encode(preparation, "eval", splits, loaded, tracker, report)
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
