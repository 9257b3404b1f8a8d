"""Sweep: many runs from one command, each in a process forked from one that has imported the libraries already."""

from __future__ import annotations

import json
import math
import os
import secrets
import sys
import time
import traceback
from collections import deque
from collections.abc import Sequence
from multiprocessing import get_context
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from hydra.core.global_hydra import GlobalHydra
from hydra.core.plugins import Plugins
from hydra.core.utils import JobReturn, JobStatus
from hydra.plugins.launcher import Launcher

from xp import compose
from xp.error import UserError

if TYPE_CHECKING:
    from multiprocessing.process import BaseProcess

    from hydra.types import HydraContext, TaskFunction
    from omegaconf import DictConfig

    from xp.run import Run
    from xp.tracking import Tracker

PRELOAD = ["torch", "transformers", "datasets", "mlflow", "sklearn.metrics", "xp.commands", "xp.prepare", "xp.report"]
PRELOAD_FOR = {"hf": ["transformers.trainer"], "accelerate": ["accelerate"], "lora": ["peft"]}
"""Imported once, before the first job is forked; the second only where a job's backend or adapter needs it."""


class Job:
    """One run of a sweep: what was asked of it and what has become of it."""

    def __init__(self, number: int, overrides: Sequence[str], run: Run) -> None:
        self.number, self.overrides, self.run = number, list(overrides), run
        self.status, self.error = "waiting", ""
        self.result: dict[str, Any] = {}
        self.process: BaseProcess | None = None
        self.answer: Connection | None = None
        self.slot = 0

    @property
    def objective(self) -> float:
        """What sweepers read; nan where the job has none."""
        value = self.result.get("objective")
        return math.nan if value is None else float(value)


class Pool(Launcher):
    """Hydra's launcher for xp: runs the jobs of a sweep, several at once where there are slots."""

    __module__ = "hydra_plugins.xp"  # Hydra takes plugins from this namespace only, also those registered in code.

    jobs: ClassVar[list[Job]] = []
    """Every job of this process's sweep, in the order they were asked for."""

    folder: ClassVar[Path]
    tracker: ClassVar[Tracker | None] = None
    config_dir: ClassVar[str | None] = None

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
            run = Run.parse(compose.values(list(overrides), Pool.config_dir))
            batch.append(Job(number, overrides, run))
        Pool.jobs += batch
        if Pool.tracker is None:
            Pool.tracker = _open_sweep(batch[0].run)
        _run_all(batch, self.slots, Pool.folder, Pool.tracker.opened())
        return [JobReturn(overrides=job.overrides, status=JobStatus.COMPLETED, _return_value=job.objective)
                for job in batch]  # fmt: skip


def sweep(overrides: list[str], config_dir: str | None) -> int:
    """Do a sweep; 0 if all its jobs have finished, else 1.

    Raises:
        UserError: a wrong config, found before the first job starts.
    """
    Pool.config_dir = config_dir
    Plugins.instance().register(Pool)
    hydra = GlobalHydra.instance().hydra
    assert hydra is not None
    with compose.explained(overrides):
        runs = compose.check_sweep(overrides, config_dir)
        Pool.folder = Path(runs) / f"sweep-{secrets.token_hex(3)}"
        where = [] if any("hydra.sweep.dir=" in each for each in overrides) else [f"hydra.sweep.dir={Pool.folder}"]
        search = [f"hydra.searchpath=[file://{Path(config_dir).absolute()}]"] if config_dir else []
        arguments = ["hydra.mode=MULTIRUN", *where, *search, *overrides]
        status = "KILLED"
        try:
            hydra.multirun("config", lambda config: None, arguments, with_log_configuration=False)
            status = "FINISHED" if all(job.status == "finished" for job in Pool.jobs) else "FAILED"
        finally:
            _close_sweep(Pool.jobs, status)
    return 0 if status == "FINISHED" else 1


def _open_sweep(run: Run) -> Tracker:
    """The parent run; it makes the store's tables and the experiment, so that jobs do not race for it."""
    from xp.tracking import Tracker

    Pool.folder.mkdir(parents=True, exist_ok=True)
    tracker = Tracker(run.tracking, Pool.folder, {"xp.command": "sweep", "xp.folder": str(Pool.folder)}, None)
    tracker.opened()
    return tracker


def _run_all(jobs: list[Job], slots: int, folder: Path, parent: str) -> None:
    context = get_context("forkserver")
    choices = {choice for job in jobs for choice in (job.run.backend.name, job.run.peft.name)}
    context.set_forkserver_preload(PRELOAD + [name for choice in sorted(choices) for name in PRELOAD_FOR.get(choice, [])])
    waiting, running, free = deque(jobs), list[Job](), list(range(slots))
    threads = max(1, (os.cpu_count() or 1) // slots)
    try:
        while waiting or running:
            while waiting and free:
                job = waiting.popleft()
                job.slot = free.pop(0)
                ours, theirs = context.Pipe(duplex=False)
                log = folder / f"{job.number}.log"
                arguments = (job.run.values(), parent, theirs, log, job.slot if slots > 1 else None, threads)
                job.process, job.answer = context.Process(target=_do, args=arguments), ours
                job.process.start()
                theirs.close()
                job.status = "running"
                running.append(job)
            wait([job.process.sentinel for job in running if job.process])
            for job in [job for job in running if job.process and not job.process.is_alive()]:
                _collect(job)
                running.remove(job)
                free.append(job.slot)
                done = sum(each.status in ("finished", "failed") for each in jobs)
                what = " ".join(job.overrides)
                value = job.error if job.status == "failed" else f"{job.result['metric']} {job.objective:.4f}"
                print(f"[{done}/{len(jobs)}] {what}: {value}  ({folder / f'{job.number}.log'})", flush=True)
    finally:
        for job in running:
            assert job.process is not None
            job.process.terminate()
            job.process.join()
            job.status = "killed"


def _collect(job: Job) -> None:
    """Take in what a job that has ended has sent, if it came to that."""
    assert job.process is not None
    assert job.answer is not None
    job.process.join()
    job.status = "failed"
    try:
        kind, content = job.answer.recv() if job.answer.poll() else ("", "")
    except EOFError:
        kind, content = "", ""
    if kind == "result":
        job.status, job.result = "finished", content
    else:
        job.error = content or f"its process ended with code {job.process.exitcode}"
    job.answer.close()


def _do(values: dict[str, Any], parent: str, answer: Connection, log: Path, slot: int | None, threads: int) -> None:
    """A job, in its own process: what it prints goes to its log."""
    from xp.launch import start
    from xp.run import Run

    with log.open("w") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    import torch

    if slot is not None:
        torch.set_num_threads(threads)
        os.environ["OMP_NUM_THREADS"] = str(threads)
        if gpus := torch.cuda.device_count():
            os.environ["CUDA_VISIBLE_DEVICES"] = str(slot % gpus)
    try:
        answer.send(("result", start(Run.parse(values), parent)))
    except UserError as error:
        print(f"xp: {error}", file=sys.stderr)
        answer.send(("refused", str(error)))
    except Exception as error:
        traceback.print_exc()
        answer.send(("failed", f"{type(error).__name__}: {str(error).strip().splitlines()[0] if str(error) else ''}"))


def _close_sweep(jobs: list[Job], status: Any) -> None:
    """The table of all jobs, the best first, on the screen and in MLflow; and the parent run's end."""
    tracker = Pool.tracker
    if tracker is None:
        return
    direction = 1 if any(job.result.get("goal") == "min" for job in jobs) else -1
    ranked = sorted(jobs, key=lambda job: (math.isnan(job.objective), direction * (job.objective if job.result else 0)))
    rows = [{"overrides": " ".join(job.overrides), "status": job.status, "error": job.error} | job.result for job in ranked]
    file = Pool.folder / "sweep.json"
    file.write_text(json.dumps(rows, indent=2, default=str) + "\n")
    tracker.artifact(file)
    best = next((job for job in ranked if job.result), None)
    if best:
        tracker.log({"best/objective": best.objective}, 0)
        tracker.tags({"xp.best": best.result["run_id"]})
    tracker.params({"jobs": len(jobs), "overrides": " | ".join(" ".join(job.overrides) for job in jobs)})
    tracker.close(status, "; ".join(job.error for job in jobs if job.error))
    _print_table(ranked, tracker)


def _print_table(ranked: list[Job], tracker: Tracker) -> None:
    from rich.console import Console
    from rich.table import Table

    keys = [override.partition("=")[0] for override in ranked[0].overrides]
    varying = [key for key in keys if len({_value(job, key) for job in ranked}) > 1] or keys
    metric = next((job.result["metric"] for job in ranked if job.result), "objective")
    table = Table(*varying, title=f"{tracker.folder.name}, MLflow run {tracker.run_id}", title_justify="left")
    for name in (metric, "seconds"):
        table.add_column(name, justify="right")
    for name in ("weights", "run"):
        table.add_column(name)
    for job in ranked:
        cells = [_value(job, key) for key in varying]
        if job.result:
            digest = str(job.result.get("digest", ""))[:8]
            cells += [f"{job.objective:.4f}", f"{job.result['seconds']:.1f}", digest, job.result["run"]]
        else:
            cells += [job.status, "", "", str(tracker.folder / f"{job.number}.log")]
        table.add_row(*cells)
    Console(highlight=False, width=None if sys.stdout.isatty() else 160).print(table)


def _value(job: Job, key: str) -> str:
    return next((each.partition("=")[2] for each in job.overrides if each.partition("=")[0] == key), "")
