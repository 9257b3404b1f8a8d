"""Runs that are killed at a chosen moment: in a process of their own, by SIGKILL, which nothing can soften."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable
from multiprocessing import get_context
from multiprocessing.context import ForkServerContext
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from xp.process import ahead
from xp.run import Run
from xp.sweep.forked import AHEAD

EVERYTHING = [*AHEAD, "accelerate", "transformers.trainer", "peft", "xp.launch", "xp.training.job", "xp.backend.loop"]
"""What tests fork processes with, whichever of them is the first to do so."""


def kill(*arguments: Any, **named: Any) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def nth(function: Callable[..., Any], number: int, instead: Callable[..., Any] = kill) -> Callable[..., Any]:
    """A function that is replaced at its ``number``-th call, counted from 1."""
    calls = 0

    def counted(*arguments: Any, **named: Any) -> Any:
        nonlocal calls
        calls += 1
        return (instead if calls == number else function)(*arguments, **named)

    return counted


def _before_a_step(number: int) -> None:
    from xp.training.job import Job

    Job.loss = nth(Job.loss, number)  # type: ignore[method-assign]


def _before_a_step_once_all_is_saved(number: int) -> None:
    """For what depends on which checkpoint there is: they are written beside the training, a slow machine's late."""
    from xp.saving.writer import Writer
    from xp.training.job import Job

    save, writers = Writer.save, []

    def noted(self: Writer, *arguments: Any) -> None:
        writers[:] = [self]
        save(self, *arguments)

    def settle(*arguments: Any) -> None:
        for writer in writers:
            writer.wait()
        kill()

    Writer.save = noted  # type: ignore[method-assign]
    Job.loss = nth(Job.loss, number, settle)  # type: ignore[method-assign]


def _before_the_schedule(number: int) -> None:
    import torch

    steps = nth(torch.optim.lr_scheduler.LambdaLR.step, number + 1)  # It steps once when it is made.
    torch.optim.lr_scheduler.LambdaLR.step = steps  # type: ignore[method-assign]


def _in_a_save(number: int) -> None:
    from xp.saving import checkpoint

    checkpoint._flush = nth(checkpoint._flush, number)


def _in_a_prune(number: int) -> None:
    from xp.saving import checkpoint

    def half(folder: Path) -> None:
        os.replace(folder, folder.with_name(f"{folder.name}.old"))
        kill()

    checkpoint.discard = nth(checkpoint.discard, number, half)


def _while_it_resumes(number: int) -> None:
    from xp.saving import state

    state.take_weights = nth(state.take_weights, number)


def _in_the_midst_of_a_file(number: int) -> None:
    import safetensors.torch

    whole = safetensors.torch.save_file

    def half(tensors: Any, file: Path) -> None:
        content = safetensors.torch.save(tensors)
        Path(file).write_bytes(content[: len(content) // 2])
        kill()

    safetensors.torch.save_file = nth(whole, number, half)


def _in_a_removal(number: int) -> None:
    import shutil

    def half(folder: Path, **named: Any) -> None:
        for file in sorted(Path(folder).glob("*"))[:2]:
            file.unlink()
        kill()

    shutil.rmtree = nth(shutil.rmtree, number, half)  # type: ignore[assignment]


def _while_it_reads(number: int) -> None:
    from xp.saving import checkpoint

    checkpoint.fault = nth(checkpoint.fault, number)


def _before_the_optimizer_is_as_it_was(number: int) -> None:
    import torch

    torch.optim.Optimizer.load_state_dict = nth(torch.optim.Optimizer.load_state_dict, number)  # type: ignore[method-assign]


def _while_settings_are_frozen(number: int) -> None:
    from xp import run
    from xp.commands import going_on

    run.write = going_on.write = nth(run.write, number)


def _before_it_clears_up(number: int) -> None:
    from xp.saving.writer import Writer

    Writer._clear = nth(Writer._clear, number)  # type: ignore[method-assign]


def _before_the_end_is_told(number: int) -> None:
    from xp.tracking import Tracker

    Tracker.close = nth(Tracker.close, number)  # type: ignore[method-assign]


BOMBS = {
    "step": _before_a_step,
    "saved": _before_a_step_once_all_is_saved,
    "schedule": _before_the_schedule,
    "save": _in_a_save,
    "prune": _in_a_prune,
    "half": _in_the_midst_of_a_file,
    "discard": _in_a_removal,
    "resume": _while_it_resumes,
    "reading": _while_it_reads,
    "optimizer": _before_the_optimizer_is_as_it_was,
    "freezing": _while_settings_are_frozen,
    "clearing": _before_it_clears_up,
    "closing": _before_the_end_is_told,
    "none": lambda number: None,
}


def _child(values: dict[str, Any], here: str, folder: str | None, bomb: str, number: int) -> None:
    from xp.launch import start

    os.chdir(here)
    _log()
    BOMBS[bomb](number)
    start(Run.parse(values), folder=Path(folder) if folder else None)


def begun(run: Run, steps: int, folder: Path | None = None) -> BaseProcess:
    """Begin a run (or go on with that of a folder) in a process of its own; returns once it has done some steps."""
    process = begin(run, "none", 0, folder)
    wait_for_step(process, steps)
    return process


def wait_for_step(process: BaseProcess, step: int) -> None:
    """Return once the process has journalled that step."""
    until = time.monotonic() + 300
    while not any(f'"step": {step}, ' in file.read_text() for file in Path().glob("runs/*/journal.jsonl")):
        assert process.is_alive(), Path("child.log").read_text()
        assert time.monotonic() < until
        time.sleep(0.02)


def typed(*arguments: str) -> BaseProcess:
    """Begin what the command line says, in a process of its own."""
    process = forkserver().Process(target=_typed, args=(arguments, os.getcwd()))
    process.start()
    return process


def _typed(arguments: tuple[str, ...], here: str) -> None:
    from xp.__main__ import main

    os.setpgid(0, 0)
    os.chdir(here)
    _log()
    sys.argv = ["xp", *arguments]
    sys.exit(main())


def _log() -> None:
    with open("child.log", "a") as log:
        os.dup2(log.fileno(), 1)
        os.dup2(log.fileno(), 2)


def killed(run: Run, bomb: str, number: int, folder: Path | None = None) -> int:
    """Do a run (or go on with that of a folder) until the bomb goes off; gives the exit code of its process."""
    process = begin(run, bomb, number, folder)
    process.join(timeout=120)
    assert process.exitcode is not None, Path("child.log").read_text()
    return process.exitcode


def forkserver() -> ForkServerContext:
    """What forks processes that have imported the libraries already."""
    ahead.imported(EVERYTHING)
    return get_context("forkserver")


def begin(run: Run, bomb: str, number: int, folder: Path | None) -> BaseProcess:
    """Begin a run (or go on with that of a folder) in a process of its own, with a bomb in it."""
    arguments = (run.values(), os.getcwd(), str(folder) if folder else None, bomb, number)
    process = forkserver().Process(target=_child, args=arguments)
    process.start()
    return process
