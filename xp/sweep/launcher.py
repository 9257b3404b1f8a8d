"""Sweep: many runs from one command, composed by Hydra's sweeper, tracked as one parent run."""

from __future__ import annotations

import hashlib
import json
import sys
from collections import Counter
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from tempfile import TemporaryDirectory
from types import ModuleType
from typing import TYPE_CHECKING, Any, ClassVar

from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.plugins import Plugins
from hydra.core.utils import JobReturn, JobStatus
from hydra.plugins.launcher import Launcher
from hydra.plugins.sweeper import Sweeper
from omegaconf import OmegaConf

from xp.config import compose
from xp.config.complaint import explained
from xp.config.grid import Composer
from xp.error import UserError
from xp.process import interrupt
from xp.run import Run
from xp.sweep import forked
from xp.sweep.parent import Parent, Status
from xp.sweep.pool import Job, Pool

if TYPE_CHECKING:
    from hydra.types import HydraContext, TaskFunction
    from omegaconf import DictConfig


ELSEWHERE = ("sweep", "tracking", "runs_folder", "cache")
"""Settings that leave a sweep the one that it is."""


class Jobs:
    """The jobs of this process's sweep, in the order they were asked for."""

    def __init__(self, composer: Composer, parent: Parent) -> None:
        self.composer, self.parent = composer, parent
        self.all: list[Job] = []
        self._checked: dict[tuple[str, ...], Run] = {}

    def check(self, batch: Sequence[Sequence[str]], first: int) -> list[Run]:
        """The runs that these overrides ask for.

        Args:
            batch: the overrides of each job.
            first: number of the first of them.

        Raises:
            UserError: the first thing wrong with one of them, and with which.
        """
        for number, overrides in enumerate(batch):
            if tuple(overrides) not in self._checked:
                try:
                    self._checked[tuple(overrides)] = self._run(overrides)
                except UserError as error:
                    raise UserError(f"{self._name(batch, number, first, str(error))}{error}") from error
        return [self._checked[tuple(overrides)] for overrides in batch]

    def _run(self, overrides: Sequence[str]) -> Run:
        run = Run.parse(self.composer.values(overrides))
        if run.command in ("show", "tasks", "chat", "merge", "diff", "sync"):
            raise UserError(f"command={run.command}: it has no result that a sweep could compare; leave out -m")
        run.check_files()
        return run

    def _name(self, batch: Sequence[Sequence[str]], number: int, first: int, error: str) -> str:
        """Which job is wrong; not where the last one is wrong in the same way, for then they all are."""
        if number == 0:
            try:
                self._run(batch[-1])
            except UserError as other:
                if str(other) == error:
                    return ""
        differing = [text for text in batch[number] if any(text not in other for other in batch)]
        return f"job {first + number} of {first + len(batch)} ({' '.join(differing)}): "


class Slots(Launcher):
    """Hydra's launcher for xp, ``hydra/launcher=pool``: runs the jobs of a sweep, several at once where it may."""

    __module__ = "hydra_plugins.xp"  # Hydra takes plugins from this namespace only, also those registered in code.

    jobs: ClassVar[Jobs]

    def __init__(self, slots: int) -> None:
        if not isinstance(slots, int) or slots < 1:
            raise UserError(f"hydra.launcher.slots={slots}: it must be a whole number from 1 on")
        self.slots = slots

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Nothing to keep: jobs are composed anew."""

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        """Check every job's config, then do them all; a job that fails counts as nan and stops no other."""
        jobs, parent = Slots.jobs, Slots.jobs.parent
        runs = jobs.check(job_overrides, initial_job_idx)
        batch = [Job(*each) for each in zip(range(initial_job_idx, 10**9), job_overrides, runs, strict=False)]
        jobs.all += batch
        pool = Pool(self.slots, parent.folder, jobs.all)
        for job in batch:
            job.settle()
            if job.ended:
                pool.tell(job)
        if rest := [job for job in batch if not job.ended]:
            earlier = Counter(job.how or "new" for job in rest)
            plan = ", ".join(f"{number} {how}" for how, number in sorted(earlier.items()))
            helps = "; another process is at this sweep, and this one helps" if parent.helps else ""
            print(f"{parent.folder}: {plan}, {self.slots} at a time{helps}", flush=True)
            forked.warm(job.run for job in rest)
            parent.open(rest[0].run)
            pool.run()
        return [JobReturn(overrides=job.overrides, status=JobStatus.COMPLETED, _return_value=job.objective)
                for job in batch]  # fmt: skip


class Grid(Sweeper):
    """Hydra's grid of comma-separated values; all jobs of all batches are checked before the first one starts."""

    __module__ = "hydra_plugins.xp"

    launcher: Launcher

    def __init__(self, max_batch_size: int | None, params: dict[str, str] | None) -> None:
        if max_batch_size is not None and (not isinstance(max_batch_size, int) or max_batch_size < 1):
            rule = "it must be a whole number from 1 on, or null"
            raise UserError(f"hydra.sweeper.max_batch_size={max_batch_size}: {rule}")
        self.max_batch_size, self.params = max_batch_size, params or {}

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Take the launcher that the config names."""
        self.hydra_context, self.config = hydra_context, config
        self.launcher = Plugins.instance().instantiate_launcher(hydra_context, task_function, config)

    def sweep(self, arguments: list[str]) -> Any:
        """Check all jobs, and do them batch by batch."""
        from hydra._internal.core_plugins.basic_sweeper import BasicSweeper

        assert self.hydra_context is not None
        parser = OverridesParser.create(config_loader=self.hydra_context.config_loader)
        asked = parser.parse_overrides([*(f"{key}={value}" for key, value in self.params.items()), *arguments])
        (everything,) = BasicSweeper.split_arguments(asked, None)
        Slots.jobs.check(everything, 0)
        size = self.max_batch_size or len(everything)
        return [self.launcher.launch(everything[at : at + size], at) for at in range(0, len(everything), size)]


def _plug_in() -> None:
    """Let Hydra find these by name; a file in ``hydra_plugins`` would be imported at every start instead."""
    try:
        namespace = import_module("hydra_plugins")
    except ModuleNotFoundError:
        namespace = sys.modules["hydra_plugins"] = ModuleType("hydra_plugins")
    namespace.xp = sys.modules["hydra_plugins.xp"] = sys.modules[__name__]  # type: ignore[attr-defined]
    for plugin in (Slots, Grid):
        Plugins.instance().register(plugin)


def sweep(overrides: list[str], config_dir: str | None) -> int:
    """Do a sweep, or what is left to do of it; 0 if all its jobs have finished, else 1.

    Raises:
        UserError: a wrong config, found before the first job starts.
    """
    _plug_in()
    hydra = GlobalHydra.instance().hydra
    assert hydra is not None
    with explained(overrides, compose.conf_folder()):
        config = compose.check_sweep(overrides, config_dir)
        parent = Parent(Path(str(config.runs_folder)), _digest(config, overrides), anew=config.sweep.skip is False)
        Slots.jobs = jobs = Jobs(Composer(config_dir, overrides), parent)
        status: Status = "KILLED"
        error = ""
        # Sweepers write to this folder before any job is checked; what they wrote is kept once there is a sweep.
        with interrupt.listening(), TemporaryDirectory() as notes:
            try:
                arguments = ["hydra.mode=MULTIRUN", f"hydra.sweep.dir={notes}", *compose.checked(overrides, config_dir)]
                hydra.multirun("config", lambda config: None, arguments, with_log_configuration=False)
                status = "FINISHED" if all(job.status == "finished" for job in jobs.all) else "FAILED"
            except Exception as failure:
                status, error = "FAILED", str(failure)
                raise
            finally:
                if jobs.all:
                    parent.close(jobs.all, status, error, Path(notes))
    return 0 if status == "FINISHED" else 1


def _digest(config: DictConfig, overrides: Sequence[str]) -> str:
    """SHA-256 of what makes it this sweep: its overrides and its yamls, but for how and where its jobs run."""
    settings: Any = OmegaConf.to_container(config, resolve=False)
    own = {key: value for key, value in settings.items() if key not in (*ELSEWHERE, "hydra")}
    asked = [each for each in overrides if not each.startswith((*ELSEWHERE, "hydra.launcher", "hydra/launcher"))]
    return hashlib.sha256(json.dumps([own, asked], sort_keys=True).encode()).hexdigest()
