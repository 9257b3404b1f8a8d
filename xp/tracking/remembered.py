"""Remembered: a tracked run as MLflow holds it, found by its id, a part of that, its name, or as the last one."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from xp.error import UserError, nearest
from xp.tracking.journal import identified
from xp.tracking.store import Tracking, impatient
from xp.tracking.trouble import first_line

if TYPE_CHECKING:
    from mlflow import MlflowClient

SHORTEST = 8
"""Digits of an id that name a run, if no other one begins so."""

LARGEST = 10_000_000
"""Bytes of an artifact that is read; a run.yaml has some thousand."""


@dataclass(frozen=True)
class Remembered:
    """What MLflow holds of a run."""

    run_id: str
    name: str
    status: str
    started: int
    """When it began, in milliseconds since 1970."""

    params: dict[str, str]
    tags: dict[str, str]
    metrics: dict[str, float]
    """The last value of each."""

    client: MlflowClient = field(repr=False)

    def text(self, path: str) -> str | None:
        """A small text among the artifacts; None where there is none, or nothing that could be read as one.

        Raises:
            UserError: MLflow knows of it, and does not give it.
        """
        with _asked(f"run {self.run_id}: {path}"), TemporaryDirectory() as place:
            there = {each.path: each for each in self.client.list_artifacts(self.run_id)}
            if path not in there or there[path].is_dir or (there[path].file_size or 0) > LARGEST:
                return None
            file = Path(self.client.download_artifacts(self.run_id, path, place))
            return file.read_bytes().decode(errors="replace") if file.stat().st_size <= LARGEST else None

    def history(self, name: str) -> dict[int, float]:
        """The values of a metric by their steps, of each step the last."""
        with _asked(f"run {self.run_id}: {name}"):
            points = self.client.get_metric_history(self.run_id, name)
        return {each.step: each.value for each in sorted(points, key=lambda each: (each.step, each.timestamp))}


def remember(where: str, tracking: Tracking, asked: str) -> Remembered:
    """Find a tracked run.

    Args:
        where: its id, the first digits of it, its name, its folder, or ``last``.
        tracking: where to look.
        asked: how the user has asked for it, to begin errors with.

    Raises:
        UserError: no such run, or several; MLflow cannot be asked.
    """
    if tracking.embedded and not tracking.embedded.is_file():
        raise UserError(f"{asked}: there is no store at tracking.uri={tracking.uri}; give that of the run")
    client = tracking.client()
    with _asked(f"tracking.uri={tracking.uri}"):
        found = list(_search(where, tracking, client, asked))
        if not found:
            newest = [each.info for each in _all(client, "", 8)]
            names = [name for info in newest for name in (info.run_id, info.run_name)]
            raise UserError(f"{asked}: {tracking.uri} knows no such run.{nearest(where, names)}")
        if len(found) > 1:
            those = ", ".join(f"{each.info.run_id} ({each.info.run_name})" for each in found[:5])
            raise UserError(f"{asked}: this is the beginning of {those}; give more of it")
    (run,) = found
    if run.info.lifecycle_stage == "deleted":
        raise UserError(
            f"{asked}: it was deleted in MLflow; restore it: mlflow runs restore --run-id {run.info.run_id}"
        )
    return Remembered(
        run_id=run.info.run_id,
        name=run.info.run_name or run.info.run_id,
        status=run.info.status,
        started=run.info.start_time or 0,
        params=dict(run.data.params),
        tags=dict(run.data.tags),
        metrics=dict(run.data.metrics),
        client=client,
    )


def _search(where: str, tracking: Tracking, client: MlflowClient, asked: str) -> Iterator[Any]:
    from mlflow.exceptions import MlflowException

    if where == "last":
        of_experiment = client.get_experiment_by_name(tracking.experiment)
        newest = [] if of_experiment is None else _all(client, "", 200, [of_experiment.experiment_id])
        yield from [each for each in newest if each.data.tags.get("xp.command") != "sweep"][:1]
        return
    if (Path(where) / "run.yaml").is_file():
        about = identified(Path(where))
        if about.get("uri") not in (None, tracking.uri):
            raise UserError(f"{asked}: that run is tracked elsewhere; give tracking.uri={about['uri']}")
        where = about.get("run_id", where)
    if re.fullmatch(r"[0-9a-f]{32}", where):
        try:
            yield client.get_run(where)
        except MlflowException as error:
            if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                raise
    elif re.fullmatch(rf"[0-9a-f]{{{SHORTEST},}}", where):
        yield from _all(client, f"attributes.run_id LIKE '{where}%'", 10)
    elif re.fullmatch(r"[\w.@-]+", where):
        yield from _all(client, f"attributes.run_name = '{where}'", 10)


def _all(client: MlflowClient, rule: str, most: int, experiments: list[str] | None = None) -> list[Any]:
    """The newest runs that a rule holds for, of all experiments if none are given."""
    if experiments is None:
        experiments = [each.experiment_id for each in client.search_experiments()]
    return list(client.search_runs(experiments, rule, max_results=most, order_by=["attributes.start_time DESC"]))


@contextmanager
def _asked(subject: str) -> Iterator[None]:
    """Turns what MLflow raises into one line."""
    from mlflow.exceptions import MlflowException

    try:
        with impatient():
            yield
    except (MlflowException, OSError) as error:
        raise UserError(f"{subject}: {first_line(error)}") from error
