"""Lock: who works on a run's folder. Held as long as its process lives, and by no process that it forks."""

from __future__ import annotations

import errno
import fcntl
import os
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from xp.error import UserError

FILE = "lock"
"""Of a run's folder; it says who held it last, and stays when it is free."""

STARTER, WORKER = 0, 1
"""Bytes of the file: one is held by the process that was told to do the run, one by that which writes to its folder.
They are the same process, unless a run is started in several; then each may outlive the other."""

_files: dict[Path, int] = {}
"""Open files by folder: with any descriptor that it closes, a process loses all its locks on the file."""


@contextmanager
def held(folder: Path, place: int) -> Iterator[None]:
    """Hold a run's folder.

    Raises:
        UserError: another process holds it, or the folder cannot be written to.
    """
    outermost = folder not in _files
    if outermost:
        try:
            _files[folder] = os.open(folder / FILE, os.O_RDWR | os.O_CREAT, 0o644)
        except OSError as error:
            raise UserError(f"{folder}: nothing can be written there: {error.strerror}; mend that first") from error
    file = _files[folder]
    try:
        # The starter looks for a worker, too: one may be left of a starter that is gone.
        if not all(_taken(file, each) for each in ((STARTER, WORKER) if place == STARTER else (WORKER,))):
            raise UserError(_running(folder))
        if place == STARTER:
            fcntl.lockf(file, fcntl.LOCK_UN, 1, WORKER)
        os.pwrite(file, f"{socket.gethostname()} {os.getpid()}".ljust(80).encode(), 0)
        try:
            yield
        finally:
            fcntl.lockf(file, fcntl.LOCK_UN, 1, place)
    finally:
        if outermost:
            os.close(_files.pop(folder))


def check(folder: Path) -> None:
    """See whether a run's folder is free; nothing is held, and nothing written.

    Raises:
        UserError: another process holds it.
    """
    try:
        file = os.open(folder / FILE, os.O_RDWR)
    except OSError:
        return  # It was never held, or nobody may write here: whoever is to hold it says so.
    try:
        if not (_taken(file, STARTER) and _taken(file, WORKER)):
            raise UserError(_running(folder))
    finally:
        os.close(file)


def _running(folder: Path) -> str:
    host, _, process = (folder / FILE).read_text().strip().rpartition(" ")
    where = "" if host == socket.gethostname() else f" on {host}"
    return f"{folder} is still running{where}, as process {process}; end that first"


def _taken(file: int, place: int) -> bool:
    try:
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, place)
    except OSError as error:
        if error.errno in (errno.EACCES, errno.EAGAIN):
            return False
        print(f"xp: this file system has no locks ({error.strerror}); take care that no run is resumed twice at once",
              file=sys.stderr)  # fmt: skip
    return True
