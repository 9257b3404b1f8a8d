"""Train, evaluate and save a model."""

from __future__ import annotations

import time
from collections import deque
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from xp.commands.adapting import Adapting
from xp.commands.card import write_card
from xp.commands.closing import save_model, scores, show_findings
from xp.commands.going_on import begin, check_same, go_on, newest
from xp.commands.opening import (
    choose_machine,
    describe_data,
    describe_model,
    describe_stream,
    encode_both,
    label_names,
    places,
    read,
    sample,
    telling,
)
from xp.hardware import autocast
from xp.peft import count
from xp.process import interrupt, world
from xp.report import Report
from xp.run import Run
from xp.saving import checkpoint
from xp.saving.checkpoint import BEST
from xp.saving.writer import Writer
from xp.tracking import Tracker

if TYPE_CHECKING:
    from xp.evaluation import Evaluation
    from xp.model import Loaded
    from xp.training.job import Job


def train(run: Run, folder: Path, tracker: Tracker, report: Report) -> dict[str, Any]:
    """Train, evaluate and save a model.

    Returns:
        What goes to ``result.json``: ``objective``, ``metrics``, ``baseline``, sizes, times and places.
    """
    from xp.prepare import check_fit, prepare

    started = time.perf_counter()
    kept = folder / checkpoint.FOLDER
    found = newest(kept, report)
    device, precision = choose_machine(run, tracker, report, None if found is None else found.state["precision"])
    adapting = Adapting(run, report)
    task, splits, preparation = read(run, report, True, tracker)
    assert splits.train is not None
    labels = label_names(run, task, splits)
    splits = preparation.with_known_labels(splits, labels)
    describe_data(run, splits, tracker, report)
    about = {"config": run.values(), "data": splits.fingerprints, "precision": precision}
    if found is not None:
        check_same(about, found.state, folder)

    loaded = adapting.load(task, precision, labels, sample(run, preparation, splits))
    describe_model(loaded, tracker, report)
    check_fit(task, loaded)
    encoded, held_out = encode_both(run, preparation, splits, loaded, tracker, report)
    total = run.training.total_steps(len(encoded.rows))
    loaded.network = adapting.adapted(task, loaded, encoded, folder, total, precision).to(device)
    trained, weights = count(loaded.network)
    report.model(run, loaded, trained, weights)

    def log(metrics: dict[str, float], step: int) -> None:
        tracker.log(metrics, step)
        report.point(metrics, step)

    tracker.opened()
    lengths = begin(run, folder, total, found, tracker, report)
    report.start(total)
    latest: deque[Evaluation] = deque(maxlen=1)
    cached = {name: value for name, value in vars(loaded.network.config).items() if name == "use_cache"}
    done = 0 if found is None else found.step
    writer = Writer(kept, run.training.save_total, done) if world.rank() == 0 else None
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
        tell=telling(tracker, report),
        found=latest.append,
        places=partial(places, task, splits, loaded, encoded),
    )
    go_on(job, found, lengths, tracker, report)
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
    digest = _save(run, loaded, folder)
    show_findings(task, latest[0], loaded, held_out, folder, tracker)
    result = scores(task, job.metric, metrics, loaded, held_out) | {"trainable": trained, "weights": weights}
    if world.rank() == 0:
        write_card(run, loaded, folder / "model", f"Of its {weights:,} weights {trained:,} were trained.", result)
    return result | {
        "digest": digest,
        "training_seconds": seconds,
        "seconds": time.perf_counter() - started,
        "model": str(folder / "model"),
    }


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


def _save(run: Run, loaded: Loaded, folder: Path) -> str:
    """Save the model, and keep one checkpoint, from which the run can be extended; gives the weights' digest."""
    if world.rank() != 0:
        return ""
    digest = save_model(run, loaded, folder / "model")
    checkpoint.prune(folder / checkpoint.FOLDER, 1 if run.training.save_total else 0)
    return digest


def _best(job: Job, loaded: Loaded, kept: Path, report: Report) -> dict[str, float]:
    """The weights of the best evaluation, taken up again, and their scores."""
    from xp.saving.state import take_weights

    if job.best is None or job.evaluated_step == job.best_step:  # None: no evaluation gave a finite number.
        return job.metrics
    best = checkpoint.read(checkpoint.path(kept, BEST, job.best_step))
    take_weights(loaded.network, best.tensors("weights"))
    report.say(f"kept the weights of step {job.best_step}")
    return job.evaluate()
