"""From a checked Run to its end: its folder, its processes, its tracked status."""

from __future__ import annotations

import json
import os
import re
import secrets
import sys
import warnings
from contextlib import closing, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

from xp import mishap, workers
from xp.comparison import Comparing, Origin
from xp.error import UserError
from xp.ledger import Claim
from xp.process import interrupt, lock, watch, world
from xp.run import Run, write
from xp.tracking import Tracker, Untracked

if TYPE_CHECKING:
    from xp.report import Report

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
    # Names of choices may come from a run that somebody else has made: none of them leads elsewhere.
    folder = Path(run.runs_folder) / "-".join(re.sub(r"[^\w.-]+", "-", part).strip(".-") for part in parts)
    try:
        folder.mkdir(parents=True)
    except OSError as error:
        raise UserError(f"runs_folder={run.runs_folder}: no folder can be made there: {error.strerror}") from error
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


def start(
    run: Run,
    parent: Path | None = None,
    folder: Path | None = None,
    origin: Origin | None = None,
    claim: Claim | None = None,
) -> dict[str, Any]:
    """Do a run, in this process or in as many as were asked for.

    Args:
        run: what to do.
        parent: folder of the sweep that the run is a job of.
        folder: of a run that goes on; what it is to be now is frozen there once it does.
        origin: the run that this one does again.
        claim: the right to do it, where a sweep has taken it already.

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
        try:
            if world.rank() == 0:
                folder, claim = _begun(run, folder, origin, claim)
            # What "last" is, and what the settings were, may change between two looks: rank 0's count.
            values, name = world.agree((run.values(), str(folder)))
            with lock.held(Path(name), lock.STARTER) if world.rank() == 0 else nullcontext(), watch.beside():
                return work(Run.parse(values), Path(name), parent)
        finally:
            world.leave()
    folder, claim = _begun(run, folder, origin, claim)
    with lock.held(folder, lock.STARTER), closing(claim):
        return workers.start(work, wanted, run, folder, parent) if wanted > 1 else work(run, folder, parent)


def _show(run: Run) -> dict[str, Any]:
    """Show rows: no folder, no tracked run, no result."""
    from xp import commands
    from xp.report import Report

    _quiet()
    commands.show(run, Report())
    return {}


def _begun(run: Run, folder: Path | None, origin: Origin | None, claim: Claim | None) -> tuple[Path, Claim]:
    """The run's folder, known to the ledger, and the right to the run, so that no sweep does it meanwhile.

    Whoever wants the same run twice by hand gets it twice.
    """
    folder = folder or _frozen(run, origin)
    if claim is None:
        claim = Claim.of(run.values())
        claim.take()
    claim.note(folder)
    return folder, claim


def _frozen(run: Run, origin: Origin | None) -> Path:
    folder = new_folder(run)
    run.write(folder / "run.yaml")
    if origin is not None:
        origin.write(folder)
    return folder


def work(run: Run, folder: Path, parent: Path | None) -> dict[str, Any]:
    """Do a run in this process, tracked from its begin to its end, with the right status in every case."""
    with interrupt.listening(), lock.held(folder, lock.WORKER) if world.rank() == 0 else nullcontext():
        return _tracked(run, folder, parent)


def _tracked(run: Run, folder: Path, parent: Path | None) -> dict[str, Any]:
    # Seconds of imports happen here, once the run is known to be worth it.
    from xp import commands
    from xp.chat.terminal import Terminal
    from xp.report import Report

    _quiet()
    report = Report(aside=run.command == "chat" and not Terminal.is_interactive())
    report.say(f"run {folder.name}")
    # Only rank 0 tracks.
    tracker = _tracker(run, folder, parent, report)
    tracker.artifact(folder / "run.yaml")  # First of all: whoever kills it, it can be run again.
    if run.command != "train" and run.peft.name != "none":
        unused = f"peft={run.choices['peft']}"
        report.say(
            f"{unused}: command={run.command} makes no adapter and does not use it; one that there is takes part "
            "as model.path=<folder> or in peft.adapters"
        )
        tracker.tags({"xp.unused": unused})
    status, error = "KILLED", ""
    try:
        result: dict[str, Any] = getattr(commands, run.command)(run, folder, tracker, report)
        result |= {"run": folder.name, "run_id": tracker.run_id, "folder": str(folder)}
        if world.rank() == 0:
            write(folder / "result.json", json.dumps(result, indent=2) + "\n")
            tracker.artifact(folder / "result.json")
            if "model" in result and run.tracking.log_model:
                tracker.artifact(Path(result["model"]))
        if result.get("digest"):
            tracker.tags({"xp.weights": result["digest"]})
        status = "FINISHED"
    except Exception as failure:
        status, error = "FAILED", f"{type(failure).__name__}: {failure}"
        if isinstance(failure, UserError) or (said := mishap.explained(failure, run.command, folder)) is None:
            raise
        error = said
        raise UserError(said) from failure
    finally:
        try:
            tracker.artifact(folder / "run.yaml")  # It may have become longer.
            tracker.close(status, error)  # type: ignore[arg-type]
        except (UserError, OSError) as trouble:  # A disk that is full, most of all: what it was first must be told.
            if not error:
                raise UserError(f"{folder}: its end cannot be journalled: {trouble}") from trouble
            print(f"xp: {trouble}", file=sys.stderr)
    result["run_id"] = tracker.run_id
    report.result(run, result, tracker.run_id)
    return result


def _tracker(run: Run, folder: Path, parent: Path | None, report: Report) -> Tracker:
    """Only rank 0 tracks."""
    from xp.hardware import source

    if world.rank() != 0:
        return Untracked()
    tags = _tags(run, folder) | source()
    if (origin := Origin.read(folder)) is not None:
        return Comparing(origin, run, report, folder, tags, parent)
    return Tracker(run.tracking, folder, tags, parent)


def _tags(run: Run, folder: Path) -> dict[str, str]:
    """What people filter runs by."""
    unread = "" if run.command in ("train", "evaluate") else "data"
    return {f"xp.{group}": choice for group, choice in run.choices.items() if group != unread} | {
        "xp.command": run.command,
        "xp.seed": str(run.seed),
        "xp.folder": str(folder),
        "xp.config": run.digest(),
        "xp.processes": str(world.size()),
    }


def _quiet() -> None:
    """Keep libraries' bars and news out of the report; their warnings stay."""
    import datasets
    import transformers

    datasets.disable_progress_bars()
    transformers.utils.logging.disable_progress_bar()
    transformers.utils.logging.set_verbosity_error()
    # peft 0.21 asks transformers 5.23 by an old name; nothing that a user could change.
    warnings.filterwarnings("ignore", message="`is_gradient_checkpointing` is deprecated", category=FutureWarning)
    # Prefixes, as peft 0.21 gives them to transformers 5.24; and what it multiplies as sparse matrices.
    warnings.filterwarnings("ignore", message="`past_key_values` is deprecated", category=FutureWarning)
    warnings.filterwarnings("ignore", message="Sparse invariant checks are implicitly", category=UserWarning)
    # Of every spectrogram transformer that was trained on AudioSet; it is how they are.
    warnings.filterwarnings("ignore", message="At least one mel filter has all zero values", category=UserWarning)
