"""Sweep: many runs from one command, composed by Hydra's sweeper, tracked as one parent run."""

from __future__ import annotations

import json
import math
import secrets
import shutil
import sys
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from tempfile import TemporaryDirectory
from types import ModuleType
from typing import TYPE_CHECKING, Any, ClassVar

from hydra.core.global_hydra import GlobalHydra
from hydra.core.plugins import Plugins
from hydra.core.utils import JobReturn, JobStatus
from hydra.plugins.launcher import Launcher

from xp import compose, interrupt
from xp.complaint import explained
from xp.error import UserError
from xp.pool import Job, run_all, varying

if TYPE_CHECKING:
    from hydra.types import HydraContext, TaskFunction
    from omegaconf import DictConfig

    from xp.run import Run
    from xp.tracking import Tracker


class Pool(Launcher):
    """Hydra's launcher for xp: runs the jobs of a sweep, several at once where there are slots."""

    __module__ = "hydra_plugins.xp"  # Hydra takes plugins from this namespace only, also those registered in code.

    jobs: ClassVar[list[Job]] = []
    """Every job of this process's sweep, in the order they were asked for."""

    folder: ClassVar[Path]
    tracker: ClassVar[Tracker | None] = None
    config_dir: ClassVar[str | None] = None
    said: ClassVar[list[str]] = []
    """The command line; a config's ``hydra.sweeper.params`` can say more of a job, but not have code run."""

    def __init__(self, slots: int) -> None:
        if not isinstance(slots, int) or slots < 1:
            raise UserError(f"hydra.launcher.slots={slots}: it must be a whole number from 1 on")
        self.slots = slots

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Nothing to keep: jobs are composed anew."""

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        """Check every job's config, then do them all; a job that fails counts as nan and stops no other."""
        from xp.run import Run

        batch = []
        for number, overrides in enumerate(job_overrides, initial_job_idx):
            run = Run.parse(compose.values(list(overrides), Pool.config_dir, Pool.said))
            if run.command in ("show", "sync"):
                raise UserError(f"command={run.command}: it has no result that a sweep could compare; leave out -m")
            batch.append(Job(number, overrides, run))
        Pool.jobs += batch
        if Pool.tracker is None:
            Pool.tracker = _open_sweep(batch[0].run)
        run_all(batch, self.slots, Pool.folder, Pool.folder)
        return [JobReturn(overrides=job.overrides, status=JobStatus.COMPLETED, _return_value=job.objective)
                for job in batch]  # fmt: skip


def _plug_in() -> None:
    """Let Hydra find `Pool` by its name; a file in ``hydra_plugins`` would be imported at every start instead."""
    try:
        namespace = import_module("hydra_plugins")
    except ModuleNotFoundError:
        namespace = sys.modules["hydra_plugins"] = ModuleType("hydra_plugins")
    namespace.xp = sys.modules["hydra_plugins.xp"] = sys.modules[__name__]  # type: ignore[attr-defined]
    Plugins.instance().register(Pool)


def sweep(overrides: list[str], config_dir: str | None) -> int:
    """Do a sweep; 0 if all its jobs have finished, else 1.

    Raises:
        UserError: a wrong config, found before the first job starts.
    """
    Pool.config_dir, Pool.said = config_dir, overrides
    _plug_in()
    hydra = GlobalHydra.instance().hydra
    assert hydra is not None
    with explained(overrides, compose.conf_folder()):
        runs = compose.check_sweep(overrides, config_dir)
        Pool.folder = Path(runs) / f"sweep-{secrets.token_hex(3)}"
        status, error = "KILLED", ""
        # Sweepers write to this folder before any job is checked; what they wrote is kept once there is a sweep.
        with interrupt.listening(), TemporaryDirectory() as notes:
            try:
                arguments = ["hydra.mode=MULTIRUN", f"hydra.sweep.dir={notes}", *compose.checked(overrides, config_dir)]
                hydra.multirun("config", lambda config: None, arguments, with_log_configuration=False)
                status = "FINISHED" if all(job.status == "finished" for job in Pool.jobs) else "FAILED"
            except Exception as failure:
                status, error = "FAILED", str(failure)
                raise
            finally:
                if Pool.tracker is not None:
                    shutil.copytree(notes, Pool.folder, dirs_exist_ok=True)
                    _close_sweep(Pool.tracker, Pool.jobs, status, error)
    return 0 if status == "FINISHED" else 1


def _open_sweep(run: Run) -> Tracker:
    """The parent run; it makes the store's tables and the experiment, so that jobs do not race for it."""
    from xp.hardware import source
    from xp.tracking import Tracker

    Pool.folder.mkdir(parents=True, exist_ok=True)
    tags = {"xp.command": "sweep", "xp.folder": str(Pool.folder)} | source()
    tracker = Tracker(run.tracking, Pool.folder, tags, None)
    tracker.opened()
    return tracker


def _close_sweep(tracker: Tracker, jobs: list[Job], status: Any, error: str) -> None:
    """The table of all jobs, the best first, on the screen and in MLflow; and the parent run's end."""
    direction = 1 if any(job.result.get("goal") == "min" for job in jobs) else -1
    ranked = sorted(jobs, key=lambda job: (math.isnan(job.objective), direction * (job.objective if job.result else 0)))
    rows = [
        {"overrides": " ".join(job.overrides), "status": job.status, "error": job.error} | job.result for job in ranked
    ]
    file = Pool.folder / "sweep.json"
    file.write_text(json.dumps(rows, indent=2, default=str) + "\n")
    tracker.artifact(file)
    best = next((job for job in ranked if job.result), None)
    if best:
        tracker.log({"best/objective": best.objective}, 0)
        tracker.tags({"xp.best": best.result["run_id"] or best.result["run"]})
    tracker.params({"jobs": len(jobs), "overrides": " | ".join(" ".join(job.overrides) for job in jobs)})
    tracker.close(status, "; ".join([error] * bool(error) + [job.error for job in jobs if job.error]))
    _print_table(ranked, tracker)


def _print_table(ranked: list[Job], tracker: Tracker) -> None:
    from rich.console import Console
    from rich.table import Table

    keys = varying(ranked)
    metric = next((job.result["metric"] for job in ranked if job.result), "objective")
    table = Table(
        *keys, title=f"{tracker.folder.name}, MLflow run {tracker.run_id or 'not there yet'}", title_justify="left"
    )
    for name in (metric, "seconds"):
        table.add_column(name, justify="right")
    for name in ("weights", "run"):
        table.add_column(name)
    for job in ranked:
        cells = [job.value(key) for key in keys]
        if job.result:
            digest = str(job.result.get("digest", ""))[:8]
            cells += [f"{job.objective:.4f}", f"{job.result['seconds']:.1f}", digest, job.result["run"]]
        else:
            cells += [job.status, "", "", str(tracker.folder / f"{job.number}.log")]
        table.add_row(*cells)
    Console(highlight=False, width=None if sys.stdout.isatty() else 160).print(table)
