"""Several processes of one run: one that dies or hangs ends it, one that is slow does not."""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from conftest import SMALL, command
from test_resume import LONG, ended, go_on, only, told

from xp.error import UserError
from xp.launch import start
from xp.process import pulse
from xp.process.watch import PATIENCE, Watch
from xp.training.job import Job

ODD = """
import os, signal, time
from pathlib import Path
from xp.training.job import Job

loss, calls, pids = Job.loss, 0, Path("pids")

def odd(self, network, step, micro):
    global calls
    if not calls:
        with pids.open("a") as file:
            file.write(f"{os.getpid()}\\n")
    calls += 1
    act, at, rank = Path("odd").read_text().split()
    if (os.environ.get("RANK"), calls) == (rank, int(at)):
        Path("acted").write_text(str(time.time()))
        if act == "sleep":
            time.sleep(10**6)
        if act == "fail":
            1 / 0
        os.kill(os.getpid(), signal.SIGSTOP if act == "stop" else signal.SIGKILL)
    return loss(self, network, step, micro)

Job.loss = odd
"""
TWO = ["backend=accelerate", "backend.processes=2", "training.workers=1", "imports=[odd]"]


@pytest.fixture
def odd(corpus: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], None]]:
    """Has a process of the next run do something odd: what, at which micro-batch, and which rank."""
    monkeypatch.syspath_prepend(corpus)
    monkeypatch.setattr(Job, "loss", Job.loss)  # Restored at the end: this process imports the module, too.
    Path("odd.py").write_text(ODD)
    yield lambda act: Path("odd").write_text(act) and None
    sys.modules.pop("odd", None)


@pytest.mark.slow
def test_whatever_a_process_does_the_run_ends_and_goes_on(
    compose: Callable[..., Any], odd: Callable[[str], None]
) -> None:
    """It sleeps for ever, is stopped, is killed: each time the run ends and says which, and at last it is as if nothing
    had happened."""
    from mlflow import MlflowClient

    odd("none 0 0")
    whole = Path(start(compose(*LONG, *TWO, "runs_folder=whole"))["folder"])
    client = MlflowClient(f"sqlite:///{Path('runs/mlflow.db').absolute()}")
    acts = {
        "sleep 4 1": rf"process 1 of 2 hangs: it has done nothing for {PATIENCE} seconds, while the others wait for "
        r"it, at .*odd.py:\d+ in odd; the run is ended; python -m xp resume=runs/\S+ goes on",
        "stop 3 1": "process 1 of 2 hangs: it is stopped, and was not continued; the run is ended; python -m xp resume",
        "kill 3 0": "process 0 of 2 has ended by SIGKILL, and the run with it; python -m xp resume=",
        "kill 3 1": "process 1 of 2 has ended by SIGKILL, and the run with it; python -m xp resume=",
        "fail 3 1": "process 1 of 2 has ended on an error: ZeroDivisionError: division by zero:\nTraceback",
    }
    for number, (act, said) in enumerate(acts.items()):
        odd(act)
        with pytest.raises(RuntimeError if act.startswith("fail") else UserError, match=said):
            go_on("imports=[odd]") if number else start(compose(*LONG, *TWO))
        assert time.time() - float(Path("acted").read_text()) < 30
        for process in map(int, Path("pids").read_text().split()):
            assert not psutil.pid_exists(process)
        last = json.loads((only() / "journal.jsonl").read_text().splitlines()[-1])
        assert last["status"] == "FAILED"
        assert last["error"].startswith(f"process {act[-1]} of 2 ")
        (run,) = client.search_runs(["1"], f"tags.xp.folder = '{only()}'")
        if act.endswith("1"):  # Rank 0 lives, and tells MLflow; else the next run does.
            assert run.info.status == "FAILED"
            assert run.data.tags["xp.error"] == last["error"]
            assert last["error"].startswith(said.partition(":")[0])
    odd("none 0 0")
    assert ended(go_on("imports=[odd]")) == ended(whole)


@pytest.mark.slow
def test_who_was_started_by_torchrun_is_watched_from_beside(odd: Callable[[str], None], corpus: Path) -> None:
    odd("sleep 4 1")
    launcher = ("torch.distributed.run", "--nproc-per-node", "2", "-m", "xp")
    ended_by = command(*SMALL, *LONG, "backend=accelerate", "imports=[odd]", launcher=launcher)
    assert time.time() - float(Path("acted").read_text()) < 30
    assert ended_by.returncode != 0
    assert f"xp: process 1 of 2 hangs: it has done nothing for {PATIENCE} seconds" in ended_by.stderr
    assert not any(psutil.pid_exists(int(process)) for process in Path("pids").read_text().split())
    last = json.loads((only() / "journal.jsonl").read_text().splitlines()[-1])
    assert last["status"] == "FAILED"
    assert last["error"].startswith("process 1 of 2 hangs")


def test_another_number_of_processes_goes_on(compose: Callable[..., Any], odd: Callable[[str], None]) -> None:
    """In the middle between two points of the curves: what the processes before had summed up is not lost."""
    odd("kill 10 1")
    sober = [*LONG, "model.config.attention_dropout=0.0", "training.log_every=5", "training.save_total=9"]
    whole = Path(start(compose(*sober, "runs_folder=whole"))["folder"])
    with pytest.raises(UserError, match="process 1 of 2"):
        start(compose(*sober, *TWO))
    assert told(only()) != []
    assert go_on("imports=[]", "backend.processes=1", "backend=torch") == only()
    for mine, theirs in zip(told(only()), told(whole), strict=True):
        for point in (mine, theirs):
            point.pop("train/padding", None)  # Each process pads its own sequences.
        assert mine == pytest.approx(theirs, rel=1e-4)


def waits(folder: Path) -> Callable[[], None]:
    """Something that sleeps where torch's processes wait for each other."""
    file = folder / "torch" / "distributed" / "exchange.py"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("import time\ndef wait():\n    time.sleep(10**6)\n")
    names: dict[str, Any] = {}
    exec(compile(file.read_text(), str(file), "exec"), names)
    found: Callable[[], None] = names["wait"]
    return found


def sleeps() -> None:
    time.sleep(10**6)


def computes() -> None:
    while True:
        pass


def counts() -> None:
    while True:
        pulse.beat()
        time.sleep(0.05)


def writes() -> None:
    while True:
        Path("/dev/null").write_bytes(bytes(100_000))
        time.sleep(0.05)


def has_a_child_that_computes() -> None:
    if os.fork() == 0:
        computes()
    time.sleep(10**6)


def waits_for_a_lock(folder: Path) -> Callable[[], None]:
    file = folder / "filelock" / "lock.py"
    file.parent.mkdir(exist_ok=True)
    file.write_text("def wait(sleep):\n    sleep()\n")
    names: dict[str, Any] = {}
    exec(compile(file.read_text(), str(file), "exec"), names)
    return lambda: names["wait"](sleeps)


@pytest.fixture
def judged(tmp_path: Path) -> Iterator[Callable[..., str]]:
    """What is said of two processes that do these things, looked at ten times a second."""
    pids: list[int] = []

    def watched(*doings: Callable[[], None]) -> str:
        for rank, does in enumerate(doings):
            if (process := os.fork()) == 0:
                os.setpgid(0, 0)
                pulse.show(tmp_path, rank)
                for _ in range(rank):
                    pulse.beat()
                does()
                os._exit(0)
            pids.append(process)
        while not all((tmp_path / f"{rank}.json").exists() for rank in range(len(doings))):
            time.sleep(0.02)
        watch = Watch(tmp_path, dict(enumerate(pids)), len(pids))
        for _ in range(PATIENCE + 12):
            if found := watch.look():
                return found[1]
            time.sleep(0.1)
        return ""

    yield watched
    for process in pids:
        os.killpg(process, signal.SIGKILL)
        os.waitpid(process, 0)


@pytest.mark.parametrize("does", [computes, counts, writes, has_a_child_that_computes])
def test_who_is_slow_but_does_something_is_let_be(does: Any, judged: Callable[..., str], tmp_path: Path) -> None:
    assert judged(waits(tmp_path), does) == ""


def test_who_waits_for_somebody_else_is_let_be(judged: Callable[..., str], tmp_path: Path) -> None:
    assert judged(waits(tmp_path), waits_for_a_lock(tmp_path)) == ""


def test_who_sleeps_while_another_computes_is_let_be(judged: Callable[..., str]) -> None:
    assert judged(sleeps, computes) == ""


def test_who_sleeps_while_the_others_wait_hangs(judged: Callable[..., str], tmp_path: Path) -> None:
    said = judged(waits(tmp_path), sleeps)
    assert said.startswith(f"process 1 of 2 hangs: it has done nothing for {PATIENCE} seconds")
    assert said.endswith(f"at {__file__}:{sleeps.__code__.co_firstlineno + 1} in sleeps")


def test_who_is_stopped_hangs_whatever_the_others_do(judged: Callable[..., str]) -> None:
    assert judged(lambda: os.kill(os.getpid(), signal.SIGSTOP), computes).startswith(
        "process 0 of 2 hangs: it is stopped"
    )


def test_all_that_wait_for_each_other_hang(judged: Callable[..., str], tmp_path: Path) -> None:
    said = judged(waits(tmp_path), waits(tmp_path))
    assert said.startswith("process 0 of 2 hangs: all of them wait for each other, and this one is behind, at ")


@pytest.mark.skipif(sys.platform != "linux", reason="/proc")
def test_where_a_process_is_can_be_asked_while_it_sleeps(tmp_path: Path) -> None:
    if (process := os.fork()) == 0:
        pulse.show(tmp_path, 0)
        sleeps()
    while not (tmp_path / "0.json").exists():
        time.sleep(0.02)
    time.sleep(0.1)
    try:
        for _ in range(2):  # It goes on sleeping.
            assert pulse.stack(tmp_path, 0, process)[0].endswith(" in sleeps")
        assert psutil.Process(process).status() == "sleeping"
    finally:
        os.kill(process, signal.SIGKILL)
        os.waitpid(process, 0)
