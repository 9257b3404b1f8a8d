"""Watch: which of a run's processes hangs, told by what it does and not by how long it takes."""

from __future__ import annotations

import math
import os
import shutil
import signal
import socket
import threading
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from xp.process import pulse, world

if TYPE_CHECKING:
    import psutil

PATIENCE = 15
"""Looks, one a second, in which a process has done nothing at all before anything is made of it."""

LITTLE = {"main": 0.01, "others": 0.25, "children": 0.01, "bytes": 10_000.0}
"""What an idle process does a second all the same: seconds of its main thread, of its other threads (a bar is drawn, a
tracker waits) and of its children, and bytes read and written."""

EXCHANGES = ("/torch/distributed/", "/torch/nn/parallel/", "/torch/autograd/")
"""Where a process waits for the others."""

PATIENT = (
    "/xp/tracking/",
    "/filelock/",
    "/torch/utils/data/",
    "/huggingface_hub/",
    "/httpx/",
    "/urllib3/",
    "/requests/",
)
"""Where a process may wait for somebody else: for a server, for what another process makes, for rows over a network."""


@dataclass(frozen=True)
class Look:
    """What a process has done up to now."""

    count: int
    main: float
    others: float
    children: float
    bytes: float
    state: str


class Watch:
    """Looks at processes of this machine, once a second."""

    def __init__(self, place: Path, processes: dict[int, int], size: int) -> None:
        """Begin to watch.

        Args:
            place: where they show their pulse.
            processes: the process of each rank that is on this machine.
            size: how many ranks there are.
        """
        import psutil

        self.place, self.size = place, size
        self.known: dict[int, psutil.Process] = {}
        for rank, process in processes.items():
            with suppress(psutil.NoSuchProcess):
                self.known[rank] = psutil.Process(process)
        self.looks: dict[int, deque[Look]] = {rank: deque(maxlen=PATIENCE + 1) for rank in processes}
        self._pause = 0

    def look(self) -> tuple[int, str] | None:
        """The rank that hangs and what is to be said of it; None where all go on, or may."""
        import psutil

        for rank, process in self.known.items():
            try:
                self.looks[rank].append(self._seen(rank, process))
            except (psutil.Error, OSError):  # It has ended: whoever has started it sees that.
                self.looks[rank].clear()
        self._pause -= 1
        if self._pause > 0:
            return None
        found = self._judged()
        if found is None and any(self._does(rank) == "nothing" for rank in self.known):
            self._pause = 5  # To be asked where one is costs it a moment.
        return found

    def _judged(self) -> tuple[int, str] | None:
        for rank, looks in self.looks.items():
            if len(looks) == looks.maxlen and all(each.state == "stopped" for each in looks):
                return rank, f"process {rank} of {self.size} hangs: it is stopped, and was not continued"
        does = {rank: self._does(rank) for rank in self.known}
        idle = [rank for rank, what in does.items() if what == "nothing"]
        if not idle or "counts" in does.values() or len(self.known) < self.size:
            return None
        places = {rank: pulse.stack(self.place, rank, process.pid) for rank, process in self.known.items()}
        waits = {rank: bool(lines) and _in(lines[:1], EXCHANGES) for rank, lines in places.items()}
        if any(what == "works" and not waits[rank] for rank, what in does.items()):
            return None  # The others wait for that one.
        for rank in idle:
            if places[rank] and not waits[rank] and not _in(places[rank], PATIENT):
                return rank, (
                    f"process {rank} of {self.size} hangs: it has done nothing for {PATIENCE} seconds, while the "
                    f"others wait for it, at {places[rank][0]}"
                )
        if len(idle) == self.size and all(waits.values()):
            rank = min(idle, key=lambda each: self.looks[each][-1].count)
            return rank, (
                f"process {rank} of {self.size} hangs: all of them wait for each other, and this one is behind, at "
                f"{places[rank][0]}"
            )
        return None

    def _does(self, rank: int) -> Literal["counts", "works", "nothing"]:
        """What a process has done in all the looks that are remembered."""
        looks = self.looks[rank]
        if len(looks) < PATIENCE + 1 or looks[-1].count != looks[0].count:
            return "counts"
        if any(each.state == "disk-sleep" for each in looks):
            return "works"
        first, last = looks[0], looks[-1]
        for name, little in LITTLE.items():
            if getattr(last, name) - getattr(first, name) > little * PATIENCE:
                return "works"
        return "nothing"

    def _own(self, rank: int, process: int) -> float:
        """Bytes that a process has read only because it watches: the thread that does says which one it is."""
        try:
            thread = (self.place / f"{rank}.watches").read_text()
            lines = Path(f"/proc/{process}/task/{thread}/io").read_text().splitlines()
        except OSError:
            return 0.0
        named = dict(line.split(": ") for line in lines)
        return float(sum(int(named[name]) for name in ("rchar", "wchar", "read_bytes", "write_bytes")))

    def _seen(self, rank: int, process: psutil.Process) -> Look:
        import psutil

        with process.oneshot():
            state, times = process.status(), process.cpu_times()
            main = next((each.user_time + each.system_time for each in process.threads() if each.id == process.pid), 0)
            moved = 0.0
            with suppress(psutil.AccessDenied):
                moved = sum(process.io_counters()[2:6]) - self._own(rank, process.pid)
        count = pulse.count(self.place, rank)
        before = self.looks[rank][-1] if self.looks[rank] else None
        children = math.nan  # Not asked for where it shows by itself that it works: it costs a walk through /proc.
        if before is None or (count == before.count and main == before.main):
            children = times.children_user + times.children_system
            for child in process.children(recursive=True):
                with suppress(psutil.Error):
                    theirs = child.cpu_times()
                    children += theirs.user + theirs.system
                    state = child.status() if child.status() == "disk-sleep" and state == "sleeping" else state
        return Look(
            count=count,
            main=main,
            others=times.user + times.system - main,
            children=children,
            bytes=moved,
            state=str(state),
        )


@contextmanager
def beside() -> Iterator[None]:
    """Watch from within, where somebody else has started the processes: two of each machine look after all of it.

    Their starter sees one that has died, and ends the others; one that hangs is killed here, so that it sees that too.
    On several machines only those are noticed that are stopped: who waits for whom cannot be seen from one of them.
    """
    here = socket.gethostname()
    hosts = world.gather(here)
    local = [rank for rank, host in enumerate(hosts) if host == here]
    made = pulse.meeting_place() if world.rank() == local[0] else None
    place = Path(world.gather(str(made))[local[0]])
    pulse.show(place, world.rank())
    processes = world.gather(os.getpid())
    over = threading.Event()
    if world.rank() in local[:2]:
        looks = Watch(place, {rank: processes[rank] for rank in local}, world.size())
        threading.Thread(target=_look_after, args=(looks, over), name="watch", daemon=True).start()
    try:
        yield
    finally:
        over.set()
        if made is not None:
            shutil.rmtree(made, ignore_errors=True)


def _look_after(looks: Watch, over: threading.Event) -> None:
    (looks.place / f"{world.rank()}.watches").write_text(str(threading.get_native_id()))
    while not over.wait(1):
        found = looks.look()
        if found is not None and found[0] != world.rank():  # Else the other one does.
            rank, said = found
            pulse.judge(looks.place, f"{said}; the run is ended")
            with suppress(ProcessLookupError):
                os.kill(looks.known[rank].pid, signal.SIGKILL)
            return


def _in(lines: list[str], parts: tuple[str, ...]) -> bool:
    return any(part in line for line in lines for part in parts)
