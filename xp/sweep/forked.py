"""Forked: a job's own process, forked from one that has imported the libraries already."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Iterable
from multiprocessing import forkserver, parent_process
from multiprocessing.connection import Connection
from pathlib import Path
from typing import TYPE_CHECKING, Any

from xp.error import UserError
from xp.ledger import Claim
from xp.process import ahead
from xp.secret import redacted

if TYPE_CHECKING:
    from xp.run import Run

AHEAD = ["mlflow", "mlflow.store.tracking.sqlalchemy_store"]
AHEAD_FOR = {"hf": ["transformers.trainer"], "accelerate": ["accelerate"]}
"""Imported once, before the first job is forked; the second only where a job's backend needs it."""


GRACE = 10
"""Seconds that a job has to save and end by itself once its sweep is gone."""


def warm(runs: Iterable[Run]) -> None:
    """Start the process that jobs are forked from; it imports what these runs need while this one goes on."""
    backends = sorted({run.backend.name for run in runs})
    ahead.imported(AHEAD + [name for backend in backends for name in AHEAD_FOR.get(backend, [])])
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})  # Ctrl-C comes to it as well; the jobs hear of it by us.
    try:
        forkserver.ensure_running()
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})


def death(code: int) -> str:
    """How a process has ended that has not said why."""
    if code >= 0:
        return f"its process has ended with code {code}"
    name = signal.Signals(-code).name
    return f"killed by {name}{', perhaps out of memory' if name == 'SIGKILL' else ''}"


def share(visible: list[str], slot: int, processes: int) -> list[str]:
    """The GPUs of a job in a slot: one for each of its processes, those of neighbouring slots where they suffice."""
    number = min(processes, len(visible))
    return [visible[(slot * number + each) % len(visible)] for each in range(number)]


def do(
    values: dict[str, Any],
    parent: Path,
    folder: Path | None,
    claim: Claim,
    answer: Connection,
    log: Path,
    slot: int | None,
    threads: int,
) -> None:
    """A job, in its own process: what it prints goes to its log."""
    from xp.launch import start
    from xp.run import Run

    os.setpgid(0, 0)  # Ctrl-C comes from the sweep alone, and once.
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
    threading.Thread(target=_end_with_the_sweep, daemon=True).start()
    with log.open("a") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    import torch

    if slot is not None:
        torch.set_num_threads(threads)
        os.environ["OMP_NUM_THREADS"] = os.environ["XP_CORES"] = str(threads)
        if gpus := torch.cuda.device_count():
            visible = os.environ.get("CUDA_VISIBLE_DEVICES", ",".join(map(str, range(gpus)))).split(",")
            os.environ["CUDA_VISIBLE_DEVICES"] = ",".join(share(visible, slot, values["backend"]["processes"]))
    try:
        answer.send(("result", start(Run.parse(values), parent, folder, claim=claim)))
    except UserError as error:
        print(f"xp: {error}", file=sys.stderr)
        answer.send(("refused", str(error)))
    except Exception as error:
        print(redacted(traceback.format_exc()), end="", file=sys.stderr)
        said = str(error).strip().splitlines()[0] if str(error) else ""
        answer.send(("failed", redacted(f"{type(error).__name__}: {said}")))


def _end_with_the_sweep() -> None:
    """Wait in a thread for the sweep's process to be gone, however it went; this one saves and ends then."""
    sweep = parent_process()
    assert sweep is not None
    sweep.join()
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(GRACE)
    os.killpg(0, signal.SIGKILL)
