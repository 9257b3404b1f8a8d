"""Where MLflow is: an embedded store or a server."""

from __future__ import annotations

import logging
import os
import secrets
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import model_validator

from xp import secret
from xp.component import Settings
from xp.consent import check_store
from xp.error import UserError
from xp.tracking.address import run_in
from xp.tracking.trouble import first_line, locked

if TYPE_CHECKING:
    from mlflow import MlflowClient


SETTINGS = {
    "HTTP_REQUEST_TIMEOUT": "300",  # A server that answers after minutes is waited for: by a thread, not by a training.
    "HTTP_REQUEST_MAX_RETRIES": "0",  # That thread tries again, and knows what has arrived already.
    "ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "DISABLE_TELEMETRY": "true",
}
"""What MLflow is told by its environment, where the user has not said otherwise."""


PART = ".part"
"""End of the name of an embedded store that has not all of its tables yet."""


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
        if uri.startswith("http") and not _names_server(uri):
            raise ValueError(f"uri={uri}: this names no server; give http://<server> or http://<server>:<port>")
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

    def prepare(self) -> None:
        """Import what MLflow needs there, and make the folder of an embedded store.

        Raises:
            UserError: no folder can be made there.
        """
        if self.embedded:
            try:
                self.embedded.parent.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise UserError(f"tracking.uri={self.uri}: no folder can be made there: {error.strerror}") from error
        for name, value in SETTINGS.items():
            os.environ.setdefault(f"MLFLOW_{name}", value)
        import mlflow.client
        import mlflow.entities
        import mlflow.store.tracking.rest_store

        if self.embedded:
            import mlflow.store.tracking.sqlalchemy_store  # noqa: F401
        for name in ("mlflow", "alembic"):  # The making of the embedded store is no news; they tell it in 100 lines.
            logging.getLogger(name).setLevel(logging.WARNING)
        logging.getLogger("mlflow.store.db.utils").setLevel(logging.CRITICAL)  # We tell it, without the traceback.

    def client(self) -> MlflowClient:
        """A client of this store or server; makes the tables of an embedded store.

        Raises:
            UserError: an address that MLflow does not take.
        """
        self.prepare()
        from mlflow import MlflowClient

        try:
            with self._alone():
                self._make()
                return MlflowClient(self.address)
        except Exception as error:
            if locked(error) or (not self.embedded and "OperationalError" in str(error)):  # Busy, or not there.
                raise
            raise UserError(f"tracking.uri={self.uri}: {first_line(error)}") from error

    def _make(self) -> None:
        """Have an embedded store be there with all of its tables, or not at all.

        Whoever is killed while it gets them would leave one behind whose migrations can neither go on nor begin again.
        """
        if self.embedded is None or self.embedded.exists():
            return
        from mlflow import MlflowClient

        for left in self.embedded.parent.glob(f"{self.embedded.name}.*{PART}*"):
            left.unlink()
        # Another name each time: MLflow keeps what it has opened by its address.
        part = self.embedded.with_name(f"{self.embedded.name}.{secrets.token_hex(4)}{PART}")
        MlflowClient(f"sqlite:///{part.absolute()}")
        os.replace(part, self.embedded)

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
        from mlflow.exceptions import MlflowException

        location = (self.embedded.parent / "artifacts").absolute().as_uri() if self.embedded else None
        try:
            return str(client.create_experiment(self.experiment, artifact_location=location))
        except MlflowException as error:
            made = client.get_experiment_by_name(self.experiment)  # By another process, in between.
            if made is None:
                raise error
            return str(made.experiment_id)

    def at(self, uri: str, runs: Path) -> Tracking:
        """This, with another address that a file in the folder of all runs names.

        Raises:
            UserError: it is a database that lies elsewhere.
        """
        check_store(uri, self.uri, runs)
        return self.model_copy(update={"uri": uri})

    def locate(self, path: str, runs: str) -> str:
        """The folder of the model that ``mlflow:<run id>`` has logged; any other path as it is.

        Args:
            path: as in ``model.path``.
            runs: folder for runs, where a model that is downloaded is kept.

        Raises:
            UserError: no such run, or it holds no model.
        """
        if (run_id := run_in(path)) is None:
            return path
        with impatient():
            return self._downloaded(path, run_id, runs)

    def _downloaded(self, path: str, run_id: str, runs: str) -> str:
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


@contextmanager
def impatient() -> Iterator[None]:
    """Somebody waits for what MLflow answers: its requests give up after seconds, unless the user says otherwise."""
    name = "MLFLOW_HTTP_REQUEST_TIMEOUT"
    before = os.environ.get(name)
    if before not in (None, SETTINGS["HTTP_REQUEST_TIMEOUT"]):
        yield
        return
    os.environ[name] = "15"
    try:
        yield
    finally:
        os.environ[name] = SETTINGS["HTTP_REQUEST_TIMEOUT"]


def _names_server(uri: str) -> bool:
    from urllib.parse import urlsplit

    try:
        return bool(urlsplit(uri).hostname) and urlsplit(uri).port != 0
    except ValueError:  # Of a port that is no number, or of brackets.
        return False
