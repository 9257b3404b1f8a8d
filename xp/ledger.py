"""Ledger: which runs there have been of each config, and which of them somebody is doing at this moment."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from glob import glob
from importlib.util import find_spec
from multiprocessing import reduction
from pathlib import Path
from typing import Any, Literal

from pydantic import NonNegativeInt

from xp.component import Settings
from xp.error import UserError
from xp.process import lock
from xp.tracking import journal

FOLDER = "ledger"
"""Folder among the runs with a file for each identity: the names of its runs, and a lock for who does it."""

WRITTEN = ("output", "runs_folder", "tracking", "choices")
"""Settings, by a part of their name, that do not name what a run reads."""

PLACES = ("path", "train", "eval", "inputs", "imports")
"""Settings, by the last part of their name, whose text is the name of a file or folder even without a dot or slash."""


NEUTRAL = ("tracking", "runs_folder", "runs", "cache", "sweep", "choices", "examples")
"""Settings that decide nothing of a run's outcome."""


class Sweep(Settings):
    """What a sweep does about jobs that have been run before, by the same command or by any other."""

    retry: NonNegativeInt
    """How often in all a job that has failed is tried again: once each time that the command is given again."""

    skip: bool
    """Whether what was run before counts: finished jobs are skipped, the others gone on with; false runs all anew."""


def digest(values: dict[str, Any]) -> str:
    """SHA-256 of a run's settings, but for the `NEUTRAL` ones."""
    deciding = {name: value for name, value in values.items() if name not in NEUTRAL}
    return hashlib.sha256(json.dumps(deciding, sort_keys=True).encode()).hexdigest()


def identity(values: dict[str, Any]) -> str:
    """SHA-256 of what decides a run's outcome: its settings, and what is in the files of this machine that they name.

    A file counts by its content, a folder by names, sizes and times of the files in it, a module of ``imports`` by
    its source. Rows and models of the hub count by their names and revisions, xp and the libraries not at all.
    """
    contents = {text: content for key, text in _texts(values, "") if (content := _content(key, text))}
    return hashlib.sha256(json.dumps([digest(values), contents], sort_keys=True).encode()).hexdigest()


def _texts(node: Any, key: str) -> Iterator[tuple[str, str]]:
    """Every text among settings, with the dotted name of its setting."""
    if isinstance(node, dict):
        for name, value in node.items():
            if name not in WRITTEN:
                yield from _texts(value, f"{key}.{name}")
    elif isinstance(node, list):
        for value in node:
            yield from _texts(value, key)
    elif isinstance(node, str) and node:
        yield key, node


def _content(key: str, text: str) -> str:
    """A digest of the file, folder or files that a setting names; empty where it names none."""
    last = key.rpartition(".")[2]
    if last == "imports":
        try:
            text = getattr(find_spec(text), "origin", None) or ""
        except (ImportError, ValueError):
            return ""
    if len(text) > 4000 or "\n" in text or not (last in PLACES or "/" in text or "." in text):
        return ""
    path = os.path.expanduser(text)
    if last == "inputs" and any(sign in path for sign in "*?["):
        return " ".join(_digest(found) for found in sorted(glob(path, recursive=True)))
    return _digest(path)


def _digest(path: str) -> str:
    if os.path.isdir(path):
        listed = hashlib.sha256()
        for folder, folders, files in os.walk(path):
            folders.sort()
            for name in sorted(files):
                file = os.path.join(folder, name)
                about = os.stat(file, follow_symlinks=os.path.exists(file))  # A link to nothing counts as itself.
                listed.update(f"{os.path.relpath(folder, path)}/{name} {about.st_size} {about.st_mtime_ns}\n".encode())
        return listed.hexdigest()
    if not os.path.isfile(path):
        return ""
    about = os.stat(path)
    return _file(os.path.abspath(path), about.st_size, about.st_mtime_ns)


@cache
def _file(path: str, size: int, time: int) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@dataclass(frozen=True)
class Earlier:
    """The furthest that the runs of an identity have come."""

    folder: Path
    state: Literal["finished", "failed", "interrupted", "running"]
    result: dict[str, Any]
    failures: int
    """How many times it has failed."""

    error: str
    """What the last failure said."""


class Claim:
    """The right to do what has this identity: one process of all has it, until the claim is closed or the process ends.

    It can be handed to a process that is started; it is that one's as well then.
    """

    def __init__(self, identity: str, runs: Path, digest: str = "") -> None:
        """Claim nothing yet.

        Args:
            identity: of what is to be done.
            runs: folder for runs.
            digest: of the settings, by which a run of the ledger is known to be still the one that it was.
        """
        self.identity, self.runs, self.digest = identity, runs, digest
        self._lock: int | None = None

    @classmethod
    def of(cls, values: dict[str, Any]) -> Claim:
        """The claim to a run that has these settings."""
        return cls(identity(values), Path(values["runs_folder"]), digest(values))

    @property
    def file(self) -> Path:
        """The page of the ledger, with a line for each run of this identity."""
        return self.runs / FOLDER / self.identity[:32]

    def take(self) -> bool:
        """Take the right; false where another process has it.

        Raises:
            UserError: the ledger cannot be written.
        """
        try:
            self.file.parent.mkdir(parents=True, exist_ok=True)
            lock = os.open(self.file, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)
        except OSError as error:
            raise UserError(f"{self.file}: nothing can be written there: {error.strerror}; mend that first") from error
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(lock)
            return False
        self._lock = lock
        return True

    def close(self) -> None:
        """Let others have it, unless a process that it was handed to still has it."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def note(self, folder: Path) -> None:
        """Write down that a run folder is of this identity; it need not be taken."""
        self.file.parent.mkdir(parents=True, exist_ok=True)
        name = folder.name if folder.parent == self.runs else str(folder.absolute())
        if name not in self._names():
            with self.file.open("a") as page:
                page.write(f"{name}\n")

    def _names(self) -> list[str]:
        return self.file.read_text().splitlines() if self.file.is_file() else []

    def earlier(self) -> Earlier | None:
        """What has become of this identity so far; None where nobody has begun with it."""
        folders = [self.runs / name for name in self._names()]
        found = [_looked_at(folder) for folder in folders if self._is(folder)]
        if not found:
            return None
        order = ("interrupted", "failed", "running", "finished")
        best = max(enumerate(found), key=lambda each: (order.index(each[1].state) // 2, each[0]))[1]
        failures = sum(each.failures for each in found)
        return Earlier(best.folder, best.state, best.result, failures, best.error)

    def _is(self, folder: Path) -> bool:
        """Whether a run has these settings: one that was made longer has others now."""
        try:
            return digest(json.loads(_written(folder / "run.yaml"))) == self.digest
        except ValueError:
            return False

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_lock": None if self._lock is None else reduction.DupFd(self._lock)}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        handed: Any = state["_lock"]
        self._lock = handed.detach() if handed is not None else None


def ends(folder: Path) -> list[dict[str, str]]:
    """How the parts of a run have ended, by its journal: ``status`` and ``error``; the last is empty if it has not."""
    found: list[dict[str, str]] = []
    for _, entry in journal.entries(folder):
        if "begin" in entry or "resumed" in entry:
            found.append({})
        elif "status" in entry:
            found[-1:] = [entry]
    return [end for number, end in enumerate(found) if end or number == len(found) - 1]


def _written(file: Path) -> str:
    try:
        return file.read_text()
    except OSError:
        return ""


def _looked_at(folder: Path) -> Earlier:
    """What has become of one run."""
    try:
        result = json.loads(_written(folder / "result.json") or "null")
    except json.JSONDecodeError:  # It was killed while it wrote this.
        result = None
    if result is not None and journal.finished(folder):
        return Earlier(folder, "finished", result, 0, "")
    parts = ends(folder)
    failures = sum(part.get("status") == "FAILED" for part in parts)
    last = parts[-1] if parts else {}
    if last:
        return Earlier(folder, "failed" if last["status"] == "FAILED" else "interrupted", {}, failures, last["error"])
    try:
        lock.check(folder)
    except UserError:
        return Earlier(folder, "running", {}, failures, "")
    return Earlier(folder, "interrupted", {}, failures, "")
