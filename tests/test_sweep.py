"""Sweeps: many runs from one command."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import bombs
import pytest
from conftest import SMALL, command, put_store, rows, write_rows

from xp.config import compose as composing
from xp.sweep import forked
from xp.sweep.launcher import sweep
from xp.sweep.pool import Pool

Swept = Callable[..., tuple[int, str]]
LONG = ["training.max_steps=60", "training.save_every=20", "training.log_every=20", "imports=[held]"]
"""Runs that can be ended in the middle, by who has them `held`."""

HELD = """
import time
from pathlib import Path

from xp.process import interrupt
from xp.training.job import Job

loss, calls = Job.loss, 0


def held(*arguments, **named):
    global calls
    calls += 1
    while calls > 30 and Path("held").exists() and not interrupt.asked():
        time.sleep(0.02)
    return loss(*arguments, **named)


Job.loss = held
"""


def tracked_runs(folder: Path) -> tuple[Any, list[Any]]:
    from mlflow import MlflowClient

    client = MlflowClient(f"sqlite:///{folder}/runs/mlflow.db")
    everything = client.search_runs([client.get_experiment_by_name("xp").experiment_id])
    parents = [run for run in everything if run.data.tags["xp.command"] == "sweep"]
    return parents[0], [run for run in everything if run not in parents]


@pytest.fixture
def swept(corpus: Path, empty_store: Path, capfd: pytest.CaptureFixture[str]) -> Swept:
    """Does a small sweep in this process; gives its exit code and what it has printed."""
    put_store(empty_store, corpus)

    def done(*overrides: str) -> tuple[int, str]:
        composing.initialize(None)
        code = sweep([*SMALL, *overrides], None)
        return code, capfd.readouterr().out

    return done


@pytest.fixture
def held(corpus: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """While this file is there, every run stops after its first checkpoint, until a signal asks it to end."""
    from xp.training.job import Job

    monkeypatch.setattr(Job, "loss", Job.loss)  # Restored at the end: this process imports the module, too.
    monkeypatch.syspath_prepend(corpus)
    monkeypatch.setenv("PYTHONPATH", f"{corpus}{os.pathsep}{os.environ.get('PYTHONPATH', '')}")
    (corpus / "held.py").write_text(HELD)
    file = corpus / "held"
    file.touch()
    yield file
    sys.modules.pop("held", None)


def results(folder: Path) -> dict[str, Any]:
    """The result of every run by its folder's name."""
    return {file.parent.name: json.loads(file.read_text()) for file in folder.glob("runs/*/result.json")}


def lines(text: str) -> list[str]:
    return [line for line in text.splitlines() if line.startswith("[")]


def test_a_sweep_over_backends_adapters_and_seeds(corpus: Path) -> None:
    """Nested runs under one parent, a table sorted by the objective, and one curve from all backends."""
    ended = command("-m", *SMALL, "backend=hf,torch,accelerate", "peft=none,lora", "seed=1,2", folder=corpus)
    assert ended.returncode == 0, ended.stderr
    parent, children = tracked_runs(corpus)
    assert len(children) == 12
    assert {run.data.tags["mlflow.parentRunId"] for run in children} == {parent.info.run_id}
    assert {run.info.status for run in [parent, *children]} == {"FINISHED"}
    weights: dict[tuple[str, str], set[str]] = {}
    for run in children:
        weights.setdefault((run.data.tags["xp.peft"], run.data.tags["xp.seed"]), set()).add(run.data.tags["xp.weights"])
    assert {len(digests) for digests in weights.values()} == {1}
    assert len(weights) == 4
    rows = [line.split("│")[1:-1] for line in ended.stdout.splitlines() if line.startswith("│")]
    objectives = [float(row[3]) for row in rows]
    assert objectives == sorted(objectives, reverse=True)
    assert [line for line in ended.stdout.splitlines() if line.startswith("[12/12]")]
    (folder,) = corpus.glob("runs/sweep-*")
    assert len(json.loads((folder / "sweep.json").read_text())) == 12


def test_lists_are_in_the_table_as_they_were_given(swept: Swept) -> None:
    code, said = swept("training.max_steps=1", "peft=lora", "peft.target_modules=[q_proj,v_proj],[q_proj]")
    assert code == 0
    assert {line.split("│")[1].strip() for line in said.splitlines() if line.startswith("│")} == {
        "[q_proj,v_proj]",
        "[q_proj]",
    }


@pytest.mark.parametrize(
    ("gpus", "processes", "shares"),
    [
        ("0123", 1, ["0", "1", "2", "3", "0"]),
        ("0123", 2, ["01", "23", "01", "23", "01"]),
        ("012", 2, ["01", "20", "12", "01", "20"]),
        ("01", 4, ["01", "01", "01", "01", "01"]),
    ],
)
def test_a_job_has_a_gpu_for_each_of_its_processes(gpus: str, processes: int, shares: list[str]) -> None:
    assert ["".join(forked.share(list(gpus), slot, processes)) for slot in range(5)] == shares


def test_what_is_imported_before_the_fork_touches_no_gpu(tmp_path: Path) -> None:
    """bitsandbytes does, as soon as it is imported; so where there is one, nothing is that imports it."""
    from bombs import EVERYTHING

    from xp.process import ahead

    imports = "import sys, importlib as i; [i.import_module(name) for name in sys.argv[1:]]; "
    prints = "print('bitsandbytes' in sys.modules, 'torch' in sys.modules)"

    def seen(*names: str) -> str:
        asked = [sys.executable, "-c", imports + prints, *names]
        ran = subprocess.run(asked, capture_output=True, text=True, check=True)
        assert ran.stderr == ""
        return ran.stdout

    beside = ahead.modules(EVERYTHING, gpus=[str(tmp_path)])
    assert seen(*beside) == "False True\n"
    assert {*ahead.modules(EVERYTHING, gpus=[])} - {*beside} == ahead.TOUCHING
    assert seen(*ahead.modules(["peft"], gpus=[])) == "True True\n"


@pytest.mark.slow
def test_two_hundred_jobs_eight_at_a_time_all_finish(corpus: Path) -> None:
    """On the embedded store; and what it takes is told, with ``-s``."""
    began = time.monotonic()
    ended = command("-m", *SMALL, "seed=range(200)", "hydra.launcher.slots=8", folder=corpus, seconds=3600)
    assert (ended.returncode, ended.stderr) == (0, "")
    print(f"200 jobs, 8 at a time: {time.monotonic() - began:.0f} s")
    parent, children = tracked_runs(corpus)
    assert [run.info.status for run in (parent, *children)] == ["FINISHED"] * 201
    assert {child.data.tags["mlflow.parentRunId"] for child in children} == {parent.info.run_id}
    assert all(child.data.metrics["eval/accuracy"] >= 0 for child in children)
    logs = [file.read_text() for file in corpus.glob("runs/sweep-*/*.log")]
    assert len(logs) == 200
    assert not [log for log in logs if "locked" in log or "xp: " in log]


def test_finished_jobs_are_skipped(
    swept: Swept, run: Callable[..., Any], corpus: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those of this sweep, of another one, and runs that no sweep has begun; new ones run, under one parent."""
    alone = run("seed=1")
    code, said = swept("seed=1,2")
    assert code == 0
    assert f"[1/2] seed=1: skipped, eval/accuracy {alone['objective']:.4f}  ({alone['folder']})" in lines(said)
    assert len(results(corpus)) == 2
    parent, _ = tracked_runs(corpus)
    assert parent.data.metrics["best/objective"] == max(each["objective"] for each in results(corpus).values())

    with monkeypatch.context() as nothing_starts:
        nothing_starts.setattr(Pool, "_start", None)
        code, said = swept("seed=1,2")
    assert (code, said.count("skipped")) == (0, 4)  # Two lines and two rows.
    assert len(results(corpus)) == 2
    code, said = swept("seed=2,3,2")
    assert (code, [line.partition(", ")[0] for line in lines(said)]) == (
        0,
        [
            "[1/3] seed=2: skipped",
            "[2/3] seed=2: skipped",
            "[3/3] seed=3: eval/accuracy 1.0000  " + lines(said)[2].partition("  ")[2],
        ],
    )
    assert len(results(corpus)) == 3

    write_rows(corpus / "train.jsonl", rows(59))
    code, said = swept("seed=1,2")
    assert (code, len(results(corpus)), "skipped" in said) == (0, 5, False)
    _, children = tracked_runs(corpus)
    assert len({child.data.tags.get("mlflow.parentRunId") for child in children}) == 3  # none, and two sweeps
    code, said = swept("seed=1,2", "sweep.skip=false")
    assert (code, len(results(corpus)), "skipped" in said) == (0, 7, False)
    assert len([*corpus.glob("runs/sweep-*")]) == 3


def test_one_job_of_a_sweep_is_not_done_twice(swept: Swept, corpus: Path) -> None:
    code, said = swept("seed=4,4", "hydra.launcher.slots=2")
    assert (code, len(results(corpus))) == (0, 1)
    assert "[2/2] seed=4: skipped" in said


def test_failed_jobs_are_tried_again_as_often_as_asked(swept: Swept, corpus: Path) -> None:
    """Once each time that the command is given, in the same folder and the same run of MLflow."""
    wrong = "model.type=lama: transformers has no such type. Did you mean 'llama'?"
    given = ("model.type=llama,lama", "hydra.launcher.slots=2")
    code, said = swept(*given)
    assert code == 1
    assert f"model.type=lama: {wrong}" in said
    code, said = swept(*given)
    assert code == 1
    assert f"[2/2] model.type=lama: retried, {wrong}" in said
    assert "[1/2] model.type=llama: skipped" in said
    code, said = swept(*given)
    assert code == 1
    assert f"[2/2] model.type=lama: skipped, {wrong} (has failed 2 times; sweep.retry=2 tries it again)" in said
    code, said = swept(*given, "sweep.retry=2")
    assert (code, f"retried, {wrong}" in said, "Traceback" in said) == (1, True, False)
    parent, children = tracked_runs(corpus)
    assert sorted(run.info.status for run in children) == ["FAILED", "FINISHED"]
    assert parent.info.status == "FAILED"
    assert len([*corpus.glob("runs/sweep-*")]) == 1


def test_interrupted_and_failed_jobs_go_on_where_they_were(
    swept: Swept, compose: Callable[..., Any], run: Callable[..., Any], corpus: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the weights of runs that nothing has happened to."""
    forked.warm([])
    whole = {seed: run(f"seed={seed}", "runs_folder=whole")["digest"] for seed in (1, 2)}
    assert bombs.killed(compose("seed=1", "training.save_every=2"), "saved", 5) == -signal.SIGKILL
    from xp.training.job import Job

    def breaks(*arguments: Any) -> Any:
        raise RuntimeError("broken")

    with monkeypatch.context() as broken:
        broken.setattr(Job, "loss", bombs.nth(Job.loss, 5, breaks))
        with pytest.raises(RuntimeError):
            run("seed=2", "training.save_every=2")
    code, said = swept("seed=1,2", "training.save_every=2")
    assert (code, [line.split(", ")[0] for line in lines(said)]) == (
        0,
        ["[1/2] seed=1: resumed", "[2/2] seed=2: retried"],
    )
    assert {each["digest"] for each in results(corpus).values()} == set(whole.values())
    _, children = tracked_runs(corpus)
    assert [child.info.status for child in children] == ["FINISHED"] * 4  # With the two whole ones.
    resumed = [child.data.tags["xp.resumed"] for child in children if "xp.resumed" in child.data.tags]
    assert resumed == ["4", "4"]


def checkpoints(folder: Path, number: int) -> None:
    """Wait until this many runs have a checkpoint."""
    until = time.monotonic() + 120
    while len({file.parts[-4] for file in folder.glob("runs/*/checkpoints/step-*/manifest.json")}) < number:
        assert time.monotonic() < until
        time.sleep(0.05)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_sweep_that_is_ended_saves_and_goes_on_later(
    number: int, code: int, swept: Swept, held: Path, corpus: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    def end() -> None:
        checkpoints(corpus, 2)
        os.kill(os.getpid(), number)
        held.unlink()

    threading.Thread(target=end, daemon=True).start()
    with pytest.raises((KeyboardInterrupt, SystemExit)) as ended:
        swept("seed=1,2,3", "hydra.launcher.slots=2", *LONG)
    assert (130 if ended.type is KeyboardInterrupt else getattr(ended.value, "code", 0)) == code
    said = capfd.readouterr().out
    assert (said.count("killed"), said.count("not begun")) == (2, 1)
    parent, children = tracked_runs(corpus)
    assert (parent.info.status, [child.info.status for child in children]) == ("KILLED", ["KILLED", "KILLED"])
    assert not results(corpus)

    assert swept("seed=1,2,3", "hydra.launcher.slots=2", *LONG)[0] == 0
    parent, children = tracked_runs(corpus)
    assert [run.info.status for run in (parent, *children)] == ["FINISHED"] * 4
    assert {child.data.tags["mlflow.parentRunId"] for child in children} == {parent.info.run_id}
    assert sum("xp.resumed" in child.data.tags for child in children) == 2
    assert len([*corpus.glob("runs/sweep-*")]) == 1


def _sweeps(overrides: list[str], folder: str) -> None:
    os.chdir(folder)
    composing.initialize(None)
    sweep(overrides, None)


def test_two_processes_share_a_sweep_and_one_does_it_all_once_the_other_is_killed(
    swept: Swept, held: Path, corpus: Path
) -> None:
    """No job is done twice, and none goes on without its sweep."""
    given = ["seed=1,2,3", "hydra.launcher.slots=2", *LONG]
    forked.warm([])
    other = get_context("forkserver").Process(target=_sweeps, args=([*SMALL, *given], str(corpus)))
    other.start()

    def end() -> None:
        checkpoints(corpus, 3)  # Two of the other's, one of ours.
        other.kill()
        other.join()
        held.unlink()

    checkpoints(corpus, 2)
    ending = threading.Thread(target=end)
    ending.start()
    code, said = swept(*given)
    ending.join()
    assert code == 0
    assert "another process is at this sweep, and this one helps" in said
    assert said.count("another process is at it; waiting for that one") == 2
    assert sorted(line.partition(", ")[0][6:] for line in lines(said) if "resumed" in line) == [
        "seed=1: resumed",
        "seed=2: resumed",
    ]
    parent, children = tracked_runs(corpus)
    assert [child.info.status for child in children] == ["FINISHED"] * 3
    assert parent.info.status == "FINISHED"  # By the one that is left.


def test_a_job_that_is_killed_says_so_and_stops_no_other(swept: Swept, held: Path, corpus: Path) -> None:
    def kill() -> None:
        checkpoints(corpus, 2)
        first = next(corpus.glob("runs/scratch-*/tracker.json"))
        os.kill(json.loads(first.read_text())["process"], signal.SIGKILL)
        held.unlink()

    threading.Thread(target=kill, daemon=True).start()
    code, said = swept("seed=1,2", "hydra.launcher.slots=2", *LONG)
    assert (code, len(results(corpus))) == (1, 1)
    assert "killed by SIGKILL, perhaps out of memory" in said
    code, said = swept("seed=1,2", "hydra.launcher.slots=2", *LONG)
    assert (code, sum("resumed" in line for line in lines(said)), said.count("skipped")) == (0, 1, 2)
    assert [run.info.status for run in tracked_runs(corpus)[1]] == ["FINISHED"] * 2


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["training.max_steps=1,2,3,0", "hydra.sweeper.max_batch_size=2"],
         "job 3 of 4 (training.max_steps=0): training.max_steps=0: it must be greater than 0."),
        (["seed=1,2", "training.batch_size=0"], "training.batch_size=0: it must be greater than 0."),
        (["seed=1,2", "model=scratch,scrotch"],
         "job 2 of 4 (model=scrotch seed=1): model=scrotch: there is no such model. Did you mean 'scratch'?"),
        (["seed=1,2", "command=tasks"], "command=tasks: it has no result that a sweep could compare; leave out -m"),
    ],
)  # fmt: skip
def test_a_wrong_job_is_told_before_the_first_one_starts(
    given: list[str], message: str, swept: Swept, corpus: Path
) -> None:
    from xp.error import UserError

    with pytest.raises(UserError) as caught:
        swept(*given)
    assert str(caught.value) == message
    assert [file.name for file in corpus.glob("runs/*")] == ["mlflow.db"]


SWEEPER = """
from hydra.core.config_store import ConfigStore
from hydra.plugins.sweeper import Sweeper


class Halving(Sweeper):
    '''Three rates; then a better seed for the best of them.'''

    def __init__(self, rates):
        self.rates = rates

    def setup(self, *, hydra_context, task_function, config):
        from hydra.core.plugins import Plugins

        self.config, self.hydra_context = config, hydra_context
        self.launcher = Plugins.instance().instantiate_launcher(
            hydra_context=hydra_context, task_function=task_function, config=config)

    def sweep(self, arguments):
        first = [(*arguments, f"training.learning_rate={rate}") for rate in self.rates]
        self.validate_batch_is_legal(first)
        found = [each.return_value for each in self.launcher.launch(first, 0)]
        best = first[found.index(max(found))]
        self.launcher.launch([(*best, "seed=1"), (*best, "seed=2"), best], len(first))


ConfigStore.instance().store(
    group="hydra/sweeper", name="halving",
    node={"_target_": "hydra_plugins.halving.Halving", "rates": [1e-8, 1e-3]})
"""


def test_a_sweeper_that_is_installed_runs_its_jobs_in_batches(corpus: Path) -> None:
    (corpus / "hydra_plugins").mkdir()
    (corpus / "hydra_plugins" / "halving.py").write_text(SWEEPER)
    ended = command("-m", *SMALL, "hydra/sweeper=halving", folder=corpus)
    assert ended.returncode == 0, ended.stderr
    assert [line.partition(": ")[0] for line in lines(ended.stdout)] == [
        "[1/2] training.learning_rate=1e-08", "[2/2] training.learning_rate=0.001",
        "[3/5] training.learning_rate=0.001", "[4/5] training.learning_rate=0.001 seed=1",
        "[5/5] training.learning_rate=0.001 seed=2"]  # fmt: skip
    assert ": skipped, " in lines(ended.stdout)[2]
