"""Train, evaluate and save a model."""

from __future__ import annotations

import time
from collections import deque
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from xp import checkpoint, interrupt, world
from xp.checkpoint import BEST, Checkpoint, Writer
from xp.commands.closing import save_model, scores, show_findings
from xp.commands.opening import (
    choose_machine,
    describe_data,
    describe_stream,
    encode_both,
    label_names,
    load,
    read,
    sample,
)
from xp.error import UserError
from xp.hardware import autocast
from xp.model import head
from xp.report import Report
from xp.run import Run, changes
from xp.task import Trainable
from xp.tracking import Tracker

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from xp.evaluation import Evaluation
    from xp.job import Job
    from xp.model import Loaded


def train(run: Run, folder: Path, tracker: Tracker, report: Report) -> dict[str, Any]:
    """Train, evaluate and save a model.

    Returns:
        What goes to ``result.json``: ``objective``, ``metrics``, ``baseline``, sizes, times and places.
    """
    from xp.peft import count
    from xp.prepare import check_fit, prepare

    started = time.perf_counter()
    kept = folder / checkpoint.FOLDER
    found = _newest(kept, report)
    device, precision = choose_machine(run, tracker, report)
    task, splits, preparation = read(run, report, True, tracker)
    assert splits.train is not None
    labels = label_names(run, task, splits)
    splits = preparation.with_known_labels(splits, labels)
    describe_data(run, splits, tracker, report)
    about = {"config": run.values(), "data": splits.fingerprints}
    if found is not None:
        check_same(about, found.state, folder)

    loaded = load(run, task, precision, labels, sample(run, preparation, splits), report)
    check_fit(task, loaded)
    encoded, held_out = encode_both(run, preparation, splits, loaded, tracker, report)
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
    writer = checkpoint.Writer(kept, run.training.save_total) if world.rank() == 0 else None
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
        writer=writer,
        about=about,
        log=log,
        found=latest.append,
    )
    if found is not None:
        _go_on(job, found, folder, tracker, report)
    began = time.perf_counter()
    _fit(run, job, writer, report)
    vars(loaded.network.config).update(cached)
    describe_stream(job, task, tracker, report)
    seconds = time.perf_counter() - began
    metrics = _best(job, loaded, kept, report) if run.training.keep_best else job.metrics
    if run.training.keep_best:
        tracker.log({f"best/{name}": value for name, value in metrics.items()}, job.best_step or job.step)
    if not latest:  # It has gone on after its last step.
        job.evaluate()
    digest = ""
    if world.rank() == 0:
        digest = save_model(run, loaded, folder / "model")
        checkpoint.prune(kept, 1 if run.training.save_total else 0)  # From the one it can be extended.
    show_findings(task, latest[0], loaded, held_out, folder, tracker)
    return scores(task, job.metric, metrics, loaded, held_out) | {
        "trainable": trained,
        "weights": weights,
        "digest": digest,
        "training_seconds": seconds,
        "seconds": time.perf_counter() - started,
        "model": str(folder / "model"),
    }


def _go_on(job: Job, found: Checkpoint, folder: Path, tracker: Tracker, report: Report) -> None:
    """Bring the job to where the run was."""
    from xp.state import restore

    restore(job, found)
    if job.step > job.total_steps:
        raise UserError(f"resume={folder}: step {job.step} is done, and the training is to have {job.total_steps}")
    report.say(f"goes on after step {job.step} of {job.total_steps}")
    tracker.tags({"xp.resumed": str(job.step)})


def _fit(run: Run, job: Job, writer: Writer | None, report: Report) -> None:
    """Train to the end, or to where a signal asked for it; every checkpoint is on disk then."""
    with report, interrupt.patience():
        try:
            if not job.done:
                run.backend.fit(job)
        finally:
            if writer is not None:
                writer.close()
    if interrupt.asked():
        interrupt.leave(interrupt.asked())
    world.gather(None)  # The best weights are on disk once rank 0 is here.


def _best(job: Job, loaded: Loaded, kept: Path, report: Report) -> dict[str, float]:
    """The weights of the best evaluation, taken up again, and their scores."""
    from xp.state import take_weights

    if job.best is None or job.evaluated_step == job.best_step:  # None: no evaluation gave a finite number.
        return job.metrics
    best = checkpoint.read(checkpoint.path(kept, BEST, job.best_step))
    take_weights(loaded.network, best.tensors("weights"))
    report.say(f"kept the weights of step {job.best_step}")
    return job.evaluate()


def check_same(now: dict[str, Any], then: dict[str, Any], folder: Path) -> None:
    """Refuse to go on with other settings, or other rows, than a checkpoint was made with.

    Raises:
        UserError: what differs.
    """
    differing = changes(then["config"], now["config"])
    for side in sorted({*then["data"], *now["data"]}):
        if then["data"].get(side) != now["data"].get(side):
            differing.append(f"the {side} rows are not those that it was trained on")
    if differing:
        raise UserError(f"resume={folder}: {'; '.join(differing)}; mend it, or start a new run")


def _newest(kept: Path, report: Report) -> Checkpoint | None:
    """The checkpoint from which a run goes on, the same on every process; None where it begins."""
    step = None
    if world.rank() == 0 and (found := checkpoint.newest(kept, report.say)):
        step = found.step
    step = world.agree(step)
    return None if step is None else checkpoint.read(checkpoint.path(kept, checkpoint.STEP, step))


def _with_adapter(run: Run, loaded: Loaded, folder: Path) -> PreTrainedModel:
    """The network, its weights to train marked; an adapter's random base is saved, for it is nowhere else."""
    if run.model.name == "scratch" and run.peft.name != "none":
        base = folder / "base"
        loaded.network.name_or_path = str(base.absolute())
        if world.rank() == 0:
            loaded.network.save_pretrained(base)
            loaded.processor.save_pretrained(base)
    assert isinstance(run.task, Trainable)
    new = [] if run.model.name == "scratch" else loaded.new
    if run.task.peft_type is None and loaded.labels:  # Then peft knows of no head that is to be trained in full.
        new = sorted({*new, *head(loaded.network)})
    return run.peft.apply(loaded.network, run.task.peft_type, new)
