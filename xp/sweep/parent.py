"""Parent: the run that stands for a sweep, in MLflow and in the folder of runs, and its table of jobs."""

from __future__ import annotations

import hashlib
import json
import math
import secrets
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from xp.console import console
from xp.ledger import Claim, ends
from xp.sweep.pool import Job, varying
from xp.tracking import identified

if TYPE_CHECKING:
    from xp.run import Run
    from xp.tracking import Tracker

Status = Literal["FINISHED", "FAILED", "KILLED"]


class Parent:
    """The same command gets the same parent again, so that all of a sweep's jobs are children of one.

    Where another process is at the same sweep, this one helps: it does jobs that the other one does not do, under the
    parent that the other one tracks.
    """

    tracker: Tracker | None = None
    """Its tracker, once it is open; none where another process has it."""

    def __init__(self, runs: Path, digest: str, anew: bool) -> None:
        """Find the parent of a sweep.

        Args:
            runs: folder for runs.
            digest: of what makes it this sweep.
            anew: whether it is to be another one than that of earlier calls of the command.
        """
        self.folder = runs / f"sweep-{digest[:8]}{f'-{secrets.token_hex(3)}' if anew else ''}"
        self.claim = Claim(hashlib.sha256(self.folder.name.encode()).hexdigest(), runs)

    def open(self, run: Run) -> None:
        """Begin to track it, or go on with that, unless another process does.

        Raises:
            UserError: MLflow answers that it cannot take it.
        """
        from xp.hardware import source
        from xp.tracking import Tracker

        self.folder.mkdir(parents=True, exist_ok=True)
        if self.tracker is None and self.claim.take():
            tags = {"xp.command": "sweep", "xp.folder": str(self.folder)} | source()
            self.tracker = Tracker(run.tracking, self.folder, tags, None)
            self.tracker.opened()

    @property
    def helps(self) -> bool:
        """Whether another process tracks this sweep."""
        if self.tracker is None and self.folder.is_dir():
            if not self.claim.take():
                return True
            self.claim.close()
        return False

    def close(self, jobs: Sequence[Job], status: Status, error: str, notes: Path) -> None:
        """Show the table of all jobs, the best first, and end the parent with it.

        Args:
            jobs: all of the sweep.
            status: of the sweep.
            error: why it has ended early.
            notes: folder of what the sweeper has written; it is kept.
        """
        # For the loss, which may be what is compared, less is better.
        direction = 1 if any(job.result.get("goal") == "min" for job in jobs) else -1
        ranked = sorted(
            jobs, key=lambda job: (math.isnan(job.objective), direction * (job.objective if job.result else 0))
        )
        known = (ends(self.folder) or [{}])[-1].get("status") == status
        if self.tracker is None and not known and all(job.ended for job in jobs) and not self.helps:
            self.open(jobs[0].run)  # Nothing was to be done, but it is open still, or has ended in another way.
        if self.tracker is not None:
            shutil.copytree(notes, self.folder, dirs_exist_ok=True)
            self._track(ranked, self.tracker)
            errors = [error] * bool(error) + [job.error for job in jobs if job.error]
            self.tracker.close(status, "; ".join(errors))
            self.claim.close()
        if any(job.status != "waiting" for job in jobs):
            self._print(ranked)

    def _track(self, ranked: Sequence[Job], tracker: Tracker) -> None:
        rows = [
            {"overrides": " ".join(job.overrides), "status": job.status, "how": job.how, "error": job.error}
            | job.result
            for job in ranked
        ]
        file = self.folder / "sweep.json"
        file.write_text(json.dumps(rows, indent=2, default=str) + "\n")
        tracker.artifact(file)
        if best := next((job for job in ranked if job.result), None):
            tracker.log({"best/objective": best.objective}, sum(bool(job.result) for job in ranked))
            tracker.tags({"xp.best": best.result["run_id"] or best.result["run"]})
        jobs = sorted(ranked, key=lambda job: job.number)
        tracker.params({"jobs": len(jobs), "overrides": " | ".join(" ".join(job.overrides) for job in jobs)})

    def _print(self, ranked: Sequence[Job]) -> None:
        from rich.table import Table

        keys = varying(ranked)
        metric = next((job.result["metric"] for job in ranked if job.result), "objective")
        run_id = identified(self.folder).get("run_id", "not there yet")
        table = Table(*keys, title=f"{self.folder.name}, MLflow run {run_id}", title_justify="left")
        for name in (metric, "seconds"):
            table.add_column(name, justify="right")
        for name in ("weights", "status", "run"):
            table.add_column(name)
        for job in ranked:
            table.add_row(*(job.value(key) for key in keys), *self._cells(job))
        console(width=None if sys.stdout.isatty() else 160).print(table)

    def _cells(self, job: Job) -> list[str]:
        status = {"finished": job.how or "finished", "waiting": "not begun"}.get(job.status, job.status)
        if not job.result:
            return ["", "", "", status, str(self.folder / f"{job.number}.log") if job.status != "waiting" else ""]
        result: dict[str, Any] = job.result
        digest = str(result.get("digest", ""))[:8]
        return [f"{job.objective:.4f}", f"{result['seconds']:.1f}", digest, status, result["run"]]
