"""A run's journal: everything that is said of a run, a line each, in its folder before it is anywhere else."""

from __future__ import annotations

import fcntl
import json
import os
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from xp.error import UserError

JOURNAL = "journal.jsonl"

TRACKER = "tracker.json"
"""File in a run's folder that says which process tracks it, and to where."""

DELIVERED = "mlflow.json"
"""File in a run's folder that says which run of MLflow it is, and how many bytes of the journal that one has."""

TABLES = "tables"


class Journal:
    """The one who writes a journal: a line is one write, so that what was said outlives whoever said it.

    note: no fsync. What is written survives the end of the process; only the end of the machine can lose it, and
    waiting for the disk costs a line a hundred times its price.
    """

    def __init__(self, folder: Path) -> None:
        self.file = folder / JOURNAL
        self._end = os.open(self.file, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o666)
        size = os.fstat(self._end).st_size
        if size and os.pread(self._end, 1, size - 1) != b"\n":
            os.write(self._end, b"\n")  # Its last line was cut by the end of its process.

    def write(self, **entry: Any) -> None:
        """Append an entry, with the time if it names none.

        Raises:
            UserError: the disk does not take it.
        """
        line = (json.dumps({"time": int(time.time() * 1000)} | entry) + "\n").encode()
        try:
            written = os.write(self._end, line)
            while written < len(line):
                written += os.write(self._end, line[written:])
        except OSError as error:
            raise UserError(f"{self.file} cannot be written: {error.strerror}") from error

    @contextmanager
    def alone(self) -> Iterator[None]:
        """For a moment no other process begins, resumes or closes this run."""
        fcntl.lockf(self._end, fcntl.LOCK_EX)
        try:
            yield
        finally:
            fcntl.lockf(self._end, fcntl.LOCK_UN)

    def close(self) -> None:
        """Let go of the file."""
        os.close(self._end)


def entries(folder: Path, start: int = 0, end: int | None = None) -> Iterator[tuple[int, dict[str, Any]]]:
    """The journal's entries from one position to another, each with the position after it.

    A line that was cut by the end of its process was never said, and a last one that has no end is still being written.
    """
    try:
        content = (folder / JOURNAL).open("rb")
    except FileNotFoundError:
        return
    with content:
        content.seek(start)
        for line in content:
            start += len(line)
            if not line.endswith(b"\n") or (end is not None and start > end):
                return
            try:
                entry = json.loads(line)
            except (ValueError, RecursionError):
                entry = {}
            yield start, entry if isinstance(entry, dict) else {}


def size(folder: Path) -> int:
    """How long the journal is, in bytes; 0 where there is none."""
    try:
        return (folder / JOURNAL).stat().st_size
    except FileNotFoundError:
        return 0


def last(folder: Path) -> dict[str, Any]:
    """The newest entry."""
    whole, block = size(folder), 1 << 16
    while True:
        start = max(0, whole - block)
        found = [entry for _, entry in entries(folder, start) if entry]
        if found or not start:
            return found[-1] if found else {}
        block *= 8


def finished(folder: Path) -> bool:
    """Whether a run has come to its end, and has said so; one that was killed before has its last files to bring."""
    return last(folder).get("status") == "FINISHED"


def identify(folder: Path, uri: str, experiment: str) -> None:
    """Write down that this process tracks the run of a folder, and where to."""
    import psutil

    about = {"host": socket.gethostname(), "process": os.getpid(), "since": psutil.Process().create_time()}
    _replace(folder / TRACKER, about | {"uri": uri, "experiment": experiment})


def tracked(folder: Path) -> dict[str, Any]:
    """What `identify` has written; nothing where it has not."""
    return _read(folder / TRACKER)


def delivered(folder: Path) -> dict[str, Any]:
    """What MLflow has of a run: ``run_id``, ``uri``, ``position`` in the journal, and that of its end if that is there
    (``ended``), and entries of files that the store of artifacts did not take (``owed``)."""
    return _read(folder / DELIVERED)


def set_delivered(folder: Path, about: dict[str, Any]) -> None:
    """Write down what MLflow has of a run; only who holds `delivering` may."""
    _replace(folder / DELIVERED, about)


def identified(folder: Path) -> dict[str, Any]:
    """Which process tracks the run of a folder and which run of MLflow it is, as far as either is known."""
    return tracked(folder) | delivered(folder)


def destination(folder: Path) -> tuple[str, str]:
    """Where a run is to be tracked: an address of MLflow and an experiment; empty where nobody has said so."""
    about = tracked(folder)
    return str(about.get("uri") or delivered(folder).get("uri", "")), str(about.get("experiment", ""))


def _read(file: Path) -> dict[str, Any]:
    try:
        found = json.loads(file.read_text())
    except (OSError, ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _replace(file: Path, about: dict[str, Any]) -> None:
    part = file.with_name(f"{file.name}.part")
    part.unlink(missing_ok=True)  # A link would be followed.
    part.write_text(json.dumps(about) + "\n")
    os.replace(part, file)


_held: set[Path] = set()
"""Runs that this process delivers: the lock of a file knows processes only."""

_holding = threading.Lock()


@contextmanager
def delivering(folder: Path) -> Iterator[bool]:
    """Whether this run's journal is ours to deliver: of all threads and processes one at a time does.

    note: lockf, because the end of a process gives such a lock back, and no forked worker inherits it.
    """
    where = folder.absolute()
    with _holding:
        ours = where not in _held
        _held.add(where)
    if not ours:
        yield False
        return
    try:
        with (folder / "mlflow.lock").open("a") as lock:
            try:
                fcntl.lockf(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                free = True
            except OSError:
                free = False
            yield free
    finally:
        _held.discard(where)


def lives(about: dict[str, Any]) -> bool:
    """Whether the process that `identify` names is there."""
    import psutil

    try:
        process = psutil.Process(about["process"])
        return abs(process.create_time() - about["since"]) < 1 and process.status() != psutil.STATUS_ZOMBIE
    except (psutil.NoSuchProcess, KeyError, TypeError, ValueError, OverflowError):
        return False


def abandoned(folder: Path) -> bool:
    """Whether a run of this machine has not ended and has nobody who tracks it."""
    about = identified(folder)
    return about.get("host") == socket.gethostname() and not lives(about) and "status" not in last(folder)


def abandon(
    folder: Path, status: str = "KILLED", error: str = "its process is gone; nothing was heard from it"
) -> bool:
    """Close the journal of a run whose process is gone without a word, at the time of its last one; False if it lives.

    It is closed in its journal; MLflow hears of it as of all the rest.
    """
    if not abandoned(folder):
        return False
    journal = Journal(folder)
    try:
        with journal.alone():
            if not abandoned(folder):
                return False
            heard = last(folder).get("time", int(time.time() * 1000))
            journal.write(time=heard, status=status, error=error)
    finally:
        journal.close()
    return True
