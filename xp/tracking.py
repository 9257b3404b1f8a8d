"""Tracking: a run's journal, and the thread that takes it to MLflow. The only file that imports mlflow."""

from __future__ import annotations

import json
import logging
import os
import queue
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from xp.component import Settings
from xp.error import UserError

if TYPE_CHECKING:
    from mlflow import MlflowClient

Status = Literal["FINISHED", "FAILED", "KILLED"]
LONGEST_VALUE = 6000
"""MLflow cuts longer parameter values without a word."""


class Tracking(Settings):
    """Where MLflow is, and what it gets."""

    uri: str
    """``sqlite:///<file>`` for the embedded store, ``http://...`` for a server."""

    experiment: str
    """Name of the MLflow experiment that the run belongs to."""

    log_model: bool
    """Whether the trained model's files are copied to MLflow, so that ``model.path=mlflow:<run id>`` finds them."""

    @property
    def embedded(self) -> Path | None:
        """The file of an embedded store."""
        return Path(self.uri.removeprefix("sqlite:///")) if self.uri.startswith("sqlite:///") else None

    @property
    def address(self) -> str:
        """The uri with an absolute path: MLflow keeps stores by their address, whatever the current folder then is."""
        return f"sqlite:///{self.embedded.absolute()}" if self.embedded else self.uri

    def client(self) -> MlflowClient:
        """A client whose requests give up after seconds instead of minutes.

        Raises:
            UserError: an address that MLflow does not take.
        """
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "10")
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
        os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
        if not self.uri.startswith(("sqlite:///", "postgresql", "mysql", "mssql", "http://", "https://", "databricks")):
            raise UserError(f"tracking.uri={self.uri}: give sqlite:///<file> or http://<server>")
        from mlflow import MlflowClient
        from mlflow.exceptions import MlflowException

        if self.embedded:
            try:
                self.embedded.parent.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise UserError(f"tracking.uri={self.uri}: no folder can be made there: {error.strerror}") from error
        for name in ("mlflow", "alembic"):  # The making of the embedded store is no news; they tell it in 100 lines.
            logging.getLogger(name).setLevel(logging.WARNING)
        try:
            return MlflowClient(self.address)
        except MlflowException as error:
            raise UserError(f"tracking.uri={self.uri}: {_first_line(error)}") from error

    def experiment_id(self, client: MlflowClient) -> str:
        """The experiment of that name, made where there is none; its artifacts lie beside an embedded store."""
        found = client.get_experiment_by_name(self.experiment)
        if found is not None:
            if found.lifecycle_stage == "deleted":
                raise UserError(
                    f"tracking.experiment={self.experiment}: it was deleted in MLflow; restore or rename it"
                )
            return str(found.experiment_id)
        location = (self.embedded.parent / "artifacts").absolute().as_uri() if self.embedded else None
        return str(client.create_experiment(self.experiment, artifact_location=location))

    def locate(self, path: str) -> str:
        """The folder of the model that ``mlflow:<run id>`` has logged; any other path as it is.

        Raises:
            UserError: no such run, or it holds no model.
        """
        if not path.startswith("mlflow:"):
            return path
        run_id = path.removeprefix("mlflow:")
        client = self.client()
        from mlflow.artifacts import download_artifacts
        from mlflow.exceptions import MlflowException

        try:
            run = client.get_run(run_id)
        except MlflowException as error:
            raise UserError(f"model.path={path}: {self.uri} knows no such run; its id is in the run's table") from error
        try:
            if not client.list_artifacts(run_id, "model"):
                folder = run.data.tags.get("xp.folder", "its run folder")
                raise UserError(f"model.path={path}: that run logged no model; give model.path={folder}/model")
            return str(download_artifacts(run_id=run_id, artifact_path="model", tracking_uri=self.address))
        except MlflowException as error:
            raise UserError(f"model.path={path}: {_first_line(error)}") from error


class Tracker:
    """What the world sees of a run: everything is journalled at once and brought to MLflow by a thread.

    The training never waits for the network: `log` appends a line to ``journal.jsonl`` and returns.
    """

    run_id = ""
    """MLflow's id of the run, once `opened` has returned."""

    def __init__(self, tracking: Tracking, folder: Path, tags: dict[str, str], parent: str | None) -> None:
        self.tracking = tracking
        self.folder = folder
        self.client = tracking.client()
        self._work: queue.Queue[tuple[Callable[..., Any], tuple[Any, ...]] | None] = queue.Queue()
        self._journal = (folder / "journal.jsonl").open("a", buffering=1)
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
                f"tracking.uri={self.tracking.uri}: MLflow cannot be used there ({_first_line(self._failure)}); "
                "start it, correct the address, or leave tracking.uri out to use the embedded store"
            ) from self._failure
        return self.run_id

    def log(self, metrics: dict[str, float], step: int) -> None:
        """Metrics at an optimizer step."""
        now = int(time.time() * 1000)
        self._journal.write(json.dumps({"time": now, "step": step, "metrics": metrics}) + "\n")
        self._work.put((self._send_metrics, (metrics, step, now)))

    def params(self, params: dict[str, Any]) -> None:
        """Parameters by the names that the command line uses; one too long for MLflow is given by its digest."""
        self._work.put((self._send_params, (params,)))

    def tags(self, tags: dict[str, str]) -> None:
        """Tags to filter runs by."""
        self._work.put((self._send_tags, (tags,)))

    def dataset(self, name: str, source: str, digest: str, profile: dict[str, int], context: str) -> None:
        """A data set as an input of the run."""
        self._work.put((self._send_dataset, (name, source, digest, profile, context)))

    def artifact(self, path: Path) -> None:
        """A file, or a folder under its own name, as it is when the thread gets to it."""
        self._work.put((self._send_artifact, (path,)))

    def close(self, status: Status, error: str = "") -> None:
        """End the run with this status, once all else has arrived; says on stderr what could not."""
        self._journal.write(json.dumps({"time": int(time.time() * 1000), "status": status, "error": error}) + "\n")
        self._work.put((self._end, (status, error)))
        self._work.put(None)
        self._thread.join()
        self._journal.close()
        if self._failure is not None and self.run_id:
            print(
                f"xp: MLflow did not get all of this run ({_first_line(self._failure)}); "
                f"its metrics are in {self.folder / 'journal.jsonl'}",
                file=sys.stderr,
            )

    def _drain(self) -> None:
        try:
            experiment = self.tracking.experiment_id(self.client)
            run = self.client.create_run(experiment, run_name=self.folder.name, tags=self._tags)
            self.run_id = run.info.run_id
        except Exception as error:
            self._failure = error
        self._opened.set()
        while (work := self._work.get()) is not None:
            send, arguments = work
            if self.run_id:
                try:
                    send(*arguments)
                except Exception as error:
                    self._failure = error

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
            rows.append(Param(name, text))
        for start in range(0, len(rows), 100):
            self.client.log_batch(self.run_id, params=rows[start : start + 100])

    def _send_tags(self, tags: dict[str, str]) -> None:
        from mlflow.entities import RunTag

        self.client.log_batch(self.run_id, tags=[RunTag(name, value) for name, value in tags.items()])

    def _send_dataset(self, name: str, source: str, digest: str, profile: dict[str, int], context: str) -> None:
        from mlflow.entities import Dataset, DatasetInput, InputTag

        data = Dataset(name, digest[:36], "xp", json.dumps({"source": source}), profile=json.dumps(profile))
        self.client.log_inputs(self.run_id, datasets=[DatasetInput(data, [InputTag("mlflow.data.context", context)])])

    def _send_artifact(self, path: Path) -> None:
        if path.is_dir():
            self.client.log_artifacts(self.run_id, str(path), path.name)
        else:
            self.client.log_artifact(self.run_id, str(path))

    def _end(self, status: Status, error: str) -> None:
        if error:
            self.client.set_tag(self.run_id, "xp.error", error[:5000])
        self.client.set_terminated(self.run_id, status)


class Untracked(Tracker):
    """The tracker of a process that does not track, as every rank but the first: all of it does nothing."""

    def __init__(self) -> None:
        nothing = lambda *arguments: None  # noqa: E731 - seven times the same nothing
        self.log = self.params = self.tags = self.dataset = self.artifact = self.close = nothing  # type: ignore[method-assign]

    def opened(self) -> str:
        """No run."""
        return ""


def _first_line(error: Exception | None) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:300]
