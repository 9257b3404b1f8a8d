"""A run's journal, and the thread that takes it to MLflow."""

from __future__ import annotations

import json
import queue
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

from xp import secret
from xp.error import UserError
from xp.findings import split
from xp.tracking import abandoned
from xp.tracking.store import Tracking, first_line

Status = Literal["FINISHED", "FAILED", "KILLED"]
GIVE_UP = 3
"""Failed requests in a row after which no more are sent: a server that hangs must not hold up the end of a run."""

LONGEST_VALUE = 6000
"""MLflow cuts longer parameter values without a word."""


class Tracker:
    """What the world sees of a run: everything is journalled at once and brought to MLflow by a thread.

    The training never waits for the network: `log` appends a line to ``journal.jsonl`` and returns.
    A run that goes on stays the same run of MLflow: it gets what the journal has and it has not, and no point twice.
    """

    run_id = ""
    """MLflow's id of the run, once `opened` has returned."""

    def __init__(self, tracking: Tracking, folder: Path, tags: dict[str, str], parent: str | None) -> None:
        self.tracking = tracking
        self.folder = folder
        self.client = tracking.client()
        self._work: queue.Queue[tuple[Callable[..., Any], tuple[Any, ...]] | None] = queue.Queue()
        self._earlier = _points(folder / "journal.jsonl")
        self._known = {(name, point["step"]) for point in self._earlier for name in point["metrics"]}
        self._journal = (folder / abandoned.JOURNAL).open("a", buffering=1)
        self._failure: Exception | None = None
        self._opened = threading.Event()
        self._tags = tags | ({"mlflow.parentRunId": parent} if parent else {})
        self._thread = threading.Thread(target=self._drain, name="mlflow", daemon=True)
        self._thread.start()

    def opened(self) -> str:
        """MLflow's run id; waits until the run is there.

        Raises:
            UserError: the store or server cannot be used.
        """
        self._opened.wait()
        if not self.run_id:
            raise UserError(
                f"tracking.uri={self.tracking.uri}: MLflow cannot be used there ({first_line(self._failure)}); "
                "start it, correct the address, or leave tracking.uri out to use the embedded store"
            ) from self._failure
        return self.run_id

    def log(self, metrics: dict[str, float], step: int) -> None:
        """Metrics at an optimizer step; what an earlier part of the run has journalled is not said again."""
        metrics = {name: value for name, value in metrics.items() if (name, step) not in self._known}
        if not metrics:
            return
        now = int(time.time() * 1000)
        self._journal.write(json.dumps({"time": now, "step": step, "metrics": metrics}) + "\n")
        self._work.put((self._send_metrics, (metrics, step, now)))

    def params(self, params: dict[str, Any]) -> None:
        """Parameters by the names that the command line uses; one too long for MLflow is given by its digest."""
        self._work.put((self._send_params, (params,)))

    def tags(self, tags: dict[str, str]) -> None:
        """Tags to filter runs by."""
        self._work.put((self._send_tags, ({name: secret.redacted(value) for name, value in tags.items()},)))

    def dataset(self, name: str, source: str, digest: str, profile: dict[str, int], context: str) -> None:
        """A data set as an input of the run."""
        self._work.put((self._send_dataset, (name, source, digest, profile, context)))

    def artifact(self, path: Path, folder: str | None = None) -> None:
        """A file (into ``folder`` of the run's artifacts), or a folder under its own name, as it is when sent."""
        self._work.put((self._send_artifact, (path, folder)))

    def table(self, data: dict[str, list[Any]], file: str) -> None:
        """A table that MLflow shows as one.

        Args:
            data: columns of equal length, by name.
            file: its name among the artifacts, ending in ``.json``; one that is there already is replaced.
        """
        self._work.put((self._send_table, (split(data), file)))

    def close(self, status: Status, error: str = "") -> None:
        """End the run with this status, once all else has arrived; says on stderr what could not."""
        error = secret.redacted(error)
        self._journal.write(json.dumps({"time": int(time.time() * 1000), "status": status, "error": error}) + "\n")
        self._work.put((self._end, (status, error)))
        self._work.put(None)
        self._thread.join()
        self._journal.close()
        if self._failure is not None and self.run_id:
            print(
                f"xp: MLflow did not get all of this run ({first_line(self._failure)}); "
                f"its metrics are in {self.folder / 'journal.jsonl'}",
                file=sys.stderr,
            )

    def _drain(self) -> None:
        try:
            self.run_id = self._resumed() or self._created()
            abandoned.identify(self.folder, self.run_id, self.tracking.uri)
        except Exception as error:
            self._failure = error
        self._opened.set()
        if self.run_id:
            self._close_abandoned()
        failures = 0
        while (work := self._work.get()) is not None:
            send, arguments = work
            # The status is tried all the same: a server that is back must not show a run that has ended as running.
            if self.run_id and (failures < GIVE_UP or send == self._end):
                try:
                    send(*arguments)
                    failures = 0
                except Exception as error:
                    self._failure, failures = error, failures + 1

    def _close_abandoned(self) -> None:
        try:
            for name in abandoned.close(self.folder.parent, self.client, self.tracking.uri):
                print(f"xp: {name} was still open, and its process is gone; closed as KILLED", file=sys.stderr)
        except Exception as error:  # No trouble of an earlier run may hold up this one.
            print(f"xp: runs that were left open cannot be closed: {first_line(error)}", file=sys.stderr)

    def _created(self) -> str:
        experiment = self.tracking.experiment_id(self.client)
        run_id = str(self.client.create_run(experiment, run_name=self.folder.name, tags=self._tags).info.run_id)
        return run_id

    def _resumed(self) -> str:
        """The run of MLflow that this one was before, brought up to its journal; empty if it was none there."""
        from mlflow.entities import Metric, RunTag

        known = abandoned.identified(self.folder)
        if known.get("uri") != self.tracking.uri:
            return ""
        run_id = str(known["run_id"])
        self.client.update_run(run_id, status="RUNNING")
        self.client.log_batch(run_id, tags=[RunTag(name, value) for name, value in self._tags.items()])
        there: dict[str, set[int]] = {}
        missing = []
        for point in self._earlier:
            for name, value in point["metrics"].items():
                if name not in there:
                    there[name] = {each.step for each in self.client.get_metric_history(run_id, name)}
                if point["step"] not in there[name]:
                    missing.append(Metric(name, value, point["time"], point["step"]))
        for start in range(0, len(missing), 1000):
            self.client.log_batch(run_id, missing[start : start + 1000])
        return run_id

    def _send_metrics(self, metrics: dict[str, float], step: int, now: int) -> None:
        from mlflow.entities import Metric

        self.client.log_batch(self.run_id, [Metric(name, value, now, step) for name, value in metrics.items()])

    def _send_params(self, params: dict[str, Any]) -> None:
        from hashlib import sha256

        from mlflow.entities import Param

        rows = []
        for name, value in params.items():
            text = value if isinstance(value, str) else json.dumps(value)
            if len(text) > LONGEST_VALUE:
                text = f"sha256 {sha256(text.encode()).hexdigest()}, whole in run.yaml"
            rows.append(Param(name.replace("@", ":"), text))  # MLflow refuses the @ of data@data.sources.a.
        known = self.client.get_run(self.run_id).data.params if self._earlier else {}
        changed = [each for each in rows if known.get(each.key, each.value) != each.value]
        if changed:  # MLflow lets no parameter change.
            self._send_tags({f"xp.changed.{each.key}": each.value for each in changed})
        rows = [each for each in rows if each.key not in known]
        for start in range(0, len(rows), 100):
            self.client.log_batch(self.run_id, params=rows[start : start + 100])

    def _send_tags(self, tags: dict[str, str]) -> None:
        from mlflow.entities import RunTag

        self.client.log_batch(self.run_id, tags=[RunTag(name.replace("@", ":"), value) for name, value in tags.items()])

    def _send_dataset(self, name: str, source: str, digest: str, profile: dict[str, int], context: str) -> None:
        from mlflow.entities import Dataset, DatasetInput, InputTag

        data = Dataset(name, digest[:36], "xp", json.dumps({"source": source}), profile=json.dumps(profile))
        self.client.log_inputs(self.run_id, datasets=[DatasetInput(data, [InputTag("mlflow.data.context", context)])])

    def _send_artifact(self, path: Path, folder: str | None) -> None:
        if path.is_dir():
            self.client.log_artifacts(self.run_id, str(path), path.name)
        else:
            self.client.log_artifact(self.run_id, str(path), folder)

    def _send_table(self, text: str, file: str) -> None:
        from mlflow.utils.mlflow_tags import MLFLOW_LOGGED_ARTIFACTS

        # Not client.log_table: of a run that is resumed, it would append the rows to those that are there.
        self.client.log_text(self.run_id, text, file)
        entry = {"path": file, "type": "table"}
        known = json.loads(self.client.get_run(self.run_id).data.tags.get(MLFLOW_LOGGED_ARTIFACTS, "[]"))
        if entry not in known:
            self.client.set_tag(self.run_id, MLFLOW_LOGGED_ARTIFACTS, json.dumps([*known, entry]))

    def _end(self, status: Status, error: str) -> None:
        if error:
            self.client.set_tag(self.run_id, "xp.error", error[:5000])
        self.client.set_terminated(self.run_id, status)


def _points(journal: Path) -> list[dict[str, Any]]:
    """The metrics that an earlier part of a run has journalled; a last line that was cut by its end is none."""
    found = []
    if journal.is_file() and not journal.read_bytes().endswith(b"\n"):
        with journal.open("a") as cut:
            cut.write("\n")
    for line in journal.read_text().splitlines() if journal.is_file() else ():
        try:
            entry = json.loads(line)
        except json.JSONDecodeError:
            continue
        if "metrics" in entry:
            found.append(entry)
    return found


class Untracked(Tracker):
    """The tracker of a process that does not track, as every rank but the first: all of it does nothing."""

    def __init__(self) -> None:
        nothing = lambda *arguments: None  # noqa: E731 - eight times the same nothing
        self.log = self.params = self.tags = self.dataset = nothing  # type: ignore[method-assign]
        self.artifact = self.table = self.close = nothing  # type: ignore[method-assign]

    def opened(self) -> str:
        """No run."""
        return ""
