"""Where MLflow is: an embedded store or a server."""

from __future__ import annotations

import logging
import os
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import model_validator

from xp import secret
from xp.component import Settings
from xp.error import UserError

if TYPE_CHECKING:
    from mlflow import MlflowClient


class Tracking(Settings):
    """Where MLflow is, and what it gets."""

    uri: str
    """``sqlite:///<file>`` for the embedded store, ``http://...`` for a server; what is before an @ in it goes into the
    environment of the process, from where MLflow takes it, and is written nowhere."""

    experiment: str
    """Name of the MLflow experiment that the run belongs to."""

    log_model: bool
    """Whether the trained model's files are copied to MLflow, so that ``model.path=mlflow:<run id>`` finds them."""

    @model_validator(mode="before")
    @classmethod
    def _known_store(cls, values: Any) -> Any:
        uri = values.get("uri") if isinstance(values, dict) else None
        if not isinstance(uri, str):
            return values
        if not uri.startswith(("sqlite:///", "postgresql", "mysql", "mssql", "http://", "https://", "databricks")):
            raise ValueError(f"uri={uri}: this is no address of MLflow; give sqlite:///<file> or http://<server>")
        try:
            uri = secret.withdrawn(uri)
        except ValueError as error:
            raise ValueError(f"uri: {error}") from error
        if held := secret.found(uri):
            raise ValueError(f"uri: it holds {held}, and it is written down; leave that out")
        return values | {"uri": uri}

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
            with self._alone():
                return MlflowClient(self.address)
        except (MlflowException, OSError, ImportError) as error:  # The last: of a database's driver.
            raise UserError(f"tracking.uri={self.uri}: {first_line(error)}") from error

    def _alone(self) -> AbstractContextManager[Any]:
        """A lock beside an embedded store: of several processes that find it missing, one makes it."""
        from filelock import FileLock

        return FileLock(f"{self.embedded}.lock") if self.embedded else nullcontext()

    def experiment_id(self, client: MlflowClient) -> str:
        """The experiment of that name, made where there is none; its artifacts lie beside an embedded store."""
        with self._alone():
            return self._experiment_id(client)

    def _experiment_id(self, client: MlflowClient) -> str:
        found = client.get_experiment_by_name(self.experiment)
        if found is not None:
            if found.lifecycle_stage == "deleted":
                raise UserError(
                    f"tracking.experiment={self.experiment}: it was deleted in MLflow; restore or rename it"
                )
            return str(found.experiment_id)
        location = (self.embedded.parent / "artifacts").absolute().as_uri() if self.embedded else None
        return str(client.create_experiment(self.experiment, artifact_location=location))

    def locate(self, path: str, runs: str) -> str:
        """The folder of the model that ``mlflow:<run id>`` has logged; any other path as it is.

        Args:
            path: as in ``model.path``.
            runs: folder for runs, where a model that is downloaded is kept.

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
            kept = Path(runs) / "mlflow" / run_id  # Kept, because an adapter on top of it names its folder.
            kept.mkdir(parents=True, exist_ok=True)
            address, place = self.address, str(kept)
            return str(download_artifacts(run_id=run_id, artifact_path="model", dst_path=place, tracking_uri=address))
        except MlflowException as error:
            raise UserError(f"model.path={path}: {first_line(error)}") from error


def first_line(error: Exception | None) -> str:
    """What an error says, without the rest, and without secrets."""
    return secret.redacted((str(error).strip().splitlines() or [type(error).__name__])[0])[:300]
