"""What MLflow is asked to take: a run's points, parameters, tags, data sets, files and status."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from xp.tracking import journal
from xp.tracking.batch import Batch, cut, refused
from xp.tracking.trouble import first_line

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Metric, Param, RunTag

SLOWEST = 1e6
"""Bytes in a second: an upload that is slower is not waited for at the end of a run."""


class Deleted(Exception):
    """Somebody has deleted the run in MLflow."""


class Sending:
    """A run of MLflow and what it is told; whatever is said twice is there once."""

    def __init__(
        self, client: MlflowClient, folder: Path, run_id: str, say: Callable[[str], None], there: bool
    ) -> None:
        """
        Args:
            client: of its store or server.
            folder: of the run, for its files.
            run_id: MLflow's id of the run.
            say: takes what a person should know.
            there: whether the run was there before, and may have got what comes now.

        Raises:
            Deleted: somebody has deleted it.
        """
        self.client, self.folder, self.run_id, self.say = client, folder, run_id, say
        self.busy_until = 0.0
        self._sure_after = journal.size(folder) if there else 0
        """Position in the journal up to which MLflow may have more than is known of it."""

        self._unsure = False
        """Whether the last request may have arrived without an answer."""

        self._there: dict[str, set[tuple[int, int]]] = {}
        """Steps and times of points that MLflow has, by name, as far as that is unsure."""

        self._params: dict[str, str] = {}
        self._tags: dict[str, str] = {}
        self._lost: list[str] = []
        if there:
            self.check()

    def check(self) -> None:
        """Ask for the run as it is.

        Raises:
            Deleted: it is not there any more.
        """
        from mlflow.exceptions import MlflowException

        try:
            run = self.client.get_run(self.run_id)
        except MlflowException as error:
            # A gateway before the server knows no run either: its answer is not one of MLflow.
            if error.error_code == "RESOURCE_DOES_NOT_EXIST" and "API request to" not in str(error):
                raise Deleted(f"run {self.run_id} is not in MLflow any more") from error
            raise
        if run.info.lifecycle_stage == "deleted":
            raise Deleted(f"run {self.run_id} was deleted in MLflow")
        self._params, self._tags = dict(run.data.params), dict(run.data.tags)

    def batch(self, batch: Batch) -> None:
        """Points, parameters and tags."""
        if self._unsure or batch.position <= self._sure_after:
            self._leave_out_known(batch)
        # MLflow lets no parameter change.
        changed = {
            f"xp.changed.{name}": value
            for name, value in batch.params.items()
            if self._params.get(name, value) != value or f"xp.changed.{name}" in self._tags
        }
        batch.tags |= changed
        batch.params = {name: value for name, value in batch.params.items() if name not in self._params}
        self._unsure = True
        for portion in batch.requests():
            self._log(portion)
        self._params |= batch.params
        self._tags |= batch.tags
        self._unsure = False

    def _leave_out_known(self, batch: Batch) -> None:
        """Points that MLflow has already, whoever told it."""
        if self._unsure:
            self._there.clear()
        for name in {name for name, _, _ in batch.points} - self._there.keys():
            history = self.client.get_metric_history(self.run_id, name)
            self._there[name] = {(each.step, each.timestamp) for each in history}
        batch.points = {
            (name, step, time): value
            for (name, step, time), value in batch.points.items()
            if (step, time) not in self._there[name]
        }

    def _log(self, portion: list[Metric | Param | RunTag]) -> None:
        """A request; where MLflow does not take it, half of it at a time, until what is wrong is found alone."""
        from mlflow.entities import Metric, Param, RunTag

        kinds = ([each for each in portion if isinstance(each, kind)] for kind in (Metric, Param, RunTag))
        try:
            self.client.log_batch(self.run_id, *kinds)
        except Exception as error:
            if not refused(error):
                raise
            self.check()
            if len(portion) == 1:
                self.lost(portion[0].key, error)
                return
            half = len(portion) // 2
            self._log(portion[:half])
            self._log(portion[half:])

    def event(self, entry: dict[str, Any]) -> None:
        """What is neither a point nor a file: a data set, a word to another run, the going on, the end."""
        if "dataset" in entry:
            self._dataset(**entry["dataset"])
        elif "tell" in entry:
            self._tell(entry["tell"], entry["tag"])
        elif "resumed" in entry:
            self.client.update_run(self.run_id, status="RUNNING")
            self._forget("xp.error")
            tags = Batch()
            tags.add({"tags": entry["resumed"]["tags"]}, 0)
            self.batch(tags)
        elif "status" in entry:
            if entry.get("error"):
                self._tag("xp.error", entry["error"])
            else:
                self._forget("xp.error")
            self.client.set_terminated(self.run_id, entry["status"], entry["time"])

    def _tell(self, other: str, tag: str) -> None:
        """Let another run of MLflow know of this one; one that is not there any more is not waited for."""
        from mlflow.exceptions import MlflowException

        try:
            self.client.set_tag(other, tag, self.run_id)
        except MlflowException as error:
            if not refused(error) and error.error_code != "RESOURCE_DOES_NOT_EXIST":
                raise
            self.check()  # Raises where it is the server that is gone.
            self.say(f"run {other} cannot be told of {self.folder.name}: {first_line(error)}")

    def _tag(self, name: str, value: str) -> None:
        self.client.set_tag(self.run_id, name, cut(value))
        self._tags[name] = value

    def _forget(self, tag: str) -> None:
        if tag in self._tags:
            self.client.delete_tag(self.run_id, tag)
            del self._tags[tag]

    def _dataset(self, name: str, source: str, digest: str, profile: dict[str, int], context: str) -> None:
        from mlflow.entities import Dataset, DatasetInput, InputTag

        data = Dataset(name, digest[:36], "xp", json.dumps({"source": source}), profile=json.dumps(profile))
        self.client.log_inputs(self.run_id, datasets=[DatasetInput(data, [InputTag("mlflow.data.context", context)])])

    def file(self, entry: dict[str, Any], superseded: bool) -> None:
        """An artifact, or a table, which is one that MLflow shows as one.

        Args:
            entry: of the journal.
            superseded: whether it may be missing, because the run has gone on and makes it anew.
        """
        path = self.folder / str(entry.get("table") or entry.get("artifact"))
        if self.folder.resolve() not in (path.resolve(), *path.resolve().parents):
            self.lost(str(path), ValueError("it is not in the run's folder"))
            return
        if not path.exists():
            if not superseded:
                self.lost(str(path), FileNotFoundError("it is not there any more"))
            return
        files = [path] if path.is_file() else [each for each in path.rglob("*") if each.is_file()]
        self.busy_until = time.monotonic() + sum(each.stat().st_size for each in files) / SLOWEST
        try:
            if "table" in entry:
                self._table(path, entry["file"])
            elif path.is_dir():
                self.client.log_artifacts(self.run_id, str(path), path.name)
            else:
                self.client.log_artifact(self.run_id, str(path), entry.get("into"))
        finally:
            self.busy_until = 0.0

    def _table(self, path: Path, file: str) -> None:
        from mlflow.utils.mlflow_tags import MLFLOW_LOGGED_ARTIFACTS

        # Not client.log_table: of a run that is resumed, it would append the rows to those that are there.
        self.client.log_text(self.run_id, path.read_text(encoding="utf-8"), file)
        mark = {"path": file, "type": "table"}
        known = json.loads(self._tags.get(MLFLOW_LOGGED_ARTIFACTS, "[]"))
        if mark not in known:
            self.client.set_tag(self.run_id, MLFLOW_LOGGED_ARTIFACTS, json.dumps([*known, mark]))
            self._tags[MLFLOW_LOGGED_ARTIFACTS] = json.dumps([*known, mark])

    def lost(self, what: str, error: Exception) -> None:
        """Say what MLflow will never have, here and there."""
        self.say(f"MLflow does not take {what} of {self.folder.name}: {first_line(error)}")
        self._lost.append(what)
        self._tag("xp.lost", ", ".join(self._lost))
