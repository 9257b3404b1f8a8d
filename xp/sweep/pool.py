"""The pool that runs a sweep's jobs: what each is to do, in which slot, and what has become of it."""

from __future__ import annotations

import math
import os
import signal
from collections.abc import Sequence
from contextlib import suppress
from multiprocessing import get_context
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from xp.ledger import Claim
from xp.process import interrupt
from xp.sweep.forked import death, do

if TYPE_CHECKING:
    from multiprocessing.process import BaseProcess

    from xp.run import Run


class Job:
    """One run of a sweep: what was asked of it and what has become of it."""

    def __init__(self, number: int, overrides: Sequence[str], run: Run) -> None:
        self.number, self.run = number, run
        self.overrides = [override.lstrip("+") for override in overrides]
        self.status: Literal["waiting", "running", "finished", "failed", "killed"] = "waiting"
        self.how: Literal["", "skipped", "resumed", "retried"] = ""
        self.error = ""
        self.result: dict[str, Any] = {}
        self.claim = Claim.of(run.values())
        self.folder: Path | None = None
        self.process: BaseProcess | None = None
        self.answer: Connection | None = None
        self.slot = 0
        self.elsewhere = False

    @property
    def objective(self) -> float:
        """What sweepers read; nan where the job has none."""
        value = self.result.get("objective")
        return math.nan if value is None else float(value)

    @property
    def ended(self) -> bool:
        """Whether nothing more is to be done about it."""
        return self.status in ("finished", "failed")

    def value(self, key: str) -> str:
        """What this job was given for ``key``."""
        return next((each.partition("=")[2] for each in self.overrides if each.partition("=")[0] == key), "")

    def settle(self) -> bool:
        """Look up what has become of this job before; false if another process is at it."""
        self.how, self.folder = "", None
        earlier = self.claim.earlier() if self.run.sweep.skip else None
        if earlier is None:
            return True
        if earlier.state == "finished":
            self.status, self.how, self.result = "finished", "skipped", earlier.result
        elif earlier.state == "failed" and earlier.failures > self.run.sweep.retry:
            times = f"{earlier.failures} times" if earlier.failures > 1 else "once"
            self.status, self.how = "failed", "skipped"
            said = earlier.error.removeprefix("UserError: ")
            self.error = f"{said} (has failed {times}; sweep.retry={earlier.failures} tries it again)"
        elif earlier.state != "running":
            goes_on = self.run.command == "train"
            self.folder = earlier.folder if goes_on else None
            self.how = "retried" if earlier.state == "failed" else "resumed" if goes_on else ""
        return earlier.state != "running"


def varying(jobs: Sequence[Job]) -> list[str]:
    """The keys in which the jobs of a sweep differ; the last one where they do not."""
    keys = [*dict.fromkeys(override.partition("=")[0] for job in jobs for override in job.overrides)]
    return [key for key in keys if len({job.value(key) for job in jobs}) > 1] or keys[-1:]


class Pool:
    """The slots in which the jobs of a sweep run, and what has been done there.

    Args:
        slots: how many run at once, each with its share of the CPU's threads or a GPU.
        folder: of the sweep; it gets a log for each job.
        jobs: all of the sweep so far, those that are to be done among them.
    """

    def __init__(self, slots: int, folder: Path, jobs: Sequence[Job]) -> None:
        self.slots, self.folder, self.jobs = slots, folder, jobs
        self.free = list(range(slots))
        self.running: list[Job] = []

    def run(self) -> None:
        """Do the jobs that wait, and keep in each what has become of it.

        Raises:
            KeyboardInterrupt, SystemExit: a signal has asked for the end; the jobs have saved what they had.
        """
        with interrupt.patience():
            try:
                while not interrupt.asked() and (waiting := [job for job in self.jobs if not job.ended]):
                    for job in waiting:
                        if job.status == "waiting" and self.free and self._may_start(job):
                            self._start(job)
                    # A signal is only noted here, and another process may have ended: look again in a while.
                    wait([job.process.sentinel for job in self.running if job.process], timeout=0.5)
                    for job in [job for job in self.running if job.process and not job.process.is_alive()]:
                        self._collect(job)
            finally:
                self._end()
        if interrupt.asked():
            interrupt.leave(interrupt.asked())

    def tell(self, job: Job) -> None:
        """A line about a job that has ended, or that cannot start yet."""
        done = sum(each.ended for each in self.jobs)
        what = " ".join(f"{key}={value}" for key in varying(self.jobs) if (value := job.value(key)))
        how = f"{job.how}, " if job.how else ""
        where: Path | str = self.folder / f"{job.number}.log"
        if job.status == "finished":
            said = f"{how}{job.result.get('metric')} {job.objective:.4f}"
            where = job.result["folder"] if job.how == "skipped" else where
        else:
            said = f"{how}{job.error}" if job.ended else "another process is at it; waiting for that one"
        print(f"[{done}/{len(self.jobs)}] {what}: {said}  ({where})", flush=True)

    def _may_start(self, job: Job) -> bool:
        """Whether it is for this process to do the job now; it may turn out to be done already."""
        twins = [each for each in self.jobs if each.claim.identity == job.claim.identity and each is not job]
        if any(twin.status == "running" for twin in twins):
            return False
        failed = next((twin for twin in twins if twin.status == "failed"), None)
        if failed and job.run.sweep.skip:
            job.status, job.how, job.error = "failed", "skipped", f"the same as job {failed.number}: {failed.error}"
        elif not job.claim.take() and job.run.sweep.skip:
            return self._later(job)
        elif not job.settle():
            job.claim.close()
            return self._later(job)
        if job.ended:
            job.claim.close()
            self.tell(job)
        return not job.ended

    def _later(self, job: Job) -> bool:
        if not job.elsewhere:
            job.elsewhere = True
            self.tell(job)
        return False

    def _start(self, job: Job) -> None:
        context = get_context("forkserver")
        threads = max(1, (os.cpu_count() or 1) // self.slots)
        job.slot = self.free.pop(0)
        job.answer, theirs = context.Pipe(duplex=False)
        log = self.folder / f"{job.number}.log"
        slot = job.slot if self.slots > 1 else None
        arguments = (job.run.values(), self.folder, job.folder, job.claim, theirs, log, slot, threads)
        job.process = context.Process(target=do, args=arguments)
        job.process.start()
        theirs.close()
        job.claim.close()  # The job has it now.
        job.status = "running"
        self.running.append(job)

    def _collect(self, job: Job) -> None:
        """Take in what a job that has ended has sent, if it came to that."""
        assert job.process is not None
        assert job.answer is not None
        job.process.join()
        self.running.remove(job)
        self.free.append(job.slot)
        try:
            kind, content = job.answer.recv()
        except EOFError:
            kind, content = "", None
        job.answer.close()
        if kind == "result":
            job.status, job.result = "finished", content
        elif interrupt.asked():
            job.status = "killed"
            return
        else:
            job.status, job.error = "failed", content or death(job.process.exitcode or 0)
        self.tell(job)

    def _end(self) -> None:
        """Have the jobs that run save and end; once more asked, end them at once."""
        processes = [job.process for job in self.running if job.process]
        try:
            for process in processes:
                process.terminate()
            for job in [*self.running]:
                self._collect(job)
        except BaseException:
            for process in processes:
                process.kill()
                with suppress(ProcessLookupError):
                    os.killpg(process.pid or 0, signal.SIGKILL)
            raise
