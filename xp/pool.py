"""The pool that runs a sweep's jobs, each in a process forked from one that has imported the libraries already."""

from __future__ import annotations

import math
import os
import sys
import traceback
from collections import deque
from collections.abc import Sequence
from multiprocessing import get_context
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import TYPE_CHECKING, Any

from xp.error import UserError
from xp.secret import redacted

if TYPE_CHECKING:
    from multiprocessing.process import BaseProcess

    from xp.run import Run

PRELOAD = [
    "torch",
    "transformers",
    "datasets",
    "mlflow",
    "xp.metric.base",
    "sklearn.metrics",
    "xp.commands",
    "xp.prepare",
    "xp.report",
]
PRELOAD_FOR = {"hf": ["transformers.trainer"], "accelerate": ["accelerate"], "lora": ["peft"]}
"""Imported once, before the first job is forked; the second only where a job's backend or adapter needs it."""


class Job:
    """One run of a sweep: what was asked of it and what has become of it."""

    def __init__(self, number: int, overrides: Sequence[str], run: Run) -> None:
        self.number, self.run = number, run
        self.overrides = [override.lstrip("+") for override in overrides]
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

    def value(self, key: str) -> str:
        """What this job was given for ``key``."""
        return next((each.partition("=")[2] for each in self.overrides if each.partition("=")[0] == key), "")


def varying(jobs: Sequence[Job]) -> list[str]:
    """The keys in which the jobs of a sweep differ; all their keys if there is just one job."""
    keys = [override.partition("=")[0] for override in jobs[0].overrides]
    return [key for key in keys if len({job.value(key) for job in jobs}) > 1] or keys


def run_all(jobs: list[Job], slots: int, folder: Path, parent: Path) -> None:
    """Do the jobs, ``slots`` at a time, and keep in each what has become of it.

    Args:
        jobs: what to do; their ``status``, ``result`` and ``error`` are filled in.
        slots: how many run at once, each with its share of the CPU's threads or a GPU.
        folder: gets a log for each job.
        parent: folder of the sweep.
    """
    context = get_context("forkserver")
    choices = {choice for job in jobs for choice in (job.run.backend.name, job.run.peft.name)}
    context.set_forkserver_preload(
        PRELOAD + [name for choice in sorted(choices) for name in PRELOAD_FOR.get(choice, [])]
    )
    waiting, running, free = deque(jobs), list[Job](), list(range(slots))
    keys = varying(jobs)
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
                what = " ".join(f"{key}={job.value(key)}" for key in keys)
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
        kind, content = job.answer.recv()
    except EOFError:
        kind, content = "", None
    if kind == "result":
        job.status, job.result = "finished", content
    else:
        job.error = content or f"its process ended with code {job.process.exitcode}"
    job.answer.close()


def _do(values: dict[str, Any], parent: Path, answer: Connection, log: Path, slot: int | None, threads: int) -> None:
    """A job, in its own process: what it prints goes to its log."""
    from xp.launch import start
    from xp.run import Run

    os.setpgid(0, 0)  # Ctrl-C comes from the sweep alone, and once.
    with log.open("w") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    import torch

    if slot is not None:
        torch.set_num_threads(threads)
        os.environ["OMP_NUM_THREADS"] = os.environ["XP_CORES"] = str(threads)
        if gpus := torch.cuda.device_count():
            visible = os.environ.get("CUDA_VISIBLE_DEVICES", ",".join(map(str, range(gpus)))).split(",")
            os.environ["CUDA_VISIBLE_DEVICES"] = visible[slot % len(visible)]
    try:
        answer.send(("result", start(Run.parse(values), parent)))
    except UserError as error:
        print(f"xp: {error}", file=sys.stderr)
        answer.send(("refused", str(error)))
    except Exception as error:
        print(redacted(traceback.format_exc()), end="", file=sys.stderr)
        said = str(error).strip().splitlines()[0] if str(error) else ""
        answer.send(("failed", redacted(f"{type(error).__name__}: {said}")))
