"""From a checked Run to its end: its folder, its processes, its tracked status."""

from __future__ import annotations

import json
import os
import secrets
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

from xp import world
from xp.error import UserError
from xp.run import Run


def new_folder(run: Run) -> Path:
    """A folder of its own for a run, named by its run id: what is run, and six random digits."""
    parts = [run.choices["model"], *([run.choices["peft"]] if run.peft.name != "none" else []), secrets.token_hex(3)]
    folder = Path(run.runs) / "-".join(parts)
    try:
        folder.mkdir(parents=True)
    except OSError as error:
        raise UserError(f"runs={run.runs}: no folder can be made there: {error.strerror}") from error
    return folder


def check_processes(run: Run) -> None:
    """Refuse a launcher's processes where the backend cannot use them.

    Raises:
        UserError: ``backend=torch`` under several processes, or another number than ``backend.processes`` says.
    """
    size = world.size()
    if size > 1 and run.backend.name == "torch":
        raise UserError(f"backend=torch: it trains in one process, and {size} were launched; use backend=accelerate or hf")
    if size > 1 and run.backend.processes not in (1, size):
        raise UserError(f"backend.processes={run.backend.processes}: {size} were launched; leave it out or make it {size}")
    if size > 1 and run.command != "train":
        raise UserError(f"command={run.command}: it runs in one process, and {size} were launched")


def start(run: Run, parent: str | None = None) -> dict[str, Any]:
    """Do a run, in this process or in as many as its backend asks for.

    Args:
        run: what to do.
        parent: MLflow's id of the sweep that the run is a job of.

    Returns:
        What the run's ``result.json`` holds, with ``run_id`` and ``folder``.

    Raises:
        UserError: what the user can mend; the tracked run, if it had begun, says so too.
    """
    check_processes(run)
    if world.size() > 1:  # Launched from outside: the ranks take rank 0's folder.
        from xp.hardware import choose_device

        world.join(choose_device(run.device).type)
        folder = Path(world.agree(str(new_folder(run)) if world.rank() == 0 else None))
        if world.rank() == 0:
            run.write(folder / "run.yaml")
        try:
            return work(run, folder, parent)
        finally:
            world.leave()
    folder = new_folder(run)
    run.write(folder / "run.yaml")
    if run.backend.processes > 1 and run.command == "train":
        return _start_workers(run, folder, parent)
    return work(run, folder, parent)


def _start_workers(run: Run, folder: Path, parent: str | None) -> dict[str, Any]:
    """Train in several processes on this machine, each going on from the frozen run; no Hydra in them."""
    threads = os.environ.get("OMP_NUM_THREADS") or str(max(1, (os.cpu_count() or 1) // run.backend.processes))
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", str(run.backend.processes)]
    command += ["--master-addr", "127.0.0.1", "--rdzv-backend", "c10d", "--rdzv-endpoint", "127.0.0.1:0"]
    command += ["--log-dir", str(folder / "workers"), "--module", "xp.launch", str(folder), *([parent] if parent else [])]
    ended = subprocess.run(command, env=os.environ | {"OMP_NUM_THREADS": threads, "XP_WORKER": "1"}, check=False)
    refused = folder / "error.txt"
    if refused.exists():
        raise UserError(refused.read_text().strip())
    if ended.returncode:
        raise RuntimeError(f"a process of run {folder.name} ended with code {ended.returncode}; see above")
    result: dict[str, Any] = json.loads((folder / "result.json").read_text())
    return result


def work(run: Run, folder: Path, parent: str | None) -> dict[str, Any]:
    """Do a run in this process, tracked from its begin to its end, with the right status in every case."""
    # Seconds of imports happen here, once the run is known to be worth it.
    from xp import commands
    from xp.report import Report
    from xp.tracking import Tracker, Untracked

    _quiet()
    signal.signal(signal.SIGTERM, _terminated)
    report = Report()
    report.say(f"run {folder.name}")
    # Only rank 0 tracks.
    tracker = Tracker(run.tracking, folder, _tags(run, folder), parent) if world.rank() == 0 else Untracked()
    status, error = "KILLED", ""
    try:
        command = {"train": commands.train, "evaluate": commands.evaluate}[run.command]
        result = command(run, folder, tracker, report)
        result |= {"run": folder.name, "run_id": tracker.opened(), "folder": str(folder)}
        if world.rank() == 0:
            tracker.artifact(commands.write_result(result, folder))
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
        "xp.processes": str(max(world.size(), run.backend.processes)),
    }


def _terminated(number: int, frame: object) -> None:
    raise SystemExit(128 + number)


def _quiet() -> None:
    """Keep libraries' bars and news out of the report; their warnings stay."""
    import datasets
    import transformers

    datasets.disable_progress_bars()
    transformers.utils.logging.disable_progress_bar()
    transformers.utils.logging.set_verbosity_error()


def main() -> int:
    """A worker: one rank of a run that `_start_workers` has started."""
    folder, parent = Path(sys.argv[1]), sys.argv[2] if len(sys.argv) > 2 else None
    run = Run.read(folder / "run.yaml")
    from xp.hardware import choose_device

    world.join(choose_device(run.device).type)
    try:
        work(run, folder, parent)
    except UserError as error:
        (folder / "error.txt").write_text(f"{error}\n")
        return 2
    finally:
        world.leave()
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
