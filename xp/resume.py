"""Resume: a run that was begun, found again and gone on with."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from xp import consent
from xp.component import Settings
from xp.config import compose
from xp.config.frozen import changed, completed
from xp.config.naming import CHOICE
from xp.error import UserError, nearest
from xp.process import lock, world
from xp.run import Run, changes
from xp.saving import checkpoint
from xp.tracking import finished, identified


def resumed(where: str, overrides: list[str], config_dir: str | None) -> tuple[Run, Path]:
    """The run to go on with, and its folder; nothing is changed there before the run has begun.

    Args:
        where: the run's folder, its MLflow id, or ``last``.
        overrides: as on the command line; most settings are as they were.
        config_dir: one more folder of configs.

    Raises:
        UserError: no such run, it has ended, or a setting would change what it trains.
    """
    here = compose.values([each for each in overrides if each.startswith(("runs_folder=", "tracking."))], config_dir)
    folder = _find(where, Path(str(here["runs_folder"])))
    consent.check_links(folder, f"resume={where}")
    if world.rank() == 0:  # The others take what it finds, and may look when it has begun already.
        lock.check(folder)
    frozen = _frozen(where, folder, config_dir)
    if frozen.get("command") != "train":
        raise UserError(f"resume={where}: {folder} is of command={frozen.get('command')}; only a training goes on")
    if frozen["imports"] and "imports" not in consent.keys(overrides):
        given = ",".join(map(str, frozen["imports"]))
        raise UserError(f"resume={where}: it needs imports=[{given}], which only the command line can say")
    consent.check_frozen(frozen, here, overrides, folder)
    values = changed(frozen, overrides, config_dir)
    differing = changes(frozen, values)
    if differing:
        raise UserError(f"resume={where}: {'; '.join(differing)}: this would be another run; start it as one")
    run = Run.parse(values)
    for key in ("epochs", "max_steps"):
        new, old = values["training"][key], frozen["training"].get(key)
        if not isinstance(old, (int, float, type(None))):
            raise UserError(f"resume={where}: training.{key}={old} in its run.yaml is no number")
        if new is not None and old is not None and new < old:
            raise UserError(f"resume={where}: training.{key}={new} (was {old}): a run can become longer, not shorter")
    longer = any(values["training"][key] != frozen["training"][key] for key in ("epochs", "max_steps"))
    if (folder / "result.json").exists() and finished(folder) and not longer:
        raise UserError(
            f"resume={where}: {folder} has ended; its model is {folder / 'model'}. "
            "To train it longer, give training.epochs or training.max_steps"
        )
    if not checkpoint.steps(folder / checkpoint.FOLDER, checkpoint.STEP) and world.rank() == 0:
        print(f"{folder} has no checkpoint yet; it begins at its first step", flush=True)
    return run, folder


def _frozen(where: str, folder: Path, config_dir: str | None) -> dict[str, Any]:
    """The settings in a run's folder, those along with them that came later; they may be from anybody.

    Raises:
        UserError: they are none.
    """
    try:
        values = json.loads((folder / "run.yaml").read_text())
        if odd := next((each for each in values["choices"].values() if not CHOICE.fullmatch(str(each))), None):
            raise ValueError(f"choices: {odd} is no name of a choice")
        added = completed(values, config_dir)
        groups = [name for name, field in Run.model_fields.items() if isinstance(field.annotation, type)
                  and issubclass(field.annotation, Settings)]  # fmt: skip
        if not all(isinstance(values[group], dict) for group in ("choices", *groups)):
            raise TypeError("a group of settings is none")
        if not isinstance(values["imports"], list):
            raise TypeError("imports are no list")
    except (OSError, ValueError, RecursionError, KeyError, TypeError, AttributeError) as error:
        said = " ".join(str(error).split())[:200]
        raise UserError(f"resume={where}: {folder / 'run.yaml'} does not hold the settings of a run: {said}") from error
    for line in added if world.rank() == 0 else ():
        print(f"{line}: there was no such setting when this run began", flush=True)
    return dict(values)


def _find(where: str, runs: Path) -> Path:
    known = [file.parent for file in runs.glob("*/run.yaml")]
    if where == "last":
        if not known:
            raise UserError(f"resume=last: there is no run in {runs}")
        return max(known, key=lambda folder: (folder / "run.yaml").stat().st_mtime)
    if (Path(where) / "run.yaml").is_file():
        return Path(where)
    for folder in known:
        if identified(folder).get("run_id") == where:
            return folder
    names = [str(folder) for folder in known]
    raise UserError(
        f"resume={where}: no folder of a run, and no run in {runs} has this MLflow id."
        + (nearest(where, names) if names else "")
    )
