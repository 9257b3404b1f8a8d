"""Rerun: a tracked run, done again from what MLflow holds of it."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Any

from xp import consent
from xp.comparison import Facts, Origin, differences, written
from xp.config import compose
from xp.config.frozen import changed, completed
from xp.error import UserError
from xp.run import Run
from xp.tracking import Remembered, remember

HERE = ("runs_folder", "tracking", "imports")
"""What the command line says before the run is known: where it is tracked, and code of the user's own."""


def again(where: str, overrides: list[str], config_dir: str | None, say: Callable[[str], None]) -> tuple[Run, Origin]:
    """The run to do again, and what is known of the one that it was.

    What lets it write (``runs_folder``, ``tracking.uri``, ``prediction.output``) or run code (``imports``,
    ``trust_remote_code``) is said on the command line or not at all: what MLflow holds may be from anybody.

    Args:
        where: MLflow's id of the run, its first eight digits or more, its name, its folder, or ``last``.
        overrides: as on the command line; all else is as it was.
        config_dir: one more folder of configs.
        say: told which run it is, and what will not be as it was.

    Raises:
        UserError: no such run, nothing that could be run again, or an override that does not fit.
    """
    asked = f"rerun={where}"
    given = {each.partition("=")[0].lstrip("+~") for each in overrides}
    here = Run.parse(
        compose.values(
            [each for each in overrides if each.lstrip("+~").partition("=")[0].split(".")[0] in HERE], config_dir
        )
    )
    tracked = remember(where, here.tracking, asked)
    began = time.strftime("%Y-%m-%d %H:%M", time.localtime(tracked.started / 1000))
    say(f"runs {tracked.name} ({tracked.run_id[:8]}) of {began} again, which is {tracked.status}")
    values = _settings(tracked, asked)
    _check_code(values, given, asked)
    for line in completed(values, config_dir):
        say(f"{line}: there was no such setting then")
    tracking = values["tracking"] if isinstance(values.get("tracking"), dict) else {}
    values |= {
        "runs_folder": here.runs_folder,
        "imports": here.imports,
        "tracking": tracking | {"uri": here.tracking.uri},
    }
    output = _unwritten(values, given, say)
    try:
        was = Run.parse(values)
    except UserError as error:
        raise UserError(f"{asked}: its settings cannot be run any more: {error}") from error
    run = Run.parse(changed(was.values(), overrides, config_dir)) if overrides else was
    facts = Facts.of_tracked(tracked)
    facts.take_settings(was.values())
    facts.settings |= output
    now = Facts("")
    now.take_settings(run.values())
    for key, pair in differences([facts, now]).get("settings", {}).items():
        say(f"{key}={written(pair[1])} (was {written(pair[0])})")
    if longer := tracked.tags.get("xp.extended"):
        say(f"it was made longer on its way ({longer}), and this run has that length from its beginning")
    return run, Origin(facts)


def _unwritten(values: dict[str, Any], given: set[str], say: Callable[[str], None]) -> dict[str, Any]:
    """Take out of the settings where predictions were copied to, unless it is named again; gives what it was."""
    prediction = values.get("prediction")
    if not isinstance(prediction, dict) or prediction.get("output") is None or "prediction.output" in given:
        return {}
    was = prediction["output"]
    values["prediction"] = prediction | {"output": None}
    say(f"prediction.output={json.dumps(was)} is not written again, unless it is said again")
    return {"prediction.output": was}


def _settings(tracked: Remembered, asked: str) -> dict[str, Any]:
    """What its run.yaml says, read as data and nothing else."""
    if tracked.tags.get("xp.command") == "sweep":
        best = tracked.tags.get("xp.best")
        raise UserError(
            f"{asked}: it is a sweep, and its jobs are runs of their own"
            + (f"; the best of them is rerun={best}" if best else "; run one of those again")
        )
    text = tracked.text("run.yaml")
    if text is None:
        raise UserError(f"{asked}: {tracked.name} has no run.yaml in MLflow, so nobody knows all of its settings; "
                        "xp did not make it, or it ended before that was sent")  # fmt: skip
    try:
        values = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise UserError(f"{asked}: its run.yaml does not parse: {' '.join(str(error).split())[:200]}") from error
    if not isinstance(values, dict):
        raise UserError(f"{asked}: its run.yaml holds no settings")
    return values


def _check_code(values: dict[str, Any], given: set[str], asked: str) -> None:
    """Refuse what would run code that the command line does not ask for."""
    if values.get("imports") and "imports" not in given:
        names = ",".join(map(str, values["imports"])) if isinstance(values["imports"], list) else "..."
        raise UserError(f"{asked}: it needs imports=[{names}], which only the command line can say")
    for key, value in consent.leaves(values):
        if consent.CODE.fullmatch(key) and value not in (False, None) and not given & {key, key.partition(".")[0]}:
            raise UserError(f"{asked}: it needs {key}=true, which lets {values['model'].get('path')} run its own code; "
                            "only the command line can say that")  # fmt: skip
