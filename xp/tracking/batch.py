"""Points, parameters and tags of several journal entries that travel to MLflow together."""

from __future__ import annotations

import json
from collections.abc import Iterator
from hashlib import sha256
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mlflow.entities import Metric, Param, RunTag

LONGEST_PARAMETER = 6000
"""MLflow cuts longer parameter values without a word."""

LONGEST_TAG = 5000

METRICS, OTHERS = 800, 60
"""At most so many points, and parameters and tags each, in a request: MLflow takes 1000, 100 and 1 MB."""


class Batch:
    """Entries on their way, and the position in the journal after the last of them."""

    def __init__(self) -> None:
        self.position = 0
        self.points: dict[tuple[str, int, int], float] = {}
        """Values by name, step and time."""

        self.params: dict[str, str] = {}
        self.tags: dict[str, str] = {}

    @staticmethod
    def takes(entry: dict[str, Any]) -> bool:
        """Whether an entry can travel in a batch; one that was cut weighs nothing."""
        return not entry or not entry.keys().isdisjoint(("metrics", "params", "tags"))

    @property
    def full(self) -> bool:
        """Whether it should be sent before it grows; parameters of two entries may contradict each other."""
        return bool(self.params) or len(self.points) >= METRICS or len(self.tags) >= OTHERS

    def add(self, entry: dict[str, Any], position: int) -> None:
        """Take one more entry, which ends at a position of the journal."""
        self.position = position
        for name, value in entry.get("metrics", {}).items():
            self.points[name, entry["step"], entry["time"]] = value
        for name, value in entry.get("params", {}).items():
            text = value if isinstance(value, str) else json.dumps(value)
            if len(text) > LONGEST_PARAMETER:
                text = f"sha256 {sha256(text.encode()).hexdigest()}, whole in run.yaml"
            self.params[name.replace("@", ":")] = text  # MLflow refuses the @ of data@data.sources.a.
        for name, value in entry.get("tags", {}).items():
            self.tags[name.replace("@", ":")] = cut(value)

    def requests(self) -> Iterator[list[Metric | Param | RunTag]]:
        """The same as what MLflow calls them, in portions that one request may have."""
        from mlflow.entities import Metric, Param, RunTag

        metrics = [Metric(name, value, time, step) for (name, step, time), value in self.points.items()]
        params = [Param(*each) for each in self.params.items()]
        tags = [RunTag(*each) for each in self.tags.items()]
        while portion := [*metrics[:METRICS], *params[:OTHERS], *tags[:OTHERS]]:
            yield portion
            metrics, params, tags = metrics[METRICS:], params[OTHERS:], tags[OTHERS:]


def cut(text: str) -> str:
    """A tag's value, with a mark where it was too long for MLflow; the journal has the whole."""
    return text if len(text) <= LONGEST_TAG else f"{text[: LONGEST_TAG - 40]}… (the whole is in journal.jsonl)"


def refused(error: Exception) -> bool:
    """Whether it is the entry that MLflow does not take, now and later."""
    response = getattr(error, "response", None)
    if response is not None:  # Of an upload.
        return 400 <= response.status_code < 500 and response.status_code not in (401, 403, 404, 408, 409, 425, 429)
    return getattr(error, "error_code", "") in ("INVALID_PARAMETER_VALUE", "BAD_REQUEST")
