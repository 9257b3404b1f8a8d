"""Memory that does not suffice: micro-batches become smaller, or a line says what to change."""

from __future__ import annotations

import json
import os
import re
import resource
from collections.abc import Callable
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import pytest
from bombs import BOMBS, forkserver
from conftest import SMALL, command, curve, journal, write_rows
from test_resume import go_on, only

from xp.error import UserError
from xp.launch import start
from xp.run import Run

LARGE = [
    "model.config.hidden_size=128",
    "model.config.intermediate_size=1024",
    "model.config.attention_dropout=0.2",
    "task=causal_lm",
    "task.max_length=256",
    "training.batch_size=32",
    "training.max_steps=4",
    "training.evaluate_every=2",
    "training.save_every=null",
    "training.learning_rate=1e-2",
]
"""Rows of one length, so that it is the first step that does not fit; a step of 32 takes some 500 MB."""

ROOM = 230_000_000
"""Bytes beyond what the process has before the training: less than a whole step takes, more than a fourth of one."""


@pytest.fixture
def long_rows(corpus: Path) -> None:
    made = [{"text": " ".join(f"w{(row * 7 + at) % 90}" for at in range(400))} for row in range(64)]
    write_rows(corpus / "train.jsonl", made)
    write_rows(corpus / "eval.jsonl", made[:32])


def _limited(values: dict[str, Any], here: str, folder: str | None, bomb: str, number: int, answer: Any) -> None:
    import torch

    from xp.training import job

    os.chdir(here)
    with open("child.log", "a") as log:
        os.dup2(log.fileno(), 1)
        os.dup2(log.fileno(), 2)
    torch.set_num_threads(1)
    BOMBS[bomb](number)
    steps = job.Job.steps

    def limited(self: job.Job) -> Any:
        taken = int(re.findall(r"VmData:\s*(\d+) kB", Path("/proc/self/status").read_text())[0]) * 1024
        resource.setrlimit(resource.RLIMIT_DATA, (taken + ROOM, resource.getrlimit(resource.RLIMIT_DATA)[1]))
        return steps(self)

    job.Job.steps = limited  # type: ignore[method-assign]
    try:
        answer.send(start(Run.parse(values), folder=Path(folder) if folder else None))
    except UserError as error:
        answer.send(str(error))


def limited(run: Run, bomb: str = "none", number: int = 0, folder: Path | None = None) -> Any:
    """A run's result or refusal, done where memory is short from its first step on."""
    ours, theirs = get_context("forkserver").Pipe(duplex=False)
    arguments = (run.values(), os.getcwd(), str(folder) if folder else None, bomb, number, theirs)
    process = forkserver().Process(target=_limited, args=arguments)
    process.start()
    theirs.close()
    process.join(timeout=300)
    try:
        return ours.recv()
    except EOFError:
        return process.exitcode


@pytest.mark.parametrize("backend", ["torch", pytest.param("accelerate", marks=pytest.mark.slow), "hf"])
def test_micro_batches_become_smaller_until_they_fit(
    backend: str, long_rows: None, compose: Callable[..., Any], run: Callable[..., Any]
) -> None:
    """And then the run is that which had this size from its begin, to the last bit, if that is where it was found.

    What fits is for the allocator to say: now and then a step finds out what the one before did not. Then the steps
    before have drawn their dropout for larger micro-batches, and the curves are alike, not the same.
    """
    from mlflow import MlflowClient

    result = limited(compose(*LARGE, "training.micro_batch_size=auto", f"backend={backend}"))
    said = Path("child.log").read_text()
    assert isinstance(result, dict), said
    found = re.findall(r"out of memory at step (\d+) with (\d+) sequences at once; goes on with (\d+)", said)
    assert found[0][:2] == ("1", "32")
    assert [int(each[1]) // 2 for each in found] == [int(each[2]) for each in found]
    assert [each[1] for each in found[1:]] == [each[2] for each in found[:-1]]
    _, _, size = found[-1]
    since = found[-1][0]
    tags = MlflowClient(f"sqlite:///{Path('runs/mlflow.db').absolute()}").get_run(result["run_id"]).data.tags
    assert tags["xp.micro_batch_size"] == f"{size} from step {since} on"
    whole = run(*LARGE, f"training.micro_batch_size={size}", f"backend={backend}")
    names = ("train/loss", "train/grad_norm")
    curves = curve(journal(Path(result["folder"])), *names), curve(whole["points"], *names)
    if since == "1":
        assert curves[0] == curves[1]
        assert result["digest"] == whole["digest"]
    for (step, *one), (_, *other) in zip(*curves, strict=True):
        assert one == pytest.approx(other, rel=5e-2), step


@pytest.mark.slow
def test_the_size_that_fits_is_remembered(long_rows: None, compose: Callable[..., Any]) -> None:
    """By a run that goes on with memory in plenty."""
    assert limited(compose(*LARGE, "training.micro_batch_size=auto", "training.save_every=1"), "saved", 25) < 0
    size = re.findall(r"sequences at once; goes on with (\d+)", Path("child.log").read_text())[-1]
    (last,) = (go_on() / "checkpoints").glob("step-*")
    state = json.loads((last / "state.json").read_text())
    assert (state["step"], state["portions"]["training"]) == (4, int(size))


def test_without_auto_a_line_says_what_to_change(long_rows: None, compose: Callable[..., Any]) -> None:
    refused = limited(compose(*LARGE))
    assert refused.startswith(
        "training.micro_batch_size=null: out of memory at step 1 with 32 sequences at once; "
        "use training.micro_batch_size=16, or auto, which finds what fits; "
    )
    assert "\n" not in refused
    journalled = (only() / "journal.jsonl").read_text().splitlines()
    assert json.loads(journalled[-1])["status"] == "FAILED"
    assert limited(compose(*LARGE, "runs_folder=again"), folder=only()) == refused
    smaller = limited(compose(*LARGE, "training.micro_batch_size=4", "training.evaluation_batch_size=4"), folder=only())
    assert isinstance(smaller, dict), smaller
    assert smaller["folder"] == str(only())


def test_evaluations_become_smaller_too(long_rows: None, compose: Callable[..., Any], run: Callable[..., Any]) -> None:
    settings = [*LARGE, "training.evaluation_batch_size=32", "task.max_length=400", "training.max_steps=2"]
    result = limited(compose(*settings, "training.micro_batch_size=auto", "training.batch_size=2"))
    said = Path("child.log").read_text()
    assert isinstance(result, dict), said
    sizes = re.findall(r"with (\d+) rows in an evaluation at once; goes on with (\d+)", said)
    assert sizes[0] == ("32", "16")
    whole = run(*settings, f"training.evaluation_batch_size={sizes[-1][1]}", "training.batch_size=2")
    assert result["metrics"] == whole["metrics"]
    refused = limited(compose(*settings, "training.micro_batch_size=1", "training.batch_size=2"))
    assert refused.startswith("training.evaluation_batch_size=32: out of memory with 32 rows at once; use ")


FAULTY = """
import os
import torch
from xp.training.job import Job

loss, calls = Job.loss, 0

def faulty(self, network, step, micro):
    global calls
    calls += 1
    if os.environ.get("RANK") == "1" and calls == 4:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
    return loss(self, network, step, micro)

Job.loss = faulty
"""


def test_processes_agree_on_a_smaller_size(run: Callable[..., Any], corpus: Path) -> None:
    """One of two has no memory for its second micro-batch: both do the step again, and the curve is that of one."""
    (corpus / "faulty.py").write_text(FAULTY)
    settings = ["task=causal_lm", "training.batch_size=7", "training.max_steps=5"]
    two = [*settings, "training.micro_batch_size=auto", "backend=accelerate", "backend.processes=2"]
    done = command(*SMALL, *two, "imports=[faulty]", folder=corpus)
    assert done.returncode == 0, done.stderr
    assert "out of memory at step 4 with 4 sequences at once; goes on with 2" in done.stdout
    assert "xp: process 1: out of memory at step 4" in done.stderr
    points = curve(journal(only()), "train/loss", "train/grad_norm")
    alone = curve(run(*settings, "runs_folder=alone")["points"], "train/loss", "train/grad_norm")
    for mine, one in zip(points, alone, strict=True):
        assert mine == pytest.approx(one, rel=1e-4)


@pytest.mark.parametrize("value", ["0", "-1", "some", "true", "1.5", "[1]"])
def test_a_wrong_size_is_refused(value: str, compose: Callable[..., Any]) -> None:
    with pytest.raises(UserError, match=r"^training.micro_batch_size=.*: it must be a whole number from 1 on, auto or"):
        compose(f"training.micro_batch_size={value}")
