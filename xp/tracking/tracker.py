"""What a run says of itself, and where it goes: into its journal at once, and from there to MLflow."""

from __future__ import annotations

import os
import secrets
from pathlib import Path
from typing import Any, Literal

from xp import secret
from xp.findings import split
from xp.tracking import journal
from xp.tracking.drain import Drain
from xp.tracking.journal import Journal
from xp.tracking.store import Tracking

Status = Literal["FINISHED", "FAILED", "KILLED"]


class Tracker:
    """What the world sees of a run: everything is journalled at once and brought to MLflow by a thread.

    The training never waits for the network: what it says is a line in ``journal.jsonl``, which outlives the process.
    A run that goes on stays the same run of MLflow, and gets no point twice. What MLflow has not got when the run
    ends gets there with the next run in the same folder of runs, or by ``command=sync``.
    """

    def __init__(self, tracking: Tracking, folder: Path, tags: dict[str, str], parent: Path | None) -> None:
        """
        Args:
            tracking: where MLflow is.
            folder: the run's folder.
            tags: to filter runs by.
            parent: folder of the sweep that the run is a job of.

        Raises:
            UserError: an address that MLflow cannot take.
        """
        tracking.prepare()
        self.folder = folder
        self._known = {
            (name, entry["step"]) for _, entry in journal.entries(folder) for name in entry.get("metrics", ())
        }
        fresh = not journal.size(folder)
        self._journal = Journal(folder)
        with self._journal.alone():
            journal.identify(folder, tracking.uri, tracking.experiment)
            about = {"uri": tracking.uri, "experiment": tracking.experiment, "tags": _redacted(tags)}
            if fresh:
                above = parent and os.path.relpath(parent, folder)
                begun = {"name": folder.name, "parent": above, "token": secrets.token_hex(8)}
                self._journal.write(begin=begun | about)
            else:
                self._journal.write(resumed=about)
        self._drain = Drain(tracking, folder, fresh)

    @property
    def run_id(self) -> str:
        """MLflow's id of the run; empty as long as MLflow has not got it."""
        return self._drain.run_id

    def opened(self) -> str:
        """MLflow's id of the run, or nothing where MLflow does not answer within seconds; then that is told.

        Raises:
            UserError: MLflow answers that it cannot take the run.
        """
        return self._drain.opened()

    def log(self, metrics: dict[str, float], step: int) -> None:
        """Metrics at an optimizer step; what an earlier part of the run has journalled is not said again."""
        metrics = {name: value for name, value in metrics.items() if (name, step) not in self._known}
        if metrics:
            self._write(step=step, metrics=metrics)

    def params(self, params: dict[str, Any]) -> None:
        """Parameters by the names that the command line uses; one too long for MLflow is given by its digest."""
        self._write(params=params)

    def tags(self, tags: dict[str, str]) -> None:
        """Tags to filter runs by."""
        self._write(tags=_redacted(tags))

    def tell(self, run_id: str, tag: str) -> None:
        """Give another run of MLflow a tag with the id of this one."""
        self._write(tell=run_id, tag=tag)

    def dataset(self, name: str, source: str, digest: str, profile: dict[str, int], context: str) -> None:
        """A data set as an input of the run."""
        about = {"name": name, "source": source, "digest": digest, "profile": profile, "context": context}
        self._write(dataset=about)

    def artifact(self, path: Path, folder: str | None = None) -> None:
        """A file (into ``folder`` of the run's artifacts), or a folder under its own name, as it is when sent."""
        path, home = path.absolute(), self.folder.absolute()
        place = path.relative_to(home) if path.is_relative_to(home) else path
        self._write(artifact=str(place), into=folder)

    def table(self, data: dict[str, list[Any]], file: str) -> None:
        """A table that MLflow shows as one.

        Args:
            data: columns of equal length, by name.
            file: its name among the artifacts, ending in ``.json``; one that is there already is replaced.
        """
        place = self.folder / journal.TABLES / file
        place.parent.mkdir(parents=True, exist_ok=True)
        part = place.with_name(f"{place.name}.part")
        part.write_text(split(data), encoding="utf-8")
        os.replace(part, place)
        self._write(table=str(place.relative_to(self.folder)), file=file)

    def close(self, status: Status, error: str = "") -> None:
        """End the run with this status; says on stderr what MLflow has not got after a short time without progress."""
        self._write(status=status, error=secret.redacted(error))
        self._drain.close()
        self._journal.close()

    def _write(self, **entry: Any) -> None:
        self._journal.write(**entry)
        self._drain.news.set()


def _redacted(tags: dict[str, str]) -> dict[str, str]:
    return {name: secret.redacted(value) for name, value in tags.items()}


class Untracked(Tracker):
    """The tracker of a process that does not track, as every rank but the first: all of it does nothing."""

    run_id = ""

    def __init__(self) -> None:
        nothing = lambda *arguments: None  # noqa: E731 - nine times the same nothing
        self.log = self.params = self.tags = self.dataset = nothing  # type: ignore[method-assign]
        self.artifact = self.table = self.tell = self.close = nothing  # type: ignore[method-assign]

    def opened(self) -> str:
        """No run."""
        return ""
