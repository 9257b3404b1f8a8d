"""Workers: the processes that train one run together on this machine."""

from __future__ import annotations

import json
import logging
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

from xp import interrupt, world
from xp.error import UserError
from xp.run import Run

GRACE = 10
"""Seconds that the others have to end by themselves once one has, and again after they were asked to."""

Work = Callable[[Run, Path, Path | None], dict[str, Any]]


def start(work: Work, number: int, run: Run, folder: Path, parent: Path | None) -> dict[str, Any]:
    """Train in several processes, no Hydra in them; gives rank 0's result.

    Signals go on to all of them; they save at the same step, and end.

    Raises:
        UserError: what one of them refuses, or which of them has died.
    """
    from torch.multiprocessing.spawn import ProcessExitedException, ProcessRaisedException, start_processes

    logging.getLogger("torch.multiprocessing.spawn").setLevel(logging.ERROR)
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // number)))
    for old in folder.glob("error*.txt"):  # Of an earlier part of this run.
        old.unlink()
    context = start_processes(  # type: ignore[no-untyped-call]
        _worker, args=(work, number, run.values(), folder, parent), nprocs=number, join=False, start_method="spawn"
    )
    with interrupt.forwarding(context.pids()):
        try:
            while not context.join(grace_period=GRACE):
                pass
        except (ProcessRaisedException, ProcessExitedException) as error:
            for refused in sorted(folder.glob("error*.txt")):
                raise UserError(refused.read_text()) from error
            if interrupt.asked() or getattr(error, "exit_code", 1) == 128 + signal.SIGTERM:
                interrupt.leave(interrupt.asked() or signal.SIGTERM)
            name = getattr(error, "signal_name", None)
            how = f"by {name}" if name else "on an error"
            if isinstance(error, ProcessRaisedException):
                raise RuntimeError(f"process {error.error_index} of {number} of {folder} has died: {error}") from error
            raise UserError(
                f"process {error.error_index} of {number} has ended {how}, and the run with it; "
                f"python -m xp resume={folder} goes on"
            ) from error
    if interrupt.asked():
        interrupt.leave(interrupt.asked())
    result: dict[str, Any] = json.loads((folder / "result.json").read_text())
    return result


def _worker(rank: int, work: Work, number: int, values: dict[str, Any], folder: Path, parent: Path | None) -> None:
    """One rank of the run."""
    os.setpgid(0, 0)  # So that Ctrl-C comes from the parent alone, and once.
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(number)}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "0"}  # Asked for by accelerate; they meet at a file.
    from xp.hardware import choose_device

    run = Run.parse(values)
    meeting = folder / f"meeting-{os.getppid()}"  # A new one for each start: an old one would never open.
    try:
        world.join(choose_device(run.device).type, f"file://{meeting.absolute()}")
        work(run, folder, parent)
    except UserError as error:
        (folder / f"error{rank}.txt").write_text(str(error))
        raise
    except SystemExit:
        if rank == 0:  # The exit of one takes the others with it, and rank 0 has still to tell MLflow.
            raise
    finally:
        world.leave()
        meeting.unlink(missing_ok=True)
