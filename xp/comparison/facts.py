"""Facts: all that is known of a run and can be compared, from MLflow or from the run's folder."""

from __future__ import annotations

import json
import re
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from xp.run import flattened
from xp.tracking import Remembered, entries, identified

FOLDER = re.compile(r"(tracking|choices|sweep)\..*|runs_folder|runs")
"""Settings that say where a run is kept and what it is called, not what it does."""

SPEED = re.compile(r".*(seconds|per_second)")
"""Metrics that differ from run to run, whatever was asked."""

CURVE = "train/loss"


@dataclass
class Facts:
    """What is known of a run, section by section; a section is empty where nothing is known."""

    name: str
    run_id: str = ""
    status: str = ""
    settings: dict[str, Any] = field(default_factory=dict)
    """By the names of the command line."""

    environment: dict[str, Any] = field(default_factory=dict)
    code: dict[str, Any] = field(default_factory=dict)
    data: dict[str, Any] = field(default_factory=dict)
    outcome: dict[str, Any] = field(default_factory=dict)
    """Digests of the weights, or of the predictions."""

    points: dict[str, dict[int, float]] = field(default_factory=dict)
    """The values of a metric by their steps, of some metrics the last one alone."""

    def take_tags(self, tags: dict[str, str]) -> None:
        """Take in what tags say of environment, code, data and outcome."""
        for section, name, tag in (
            (self.environment, "device", "xp.device"),
            (self.environment, "precision", "xp.precision"),
            (self.environment, "processes", "xp.processes"),
            (self.code, "commit", "mlflow.source.git.commit"),
            (self.code, "source changed", "xp.source_changed"),
            (self.code, "changes", "xp.source_digest"),
            (self.data, "fingerprint", "xp.data_fingerprint"),
            (self.outcome, "weights", "xp.weights"),
            (self.outcome, "predictions", "xp.predictions"),
        ):
            if tag in tags:
                section[name] = tags[tag]
        self.take_params({name.removeprefix("xp.changed."): value for name, value in tags.items()})

    def take_params(self, params: dict[str, Any]) -> None:
        """Take in what parameters say of the environment."""
        known = {name.removeprefix("environment."): value for name, value in params.items()
                 if name.startswith("environment.")}  # fmt: skip
        self.environment |= {name: value for name, value in known.items() if name != "device"}

    def take_settings(self, values: dict[str, Any]) -> None:
        """Take in a run's settings, nested as in the config."""
        self.settings = {name: value for name, value in flattened(values) if not FOLDER.fullmatch(name)}

    def take_points(self, metrics: dict[str, float], step: int) -> None:
        """Take in what was measured at a step."""
        for name, value in metrics.items():
            self.points.setdefault(name, {})[step] = value

    @property
    def last(self) -> dict[str, float]:
        """The last value of each metric, speeds aside."""
        return {name: each[max(each)] for name, each in self.points.items() if not SPEED.fullmatch(name)}

    @property
    def speeds(self) -> dict[str, float]:
        """The last value of each metric that says how fast it was."""
        return {name: each[max(each)] for name, each in self.points.items() if SPEED.fullmatch(name)}

    def plain(self) -> dict[str, Any]:
        """As plain values, for a file."""
        return asdict(self)

    @classmethod
    def of_plain(cls, values: dict[str, Any]) -> Facts:
        """What `plain` has given, also after a way through json."""
        points = {name: {int(step): value for step, value in each.items()} for name, each in values["points"].items()}
        return cls(**values | {"points": points})

    @classmethod
    def of_tracked(cls, tracked: Remembered, whole: bool = True) -> Facts:
        """What MLflow holds of a run.

        Args:
            tracked: the run.
            whole: whether its settings and curves are asked for, too.
        """
        facts = cls(tracked.name, tracked.run_id, tracked.status)
        facts.take_params(tracked.params)
        facts.take_tags(tracked.tags)
        if whole:
            facts.take_settings(_settings(tracked.text("run.yaml")))
            for name, value in tracked.metrics.items():
                curve = name == CURVE or name.startswith("eval/")
                facts.points[name] = tracked.history(name) if curve else {0: value}
        return facts

    @classmethod
    def of_folder(cls, folder: Path) -> Facts:
        """What a run's folder holds: its settings and its journal."""
        facts = cls(folder.name, str(identified(folder).get("run_id", "")), "RUNNING")
        facts.take_settings(_settings((folder / "run.yaml").read_text()))
        facts.take_journal(folder)
        return facts

    def take_journal(self, folder: Path) -> None:
        """Take in all that a run's journal says."""
        for _, entry in entries(folder):
            for told in (entry, entry.get("begin", {}), entry.get("resumed", {})):
                self.take_tags(told.get("tags", {}))
            self.take_params(entry.get("params", {}))
            if "metrics" in entry:
                self.take_points(entry["metrics"], entry["step"])
            self.status = entry.get("status", "RUNNING" if "resumed" in entry else self.status)


def _settings(text: str | None) -> dict[str, Any]:
    """The settings in a run.yaml; none where it is no such file."""
    try:
        values = json.loads(text or "{}")
    except (ValueError, RecursionError):
        return {}
    return values if isinstance(values, dict) else {}
