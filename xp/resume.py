"""Resume: a run that was begun, found again and gone on with."""

from __future__ import annotations

import json
import os
import socket
from pathlib import Path

from xp import checkpoint, compose
from xp.error import UserError, nearest
from xp.frozen import changed
from xp.run import Run, changes
from xp.tracking import identified, lives


def resumed(where: str, overrides: list[str], config_dir: str | None) -> tuple[Run, Path]:
    """The run to go on with, its new settings frozen, and its folder.

    Args:
        where: the run's folder, its MLflow id, or ``last``.
        overrides: as on the command line; most settings are as they were.
        config_dir: one more folder of configs.

    Raises:
        UserError: no such run, it has ended, or a setting would change what it trains.
    """
    runs = Path(str(compose.values([each for each in overrides if each.startswith("runs_folder=")])["runs_folder"]))
    folder = _find(where, runs)
    about = identified(folder)
    if about and about["host"] == socket.gethostname() and about["process"] != os.getpid() and lives(about):
        raise UserError(f"resume={where}: {folder} is still running, as process {about['process']}")
    frozen = json.loads((folder / "run.yaml").read_text())
    if frozen.get("command") != "train":
        raise UserError(f"resume={where}: {folder} is of command={frozen.get('command')}; only a training goes on")
    values = changed(frozen, overrides, config_dir)
    if frozen["imports"] and not any(each.startswith("imports=") for each in overrides):
        given = ",".join(frozen["imports"])
        raise UserError(f"resume={where}: it needs imports=[{given}], which only the command line can say")
    differing = changes(frozen, values)
    if differing:
        raise UserError(f"resume={where}: {'; '.join(differing)}: this would be another run; start it as one")
    run = Run.parse(values)
    for key in ("epochs", "max_steps"):
        new, old = values["training"][key], frozen["training"][key]
        if new is not None and old is not None and new < old:
            raise UserError(f"resume={where}: training.{key}={new} (was {old}): a run can become longer, not shorter")
    longer = any(values["training"][key] != frozen["training"][key] for key in ("epochs", "max_steps"))
    result = folder / "result.json"
    if result.exists() and not longer:
        raise UserError(
            f"resume={where}: {folder} has ended; its model is {folder / 'model'}. "
            "To train it longer, give training.epochs or training.max_steps"
        )
    if not checkpoint.steps(folder / checkpoint.FOLDER, checkpoint.STEP):
        print(f"{folder} has no checkpoint yet; it begins at its first step", flush=True)
    result.unlink(missing_ok=True)  # It has not ended any more; MLflow has what it said.
    part = folder / "run.yaml.part"
    run.write(part)
    os.replace(part, folder / "run.yaml")
    return run, folder


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
