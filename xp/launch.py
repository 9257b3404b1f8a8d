"""From a checked Run to its end: its folder, its processes, its tracked status."""

from __future__ import annotations

import json
import logging
import os
import re
import secrets
import signal
import time
import warnings
from pathlib import Path
from typing import Any

from xp import world
from xp.error import UserError
from xp.run import Run

FOREIGN = (
    ("ACCELERATE_MIXED_PRECISION", "no", "use precision=bf16 or fp32"),
    ("ACCELERATE_GRADIENT_ACCUMULATION_STEPS", "1", "use training.micro_batch_size"),
    ("ACCELERATE_DYNAMO_BACKEND", "no", "use training.compile=true"),
    ("ACCELERATE_USE_FSDP", "false", "xp has no sharding"),
    ("ACCELERATE_USE_DEEPSPEED", "false", "xp has no sharding"),
)
"""What ``accelerate launch`` sets, its harmless value, and what to use instead: it would change numbers unseen."""


def new_folder(run: Run) -> Path:
    """A folder of its own for a run, named by its run id: what is run, and six random digits."""
    parts = [run.choices["model"], *([run.choices["peft"]] if run.peft.name != "none" else []), secrets.token_hex(3)]
    folder = Path(run.runs) / "-".join(parts)
    try:
        folder.mkdir(parents=True)
    except OSError as error:
        raise UserError(f"runs={run.runs}: no folder can be made there: {error.strerror}") from error
    return folder


def processes(run: Run) -> int:
    """How many processes are to train this run.

    Raises:
        UserError: ``backend=torch`` under several processes, or another number than ``backend.processes`` says.
    """
    for variable, harmless, instead in FOREIGN:
        if os.environ.get(variable, harmless).lower() not in (harmless, "false", "0"):
            raise UserError(
                f"{variable}={os.environ[variable]}: from accelerate launch, but xp decides that; {instead}"
            )
    launched = world.size() if world.size() > 1 else _unstarted()
    if launched > 1 and run.backend.name == "torch":
        raise UserError(f"backend=torch: it trains in one process, and {launched} were launched; use accelerate or hf")
    if launched > 1 and run.backend.processes not in (1, launched):
        raise UserError(f"backend.processes={run.backend.processes}: {launched} were launched; leave it out")
    if launched > 1 and run.command != "train":
        raise UserError(f"command={run.command}: it runs in one process, and {launched} were launched")
    return max(launched, run.backend.processes)


def _unstarted() -> int:
    """How many processes ``accelerate launch`` was asked for where it has started just this one; else 1.

    Without a GPU and without MPI, accelerate 1.15 starts a single process whatever ``--num_processes`` says, and
    leaves no trace of the number but on its command line.
    """
    if "ACCELERATE_MIXED_PRECISION" not in os.environ or "MASTER_PORT" not in os.environ or "RANK" in os.environ:
        return 1
    import psutil

    line = " ".join(psutil.Process(os.getppid()).cmdline())
    asked = re.search(r"--num[_-]processes[ =](\d+)", line)
    if asked is None:
        raise UserError("accelerate launch has started one process of several; say how many with backend.processes=<n>")
    print(f"accelerate launch has started one process of {asked[1]} on this machine; xp starts them", flush=True)
    return int(asked[1])


def start(run: Run, parent: str | None = None) -> dict[str, Any]:
    """Do a run, in this process or in as many as were asked for.

    Args:
        run: what to do.
        parent: MLflow's id of the sweep that the run is a job of.

    Returns:
        What the run's ``result.json`` holds, with ``run_id`` and ``folder``.

    Raises:
        UserError: what the user can mend; the tracked run, if it had begun, says so too.
    """
    wanted = processes(run)
    if run.command == "show":
        return _show(run)
    if world.size() > 1:  # Launched from outside: the ranks take rank 0's folder.
        from xp.hardware import choose_device

        world.join(choose_device(run.device).type)
        folder = Path(world.agree(str(_frozen(run)) if world.rank() == 0 else None))
        try:
            return work(run, folder, parent)
        finally:
            world.leave()
    folder = _frozen(run)
    return _start_workers(wanted, folder, parent) if wanted > 1 else work(run, folder, parent)


def _show(run: Run) -> dict[str, Any]:
    """Show rows: no folder, no tracked run, no result."""
    from xp import commands
    from xp.report import Report

    _quiet()
    commands.show(run, Report())
    return {}


def _frozen(run: Run) -> Path:
    folder = new_folder(run)
    run.write(folder / "run.yaml")
    return folder


def _start_workers(number: int, folder: Path, parent: str | None) -> dict[str, Any]:
    """Train in several processes on this machine, each going on from the frozen run; no Hydra in them."""
    from torch.multiprocessing.spawn import ProcessExitedException, ProcessRaisedException, start_processes

    logging.getLogger("torch.multiprocessing.spawn").setLevel(logging.ERROR)
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // number)))
    try:
        start_processes(  # type: ignore[no-untyped-call]
            _worker, args=(number, folder, parent), nprocs=number, start_method="spawn"
        )
    except (ProcessRaisedException, ProcessExitedException) as error:
        for refused in sorted(folder.glob("error*.txt")):
            raise UserError(refused.read_text()) from error
        raise RuntimeError(f"process {error.error_index} of {number} of run {folder.name} has died: {error}") from error
    result: dict[str, Any] = json.loads((folder / "result.json").read_text())
    return result


def _worker(rank: int, number: int, folder: Path, parent: str | None) -> None:
    """One rank of a run that `_start_workers` has started."""
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(number)}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "0"}  # Asked for by accelerate; they meet at a file.
    from xp.hardware import choose_device

    run = Run.read(folder / "run.yaml")
    try:
        world.join(choose_device(run.device).type, f"file://{(folder / 'rendezvous').absolute()}")
        work(run, folder, parent)
    except UserError as error:
        (folder / f"error{rank}.txt").write_text(str(error))
        for _ in range(300):  # The first to end takes the others with it: let rank 0 tell MLflow what happened.
            if (folder / "error0.txt").exists():
                break
            time.sleep(0.1)
        raise
    finally:
        world.leave()
        (folder / "rendezvous").unlink(missing_ok=True)


def work(run: Run, folder: Path, parent: str | None) -> dict[str, Any]:
    """Do a run in this process, tracked from its begin to its end, with the right status in every case."""
    # Seconds of imports happen here, once the run is known to be worth it.
    from xp import commands
    from xp.hardware import source
    from xp.report import Report
    from xp.tracking import Tracker, Untracked

    _quiet()
    signal.signal(signal.SIGTERM, terminated)
    report = Report()
    report.say(f"run {folder.name}")
    # Only rank 0 tracks.
    tracker = Tracker(run.tracking, folder, _tags(run, folder) | source(), parent) if world.rank() == 0 else Untracked()
    status, error = "KILLED", ""
    try:
        command = {"train": commands.train, "evaluate": commands.evaluate, "predict": commands.predict}[run.command]
        result = command(run, folder, tracker, report)
        result |= {"run": folder.name, "run_id": tracker.opened(), "folder": str(folder)}
        if world.rank() == 0:
            (folder / "result.json").write_text(json.dumps(result, indent=2) + "\n")
            tracker.artifact(folder / "result.json")
            if "model" in result and run.tracking.log_model:
                tracker.artifact(Path(result["model"]))
        if result.get("digest"):
            tracker.tags({"xp.weights": result["digest"]})
        status = "FINISHED"
    except Exception as failure:
        status, error = "FAILED", f"{type(failure).__name__}: {failure}"
        raise
    finally:
        tracker.artifact(folder / "run.yaml")
        tracker.close(status, error)  # type: ignore[arg-type]
    report.result(run, result, result["run_id"])
    return result


def _tags(run: Run, folder: Path) -> dict[str, str]:
    """What people filter runs by."""
    tags = {f"xp.{group}": choice for group, choice in run.choices.items()}
    return tags | {
        "xp.command": run.command,
        "xp.seed": str(run.seed),
        "xp.folder": str(folder),
        "xp.config": run.digest(),
        "xp.processes": str(world.size()),
    }


def terminated(number: int, frame: object) -> None:
    """Leave by an exception, so that every run that is open gets closed."""
    raise SystemExit(128 + number)


def _quiet() -> None:
    """Keep libraries' bars and news out of the report; their warnings stay."""
    import datasets
    import transformers

    datasets.disable_progress_bars()
    transformers.utils.logging.disable_progress_bar()
    transformers.utils.logging.set_verbosity_error()
    # peft 0.21 asks transformers 5.23 by an old name; nothing that a user could change.
    warnings.filterwarnings("ignore", message="`is_gradient_checkpointing` is deprecated", category=FutureWarning)
    # Of every spectrogram transformer that was trained on AudioSet; it is how they are.
    warnings.filterwarnings("ignore", message="At least one mel filter has all zero values", category=UserWarning)
