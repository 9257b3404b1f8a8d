"""What brings a run's journal to MLflow, from where it was left off: of a run that goes on, and of one long gone."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from xp.tracking import journal
from xp.tracking.batch import Batch, refused
from xp.tracking.sending import Deleted, Sending
from xp.tracking.store import Tracking
from xp.tracking.trouble import first_line, reason

if TYPE_CHECKING:
    from mlflow import MlflowClient

CHUNK = 5000
"""Entries that are read at once."""


class WaitingForParentError(Exception):
    """The run of the sweep that this one belongs to is not in MLflow yet, and its own process will bring it there."""


class Delivery:
    """Brings a run's journal to MLflow, each entry once, however often it is begun again.

    The position in the journal is written down after each request. An entry that has arrived without that is found
    among what MLflow has. Only who holds `journal.delivering` may use it.
    """

    def __init__(
        self,
        tracking: Tracking,
        folder: Path,
        say: Callable[[str], None],
        *,
        anew: bool = False,
        fresh: bool = False,
    ) -> None:
        """
        Args:
            tracking: where the run is to be.
            folder: of the run.
            say: takes what a person should know.
            anew: whether a run that MLflow has lost, or has elsewhere, gets a new one with all that the journal holds.
            fresh: whether MLflow cannot have heard of this run yet.
        """
        self.tracking, self.folder, self.say, self.anew = tracking, folder, say, anew
        self.state: dict[str, Any] = {"run_id": "", "uri": tracking.uri, "position": 0, "owed": [], "ended": 0}
        self.progress = time.monotonic()
        """When something was last taken by MLflow."""

        self._sending: Sending | None = None
        self._client: MlflowClient | None = None
        self._moved_from: dict[str, Any] = {}
        self._asked = not fresh
        """Whether MLflow may have been asked for this run already, and have answered unheard."""

    @property
    def run_id(self) -> str:
        """MLflow's id of the run, once it has one."""
        return str(self.state["run_id"])

    @property
    def busy_until(self) -> float:
        """Until when the upload of a file may well take."""
        return self._sending.busy_until if self._sending else 0.0

    def left(self) -> int:
        """How many entries MLflow has not got."""
        return left(self.folder, self.state)

    def refused(self) -> None:
        """Note that this run was refused before it began, so that nobody brings it to MLflow later."""
        journal.set_delivered(self.folder, journal.delivered(self.folder) | {"refused": True})

    def deliver(self) -> None:
        """Bring all that is journalled by now to MLflow.

        Raises:
            UserError: an address or an experiment that MLflow does not take.
            Deleted: somebody has deleted the run in MLflow.
            WaitingForParentError: it is for another process to go first.
            Exception: whatever MLflow and what lies before it can answer; to be tried again.
        """
        if self._sending is None:
            self._sending = self.connect()
        end = journal.size(self.folder)
        while self.state["position"] < end:
            found = []
            for position, entry in journal.entries(self.folder, self.state["position"], end):
                found.append((position, entry))
                if len(found) == CHUNK:
                    break
            if not found:
                break  # Its last line is still being written, or was cut.
            self._deliver(self._sending, found)
        self._deliver_owed(self._sending)

    def _deliver(self, sending: Sending, found: list[tuple[int, dict[str, Any]]]) -> None:
        first = {_file(entry): at for at, (_, entry) in reversed([*enumerate(found)]) if _file(entry)}
        resumed = max((at for at, (_, entry) in enumerate(found) if "resumed" in entry), default=-1)
        batch = Batch()
        for at, (position, entry) in enumerate(found):
            if batch.takes(entry):
                batch.add(entry, position)
                if not batch.full and at + 1 < len(found):
                    continue
            if batch.position:
                sending.batch(batch)
                self._arrived(batch.position)
            if batch.takes(entry):
                batch = Batch()
                continue
            batch = Batch()
            if _file(entry):
                if first[_file(entry)] == at:  # By now the file is what the last of several says that it is.
                    self._file_entry(sending, entry, at < resumed)
            else:
                sending.event(entry)
                if "status" in entry:
                    self.state["ended"] = position
            self._arrived(position)

    def _file_entry(self, sending: Sending, entry: dict[str, Any], superseded: bool) -> None:
        """An artifact that its store does not take is owed: it holds up no other entry."""
        try:
            sending.file(entry, superseded)
        except Exception as error:
            if refused(error):
                sending.lost(_file(entry), error)
                return
            sending.check()  # Raises where it is the server that is gone.
            self.state["owed"] = [each for each in self.state["owed"] if _file(each) != _file(entry)] + [entry]

    def _deliver_owed(self, sending: Sending) -> None:
        failure = None
        for entry in list(self.state["owed"]):
            try:
                sending.file(entry, False)
            except Exception as error:
                if not refused(error):
                    failure = error
                    continue
                sending.lost(_file(entry), error)
            self.state["owed"].remove(entry)
            self._arrived(self.state["position"])
        if failure is not None:
            raise failure

    def _arrived(self, position: int) -> None:
        self.state["position"] = position
        self.progress = time.monotonic()
        journal.set_delivered(self.folder, self.state)

    def connect(self) -> Sending:
        """The run of MLflow that this one is; it is made where there is none."""
        if self._client is None:
            self._client = self.tracking.client()
        known = journal.delivered(self.folder)
        if known.get("run_id") and known["uri"] != self.tracking.uri:
            self.say(f"{self.folder.name} goes on at {self.tracking.uri}, with all of its history; "
                     f"{known['uri']} keeps what it has of it")  # fmt: skip
            self._moved_from = known
        elif known.get("run_id"):
            try:
                sending = Sending(self._client, self.folder, str(known["run_id"]), self.say, there=True)
            except Deleted as error:
                if not self.anew:
                    raise
                self.say(f"{error}; {self.folder.name} becomes a new one, with all of its history")
            else:
                self.state |= {name: known[name] for name in self.state if name in known}
                return sending
        run_id, there = self._created(self._client)
        self.state |= {"run_id": run_id, "uri": self.tracking.uri, "position": 0, "owed": []}
        self._arrived(0)
        return Sending(self._client, self.folder, run_id, self.say, there)

    def close_behind(self) -> None:
        """Close the run that is left behind in another MLflow, where it would be running for ever."""
        known, self._moved_from = self._moved_from, {}
        if not known:
            return
        try:
            client = self.tracking.at(str(known["uri"]), self.folder.parent).client()
            if client.get_run(known["run_id"]).info.status == "RUNNING":
                client.set_tag(known["run_id"], "xp.error", f"it goes on at {self.tracking.uri}")
                client.set_terminated(known["run_id"], "KILLED")
        except Exception as error:
            self.say(f"run {known['run_id']} at {known['uri']} cannot be closed: {told(error)}")

    def _created(self, client: MlflowClient) -> tuple[str, bool]:
        """A run of MLflow, and whether it was there already, from a request whose answer never came."""
        begun, at = {}, int(time.time() * 1000)
        for _, entry in journal.entries(self.folder):
            if entry:
                begun, at = entry.get("begin", {}), entry.get("time", at)
                break
        experiment = self.tracking.experiment_id(client)
        tags = {name.replace("@", ":"): value for name, value in begun.get("tags", {}).items()}
        if begun.get("parent") and (parent := self._parent(begun["parent"])):
            tags["mlflow.parentRunId"] = parent
        if token := begun.get("token"):
            tags["xp.journal"] = token
            if self._asked:
                twins = client.search_runs([experiment], f"tags.`xp.journal` = '{token}'")
                if found := sorted(twins, key=lambda run: str(run.info.run_id)):
                    for twin in found[1:]:
                        client.delete_run(twin.info.run_id)
                    return str(found[0].info.run_id), True
        self._asked = True
        made = client.create_run(experiment, start_time=at, tags=tags, run_name=begun.get("name", self.folder.name))
        return str(made.info.run_id), False

    def _parent(self, path: str) -> str:
        """MLflow's id of the sweep's run, which is made first; empty if that one is elsewhere, or was deleted."""
        folder = Path(os.path.normpath(self.folder / path))
        known = journal.delivered(folder)
        beside = folder.parent == Path(os.path.normpath(self.folder)).parent
        if not beside or journal.destination(folder)[0] != self.tracking.uri:
            return ""
        if known.get("run_id"):
            return str(known["run_id"])
        with journal.delivering(folder) as free:
            if not free:
                raise WaitingForParentError(f"the run of {folder.name}, to which it belongs, is not in MLflow yet")
            parent = Delivery(self.tracking, folder, self.say)
            try:
                parent.connect()
            except Deleted:
                return ""
            return parent.run_id


def left(folder: Path, state: dict[str, Any]) -> int:
    """How many entries of a journal MLflow has not got, by what is known of it."""
    return sum(1 for _ in journal.entries(folder, state.get("position", 0))) + len(state.get("owed", []))


def _file(entry: dict[str, Any]) -> str:
    """Which artifact an entry is about; empty for another entry."""
    if "table" in entry:
        return str(entry["file"])
    return f"{entry.get('into') or ''}/{entry['artifact']}" if "artifact" in entry else ""


def told(error: Exception) -> str:
    """Why it did not arrive."""
    return first_line(error) if isinstance(error, Deleted | WaitingForParentError) else reason(error)
