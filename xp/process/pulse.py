"""Pulse: by what the processes of a run see that each of them goes on, and what is said of one that does not."""

from __future__ import annotations

import faulthandler
import json
import mmap
import os
import signal
import socket
import struct
import tempfile
import time
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

VERDICT = "verdict"
"""File with why the run is ended: which of its processes has died or hangs."""


@dataclass
class _Own:
    """What this process shows of itself."""

    place: Path | None = None
    count: int = 0
    memory: mmap.mmap | None = None
    files: list[Any] = field(default_factory=list)


_own = _Own()


def meeting_place() -> Path:
    """A new folder in memory, if the machine has such: a full disk must not end anything here."""
    shared = "/dev/shm"
    return Path(tempfile.mkdtemp(prefix="xp-", dir=shared if os.access(shared, os.W_OK) else None))


def show(place: Path, rank: int) -> None:
    """From now on, this process can be seen from others as that rank of the run."""
    import psutil

    with (place / f"{rank}.count").open("w+b") as file:
        file.write(bytes(8))
        file.flush()
        _own.memory = mmap.mmap(file.fileno(), 8)
    _own.place = place
    stack = (place / f"{rank}.stack").open("a")
    _own.files.append(stack)
    faulthandler.register(signal.SIGUSR2, file=stack, all_threads=False)
    about = {"process": os.getpid(), "since": psutil.Process().create_time(), "host": socket.gethostname()}
    part = place / f"{rank}.part"
    part.write_text(json.dumps(about))
    part.replace(place / f"{rank}.json")


def beat() -> None:
    """Say that something was done: a micro-batch, a step, a batch of an evaluation."""
    if _own.memory is not None:
        _own.count += 1
        struct.pack_into("Q", _own.memory, 0, _own.count)


def count(place: Path, rank: int) -> int:
    """What a process has counted."""
    found = (place / f"{rank}.count").read_bytes()
    return int(struct.unpack("Q", found)[0]) if len(found) == 8 else 0


def stack(place: Path, rank: int, process: int) -> list[str]:
    """Where the main thread of a process is, ``file:line in function``, the innermost first; none if it is mute."""
    file = place / f"{rank}.stack"
    with suppress(OSError):
        os.truncate(file, 0)
        os.kill(process, signal.SIGUSR2)
    until = time.monotonic() + 1
    while time.monotonic() < until:
        time.sleep(0.05)
        lines = [line.strip() for line in file.read_text(errors="replace").splitlines() if line.startswith("  File ")]
        if lines:
            return [line.removeprefix('File "').replace('", line ', ":") for line in lines]
    return []


def judge(place: Path, verdict: str) -> None:
    """Write down why the run is ended; what was said first counts."""
    with suppress(FileExistsError), (place / VERDICT).open("x") as file:
        file.write(verdict)


def verdict(seconds: float = 0) -> str:
    """Why the run is ended, by whoever watches it; empty if it is not, or not said within some seconds."""
    if _own.place is None:
        return ""
    until = time.monotonic() + seconds
    while True:
        with suppress(OSError):
            if said := (_own.place / VERDICT).read_text():
                return said
        if time.monotonic() >= until:
            return ""
        time.sleep(0.05)
