"""Origin: the tracked run that another one runs again, and what differs from it."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from xp.comparison.differences import Differences, curves, differences, digits, written
from xp.comparison.facts import Facts
from xp.tracking import Tracker

if TYPE_CHECKING:
    from xp.report import Report
    from xp.run import Run
    from xp.tracking.tracker import Status

FILE = "rerun.json"
"""In the folder of a run that runs another one again, and among its artifacts: of which one, and what differs."""


@dataclass(frozen=True)
class Origin:
    """The run that is run again."""

    facts: Facts

    def __str__(self) -> str:
        return f"{self.facts.name} ({self.facts.run_id[:8]})"

    def write(self, folder: Path, differing: Differences | None = None, curve: str = "") -> None:
        """Write down which run it is, and what differs from it, once that is known."""
        found = {} if differing is None else {"differs": differing, "curve": curve}
        (folder / FILE).write_text(json.dumps({"of": self.facts.plain()} | found, indent=2) + "\n")

    @classmethod
    def read(cls, folder: Path) -> Origin | None:
        """What `write` has written to a run's folder; None where it has not."""
        if not (folder / FILE).is_file():
            return None
        return cls(Facts.of_plain(json.loads((folder / FILE).read_text())["of"]))


class Comparing(Tracker):
    """The tracker of a run that runs another one again: what differs is told as soon as it is known."""

    def __init__(
        self,
        origin: Origin,
        run: Run,
        report: Report,
        folder: Path,
        tags: dict[str, str],
        parent: Path | None,
    ) -> None:
        self.origin, self.report = origin, report
        self.now = Facts(folder.name)
        self.now.take_settings(run.values())
        self.now.take_tags(tags)
        super().__init__(run.tracking, folder, tags | {"xp.rerun_of": origin.facts.run_id}, parent)
        # A tag for each rerun: two at once must not overwrite one another.
        self.tell(origin.facts.run_id, f"xp.rerun.{folder.name}")

    def params(self, params: dict[str, Any]) -> None:
        """As of any tracker."""
        super().params(params)
        self.now.take_params(params)

    def tags(self, tags: dict[str, str]) -> None:
        """As of any tracker; what they complete is compared."""
        super().tags(tags)
        self.now.take_tags(tags)
        if "xp.precision" in tags:
            self._tell("code", "environment")
        if "xp.data_fingerprint" in tags:
            self._tell("data")

    def close(self, status: Status, error: str = "") -> None:
        """As of any tracker; before that, tell and track what differs in the end."""
        self.now.take_journal(self.folder)
        self.now.status = status
        found = differences([self.origin.facts, self.now])
        ended = self.origin.facts.status == status == "FINISHED"
        if not ended:
            found.pop("metrics", None)
        equal, curve = curves([self.origin.facts, self.now])
        self.origin.write(self.folder, found, curve)
        differing = [*found, *([] if equal else ["curve"])]
        super().tags({"xp.rerun_differs": ", ".join(differing) or "nothing"})
        self.artifact(self.folder / FILE)
        if ended:
            self._tell("outcome", "metrics")
            if "metrics" not in found and "outcome" not in found:
                self.report.say(f"the same final metrics as {self.origin}, to the last bit")
        elif status == "FINISHED":
            self.report.say(f"{self.origin} is {self.origin.facts.status}, so it has no final metrics to compare")
        if status == "FINISHED" and curve:
            self.report.say(curve)
        super().close(status, error)

    def _tell(self, *sections: str) -> None:
        """Say what differs in these sections, which are the same, and of which nothing is known."""
        found = differences([self.origin.facts, self.now])
        for section in sections:
            values = [
                f"{name} {now} (was {then})"
                for name, pair in found.get(section, {}).items()
                for then, now in [digits(pair) if section == "metrics" else map(written, pair)]
            ]
            if values:
                self.report.say(f"other {section} than {self.origin}: {'; '.join(values)}")
            elif section in ("code", "environment", "data"):
                known = getattr(self.origin.facts, section) and getattr(self.now, section)
                said = f"the same {section} as" if known else f"nothing is known of the {section} of"
                self.report.say(f"{said} {self.origin}")
