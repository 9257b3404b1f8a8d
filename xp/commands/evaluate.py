"""Evaluate a trained model."""

from __future__ import annotations

import time
from functools import partial
from pathlib import Path
from typing import Any

from xp.commands.closing import scores, show_findings
from xp.commands.opening import choose_machine, describe_data, describe_model, encode, load, read, telling
from xp.hardware import autocast
from xp.model.placement import place
from xp.report import Report
from xp.run import Run
from xp.tracking import Tracker
from xp.training.memory import Portions


def evaluate(run: Run, folder: Path, tracker: Tracker, report: Report) -> dict[str, Any]:
    """Evaluate a trained model.

    Returns:
        What goes to ``result.json``: ``objective``, ``metrics``, ``baseline`` and times.
    """
    from xp import evaluation
    from xp.prepare import check_fit

    started = time.perf_counter()
    device, precision = choose_machine(run, tracker, report)
    task, splits, preparation = read(run, report, False, tracker)
    loaded = load(run, task, precision, [], None, report)
    describe_model(loaded, tracker, report)
    check_fit(task, loaded)
    splits = preparation.with_known_labels(splits, loaded.labels)
    describe_data(run, splits, tracker, report)
    held_out = encode(preparation, "eval", splits, loaded, tracker, report)
    tracker.opened()
    auto = run.training.micro_batch_size == "auto"
    portions = Portions(auto, None, run.training.evaluation_batch_size, telling(tracker, report))
    evaluated = evaluation.evaluate(
        task,
        place(loaded.network, device),
        held_out.rows,
        loaded.labels,
        loaded.processor,
        run.generation,
        portions,
        device,
        partial(autocast, precision, device),
    )
    tracker.log({f"eval/{name}": value for name, value in evaluated.scores.items()}, 0)
    show_findings(task, evaluated, loaded, held_out, folder, tracker)
    metric = run.training.metric or task.scores[0]
    found = scores(task, metric, evaluated.scores, loaded, held_out)
    return found | {"seconds": time.perf_counter() - started}
