"""Workers: the processes that train one run together on this machine, and who watches over them."""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing import get_context
from multiprocessing.connection import wait
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Any

from xp.error import UserError
from xp.process import ahead, interrupt, pulse, world
from xp.process.watch import Watch
from xp.run import Run
from xp.tracking import abandon

GRACE = 12
"""Seconds that the others have to end by themselves once one has, before they are ended."""

Work = Callable[[Run, Path, Path | None], dict[str, Any]]


@dataclass(frozen=True)
class Share:
    """What every process of a run is given."""

    number: int
    """How many they are."""

    values: dict[str, Any]
    """The run's settings."""

    folder: Path
    parent: Path | None
    place: Path
    """Where they meet, and are seen."""

    environment: dict[str, str]
    here: str
    """The current folder."""


def start(work: Work, number: int, run: Run, folder: Path, parent: Path | None) -> dict[str, Any]:
    """Train in several processes, no Hydra in them; gives rank 0's result.

    Signals go on to all of them; they save at the same step, and end. One that dies, or does nothing while the others
    wait for it, ends the run; none outlives it.

    Raises:
        UserError: what one of them refuses, or which of them has died or hangs.
    """
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // number)))
    place = pulse.meeting_place()
    context = get_context("forkserver")
    ahead.imported(["accelerate", "xp.backend.loop"])
    share = Share(number, run.values(), folder, parent, place, dict(os.environ), os.getcwd())
    processes = [context.Process(target=_worker, args=(rank, work, share)) for rank in range(number)]
    try:
        for process in processes:
            process.start()
        with interrupt.forwarding([process.pid for process in processes if process.pid]):
            lost = _wait(processes, place)
            _end(processes, place)
        _explain(processes, place, folder, lost)
    finally:
        _end(processes, place, grace=0)
        shutil.rmtree(place, ignore_errors=True)
    if interrupt.asked():
        interrupt.leave(interrupt.asked())
    result: dict[str, Any] = json.loads((folder / "result.json").read_text())
    return result


def _wait(processes: list[ForkServerProcess], place: Path) -> bool:
    """Return once all have ended, or one is at fault; True where it has died or hangs, and could not say a word."""
    watch = Watch(place, {rank: process.pid for rank, process in enumerate(processes) if process.pid}, len(processes))
    while alive := [process for process in processes if process.is_alive()]:
        wait([process.sentinel for process in alive], timeout=1)
        for rank, process in enumerate(processes):
            if not process.exitcode:
                continue
            if process.exitcode < 0:
                how = signal.Signals(-process.exitcode).name
                pulse.judge(place, f"process {rank} of {len(processes)} has ended by {how}, and the run with it")
            elif process.exitcode < 128:  # Else a signal has asked for it.
                word = (_words(place, rank).strip().splitlines() or [f"code {process.exitcode}"])[-1]
                pulse.judge(place, f"process {rank} of {len(processes)} has ended on an error: {word}")
            return process.exitcode < 0
        if found := watch.look():
            rank, said = found
            pulse.judge(place, f"{said}; the run is ended")
            _kill(processes[rank])
            return True
    return False


def _words(place: Path, rank: int) -> str:
    """What a process has refused, or the traceback of what it has failed on."""
    for kind in ("refused", "failed"):
        if (file := place / f"{kind}{rank}").exists():
            return file.read_text()
    return ""


def _end(processes: list[ForkServerProcess], place: Path, grace: float = GRACE) -> None:
    """Let all end; those that cannot by themselves are ended, with whatever they have started."""
    until = time.monotonic() + grace
    if (place / pulse.VERDICT).exists():
        for process in processes:
            if process.is_alive() and process.pid:
                os.kill(process.pid, signal.SIGTERM)
    for process in processes:
        process.join(max(0.0, until - time.monotonic()))
    for process in processes:
        _kill(process)


def _kill(process: ForkServerProcess) -> None:
    if process.pid is None or process.exitcode == 0:
        return
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)  # What it has started is in its group, and may outlive it.
    if process.is_alive():
        process.kill()  # It had no group of its own yet.
    process.join()


def _explain(processes: list[ForkServerProcess], place: Path, folder: Path, lost: bool) -> None:
    """Say what it was, if the processes have not all come to their end.

    Raises:
        UserError: what one of them refuses, or which of them has died or hangs.
    """
    if all(process.exitcode == 0 for process in processes):
        return
    for refused in sorted(place.glob("refused*")):
        abandon(folder, "FAILED", refused.read_text())  # If it was not the one that tracks which refused.
        raise UserError(refused.read_text())
    if interrupt.asked() or any(process.exitcode == 128 + signal.SIGTERM for process in processes):
        interrupt.leave(interrupt.asked() or signal.SIGTERM)
    said = (place / pulse.VERDICT).read_text() if (place / pulse.VERDICT).exists() else ""
    abandon(folder, "FAILED", said)  # If it was the one that tracks.
    if lost:
        raise UserError(f"{said}; python -m xp resume={folder} goes on")
    failed = sorted(place.glob("failed*"), key=lambda file: file.stat().st_mtime_ns)
    words = f":\n{failed[0].read_text()}" if failed else ""
    raise RuntimeError(f"{said or 'a process has ended without a word'}{words}")


def _worker(rank: int, work: Work, share: Share) -> None:
    """One rank of the run."""
    os.setpgid(0, 0)  # So that Ctrl-C comes from the parent alone, and once.
    os.chdir(share.here)
    os.environ |= share.environment | {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(share.number)}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "0"}  # Asked for by accelerate; they meet at a file.
    threading.Thread(target=_end_without, args=(os.getppid(),), name="orphan", daemon=True).start()
    place = share.place
    pulse.show(place, rank)
    import torch

    from xp.hardware import choose_device

    torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))  # It was imported before anybody knew.
    try:
        run = Run.parse(share.values)
        world.join(choose_device(run.device).type, f"file://{place / 'meeting'}")
        work(run, share.folder, share.parent)
    except UserError as error:
        if not pulse.verdict():
            (place / f"refused{rank}").write_text(str(error))
        sys.exit(2)
    except (SystemExit, KeyboardInterrupt) as asked:
        if rank == 0:  # The exit of one takes the others with it, and rank 0 has still to tell MLflow.
            sys.exit(getattr(asked, "code", 128 + signal.SIGINT))
    except Exception:
        (place / f"failed{rank}").write_text(traceback.format_exc())
        sys.exit(1)
    finally:
        world.leave()


def _end_without(starter: int) -> None:
    """End this process some time after the one that has forked it, which ends with the one that has started the run."""
    while os.getppid() == starter:
        time.sleep(1)
    os.kill(os.getpid(), signal.SIGTERM)  # Then it saves, if it can, and ends.
    time.sleep(2 * GRACE)
    os.killpg(0, signal.SIGKILL)
