"""Predict: what a trained model makes of a person's inputs."""

from __future__ import annotations

import hashlib
import shutil
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from xp.commands.opening import choose_machine, describe_model, machine
from xp.error import UserError
from xp.model import Wish
from xp.report import Report
from xp.run import Run
from xp.task import Trainable
from xp.tracking import Tracker

if TYPE_CHECKING:
    from xp.model import Loaded


def predict(run: Run, folder: Path, tracker: Tracker, report: Report) -> dict[str, Any]:
    """Let a trained model predict.

    Returns:
        What goes to ``result.json``: ``metrics``, ``failed`` (how many inputs have no prediction), places and times.

    Raises:
        UserError: no input has a prediction.
    """
    from xp.prediction import engine, inputs, outputs, predictor

    started = time.perf_counter()
    device, precision = choose_machine(run, tracker, report)
    if precision == "bf16" and not run.task.bf16:
        if run.precision == "bf16":
            raise UserError(f"precision=bf16: the pipeline of task={run.task.name} cannot read it; use precision=fp32")
        precision = "fp32"
        report.say(f"fp32 all the same, which is what the pipeline of task={run.task.name} can read")
    columns = {part: column for part, column in run.data.columns.items() if isinstance(column, str)}
    items = inputs.read(run.inputs, run.task, columns)
    auto_classes = predictor.candidates(run.task)
    loaded = load_trained(run, auto_classes, precision)
    describe_model(loaded, tracker, report)
    source = {name: getattr(run.model, name) for name in ("revision", "trust_remote_code") if hasattr(run.model, name)}
    made = predictor.make(run.task, loaded, source, run.generation, device)
    for line in (*loaded.notes, *made.notes):
        report.say(line)
    tracker.opened()

    began = time.perf_counter()
    keep = partial(outputs.kept, folder=folder)
    with report.predicting(len(items)) as done:
        outcomes = engine.predict(made, items, lambda _: run.prediction.batch_size, run.seed, keep, done, report.say)
    seconds = time.perf_counter() - began
    file, lines = outputs.write(outcomes, folder)
    if run.prediction.output is not None:
        shutil.copyfile(file, run.prediction.output)
    report.predictions(lines, run.prediction.shown, file)

    failed = sum("error" in line for line in lines)
    metrics = {
        "predict/items": float(len(lines)),
        "predict/failed": float(failed),
        "predict/truncated": float(sum("truncated" in line for line in lines)),
        "predict/seconds": seconds,
        "predict/items_per_second": (len(lines) - failed) / seconds,
    }
    tracker.log(metrics, 0)
    tracker.artifact(file)
    # Without the folder that files beside it are in, so that the same predictions have the same digest.
    digest = hashlib.sha256(file.read_bytes().replace(folder.name.encode(), b"")).hexdigest()
    tracker.tags({"xp.predictions": digest})
    tracker.table(outputs.table(lines), "predictions.json")
    if (folder / "outputs").is_dir():
        tracker.artifact(folder / "outputs")
    if failed == len(lines):
        raise UserError(f"none of the {failed} inputs has a prediction; {engine.described(outcomes[0])}")
    return {
        "objective": metrics["predict/items_per_second"],
        "metric": "predict/items_per_second",
        "goal": "max",
        "metrics": metrics,
        "baseline": {},
        "failed": failed,
        "predictions": str(file),
        "seconds": time.perf_counter() - started,
    }


def load_trained(run: Run, auto_classes: tuple[str, ...], precision: str) -> Loaded:
    """The model as it is, with a trained head for the task; its weights are of the type that is computed in."""
    import torch

    torch.manual_seed(run.seed)
    task = run.task
    own = not task.pipeline and isinstance(task, Trainable)
    return run.model.load(
        Wish(
            auto_class=auto_classes,
            processor_class="" if task.pipeline or task.parts else getattr(task, "processor_class", ""),
            config=task.config if own and isinstance(task, Trainable) else lambda labels: {},
            labels=[],
            texts=list,
            dtype=torch.float32 if precision == "fp32" else torch.bfloat16,
            peft_type=getattr(task, "peft_type", None),
            train=False,
            locate=partial(run.tracking.locate, runs=run.runs_folder),
            spare=task.spare,
            **machine(run, precision),
        )
    )
