"""Resume: a run that was killed anywhere ends as if nothing had happened."""

from __future__ import annotations

import hashlib
import json
import os
import re
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from bombs import begun, killed, typed, wait_for_step
from conftest import SMALL, command, journal
from test_every_task import TASKS, settings

from xp import hardware
from xp.commands import opening
from xp.config import compose as composing
from xp.error import UserError
from xp.launch import start
from xp.ledger import Claim
from xp.report import Report
from xp.resume import resumed
from xp.run import Run
from xp.saving import checkpoint

LONG = [
    "training.epochs=null",
    "training.max_steps=12",
    "training.batch_size=7",
    "training.micro_batch_size=4",
    "training.log_every=2",
    "training.evaluate_every=4",
    "training.save_every=3",
    "training.keep_best=true",
    "model.config.attention_dropout=0.2",
    "task=causal_lm",
]
TIMED = "train/items_per_second"


def only(folder: str = "runs") -> Path:
    (found,) = [file.parent for file in Path(folder).glob("*/run.yaml")]
    return found


def told(folder: Path) -> list[dict[str, Any]]:
    """Every point of a run's journal, but for how fast it was."""
    return [{name: value for name, value in point.items() if name != TIMED} for point in journal(folder)]


def ended(folder: Path) -> dict[str, Any]:
    """All that a run must end with: its curves, its scores, its weights and its optimizer."""
    result = json.loads((folder / "result.json").read_text())
    (last,) = (folder / "checkpoints").glob("step-*")
    files = [(last / f"{name}.safetensors").read_bytes() for name in ("weights", "optimizer")]
    state = json.loads((last / "state.json").read_text())
    return {
        "points": told(folder),
        "metrics": result["metrics"],
        "digest": result["digest"],
        "state": {name: value for name, value in state.items() if name not in ("window", "random", "config")},
        "files": [hashlib.sha256(content).hexdigest() for content in files],
    }


def go_on(*overrides: str, where: str = "last") -> Path:
    composing.initialize(None)
    run, folder = resumed(where, list(overrides), None)
    start(run, folder=folder)
    return folder


UNDISTURBED: dict[tuple[str, ...], dict[str, Any]] = {}


@pytest.fixture
def undisturbed(compose: Callable[..., Any]) -> Callable[..., dict[str, Any]]:
    """What the same run ends with where nothing goes wrong: on torch, for it is the same on all of them."""

    def ran(*overrides: str) -> dict[str, Any]:
        if overrides not in UNDISTURBED:
            elsewhere = ("runs_folder=whole", "tracking.uri=sqlite:///whole/mlflow.db")
            UNDISTURBED[overrides] = ended(Path(start(compose(*LONG, *overrides, *elsewhere))["folder"]))
        return UNDISTURBED[overrides]

    return ran


MOMENTS = [
    ("torch", "schedule", 8, 0),
    ("torch", "saved", 19, 0),  # From step 9, which lies between two points of the curves.
    ("accelerate", "step", 19, 0),
    ("hf", "step", 23, 0),
    ("torch", "save", 9, 0),
    ("torch", "prune", 2, 0),
    ("torch", "step", 15, 2),
]


@pytest.mark.parametrize(("backend", "moment", "number", "workers"), MOMENTS)
def test_a_killed_run_ends_as_if_nothing_had_happened(
    backend: str, moment: str, number: int, workers: int, compose: Callable[..., Any], undisturbed: Callable[..., Any]
) -> None:
    settings = [f"backend={backend}", f"training.workers={workers}"]
    assert killed(compose(*LONG, *settings), moment, number) == -signal.SIGKILL, Path("child.log").read_text()
    assert not (only() / "result.json").exists()
    assert ended(go_on()) == undisturbed()


def test_a_run_killed_while_it_resumes_goes_on_all_the_same(compose: Callable[..., Any], undisturbed: Any) -> None:
    run = compose(*LONG)
    killed(run, "step", 17)
    assert killed(run, "resume", 1, only()) == -signal.SIGKILL
    assert killed(run, "step", 3, only()) == -signal.SIGKILL
    assert ended(go_on()) == undisturbed()


@pytest.mark.parametrize(("first", "second"), [("torch", "hf"), ("hf", "accelerate"), ("accelerate", "torch")])
def test_another_backend_goes_on(first: str, second: str, compose: Callable[..., Any], undisturbed: Any) -> None:
    killed(compose(*LONG, f"backend={first}"), "step", 17)
    assert ended(go_on(f"backend={second}")) == undisturbed()


def test_early_stopping_and_a_schedule_by_metric_go_on(compose: Callable[..., Any], undisturbed: Any) -> None:
    settings = ["training.patience=2", "training.schedule=reduce_lr_on_plateau", "training.warmup=0",
                "training.evaluate_every=2", "training.learning_rate=0.3"]  # fmt: skip
    whole = undisturbed(*settings)
    assert whole["state"]["step"] < 12
    killed(compose(*LONG, *settings), "saved", 2 * whole["state"]["step"] - 1)  # One was worse, the next one ends it.
    assert ended(go_on()) == whole


@pytest.mark.slow
@pytest.mark.parametrize("name", TASKS)
def test_every_task_goes_on(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    composing.initialize(None)
    given = [*settings(name), "training.save_every=1"]
    whole = start(Run.parse(composing.values([*given, "runs_folder=whole"])))
    assert killed(Run.parse(composing.values(given)), "step", 5) == -signal.SIGKILL
    assert ended(go_on()) == ended(Path(whole["folder"]))


@pytest.mark.parametrize("workers", [pytest.param(0, marks=pytest.mark.slow), 1])
def test_a_stream_goes_on(workers: int, compose: Callable[..., Any], undisturbed: Any) -> None:
    streamed = ["data.streaming=true", "training.evaluate_every=4", "training.max_steps=20"]  # More than one pass.
    killed(compose(*LONG, *streamed, f"training.workers={workers}"), "step", 33)
    assert ended(go_on()) == undisturbed(*streamed)


@pytest.mark.parametrize(("optimizer", "schedule"), [
    ("adafactor", "greedy"), pytest.param("sgd", "cosine_with_restarts", marks=pytest.mark.slow)])  # fmt: skip
def test_other_optimizers_go_on(optimizer: str, schedule: str, compose: Callable[..., Any], undisturbed: Any) -> None:
    chosen = [f"training.optimizer={optimizer}", f"training.schedule={schedule}", "training.warmup=0"]
    chosen += ["training.optimizer_options={momentum: 0.9}"] * (optimizer == "sgd")
    killed(compose(*LONG, *chosen), "step", 17)
    assert ended(go_on()) == undisturbed(*chosen)


def test_an_adapter_goes_on(compose: Callable[..., Any], undisturbed: Any) -> None:
    killed(compose(*LONG, "peft=lora"), "step", 17)
    assert ended(go_on()) == undisturbed("peft=lora")


def test_the_tracked_run_is_one(compose: Callable[..., Any]) -> None:
    from mlflow import MlflowClient

    killed(compose(*LONG), "step", 20)
    folder = go_on()
    client = MlflowClient(f"sqlite:///{Path('runs/mlflow.db').absolute()}")
    found = client.search_runs([each.experiment_id for each in client.search_experiments()])
    assert [(each.info.run_name, each.info.status) for each in found] == [(folder.name, "FINISHED")]
    points = journal(folder)
    for name in ("train/loss", "eval/loss"):
        history = sorted((each.step, each.value) for each in client.get_metric_history(found[0].info.run_id, name))
        assert history == [(point["step"], point[name]) for point in points if name in point]
        assert len({step for step, _ in history}) == len(history)
    assert go_on("training.max_steps=14", where=found[0].info.run_id) == folder
    assert client.get_run(found[0].info.run_id).data.tags["xp.changed.training.max_steps"] == "14"


def test_a_run_whose_process_is_gone_is_closed_by_the_next(
    compose: Callable[..., Any], capfd: pytest.CaptureFixture[str]
) -> None:
    from mlflow import MlflowClient

    killed(compose(*LONG), "step", 9)
    gone = only().name
    client = MlflowClient(f"sqlite:///{Path('runs/mlflow.db').absolute()}")

    def statuses() -> dict[str, str]:
        found = client.search_runs([each.experiment_id for each in client.search_experiments()])
        return {each.info.run_name: each.info.status for each in found}

    assert statuses() == {gone: "RUNNING"}
    start(compose("training.max_steps=1"))
    assert f"xp: {gone} was still open, and its process is gone; closed as KILLED" in capfd.readouterr().err
    assert statuses()[gone] == "KILLED"
    start(compose("training.max_steps=1"))
    assert "still open" not in capfd.readouterr().err
    assert go_on(where=f"runs/{gone}").name == gone
    assert set(statuses().values()) == {"FINISHED"}


def test_with_no_whole_checkpoint_nothing_starts_anew(compose: Callable[..., Any]) -> None:
    killed(compose(*LONG), "step", 17)
    for file in only().glob("checkpoints/step-*/weights.safetensors"):
        file.unlink()
    with pytest.raises(UserError, match="none of its 2 checkpoints is whole"):
        go_on()


def test_what_would_change_the_run_is_refused_with_what_differs(compose: Callable[..., Any]) -> None:
    killed(compose(*LONG), "step", 17)
    frozen = (only() / "run.yaml").read_text()
    for overrides, message in [
        (["seed=7"], "resume=last: seed=7 (was 0): this would be another run"),
        (["training.learning_rate=0.1", "seed=7"], "seed=7 (was 0); training.learning_rate=0.1 (was "),
        (["training.max_steps=5"], "training.max_steps=5 (was 12): a run can become longer, not shorter"),
        (["training.maxsteps=5"], "training.maxsteps: there is no such key. Did you mean 'max_steps'?"),
        (["precision=bf16"], 'precision="bf16" (was "fp32")'),
    ]:
        with pytest.raises(UserError) as caught:
            go_on(*overrides)
        assert message in str(caught.value)
        assert (only() / "run.yaml").read_text() == frozen
    with pytest.raises(UserError, match=r"no folder of a run, and no run in runs has this MLflow id"):
        go_on(where="runs/none")
    Path("train.jsonl").write_text(Path("train.jsonl").read_text().replace("apple", "pear"))
    with pytest.raises(UserError, match="the train rows are not those that it was trained on"):
        go_on()


def test_a_run_killed_before_it_has_said_that_it_ended_says_so_later(
    compose: Callable[..., Any], undisturbed: Any
) -> None:
    """Its result is on the disk; in MLflow it would be KILLED for ever."""
    from mlflow import MlflowClient

    assert killed(compose(*LONG), "closing", 1) < 0
    assert (only() / "result.json").exists()
    assert Claim.of(compose(*LONG).values()).earlier().state == "interrupted"  # type: ignore[union-attr]
    assert ended(go_on()) == undisturbed()
    (tracked,) = MlflowClient(f"sqlite:///{Path('runs/mlflow.db').absolute()}").search_runs(["1"])
    assert tracked.info.status == "FINISHED"
    with pytest.raises(UserError, match="has ended"):
        go_on()


def test_a_run_of_an_earlier_xp_goes_on(
    compose: Callable[..., Any], undisturbed: Any, capfd: pytest.CaptureFixture[str]
) -> None:
    """One that has no ``merge`` and no ``training.patience`` among its settings."""
    killed(compose(*LONG), "step", 17)

    def earlier(config: dict[str, Any]) -> None:
        del config["merge"], config["training"]["patience"]

    values = json.loads((only() / "run.yaml").read_text())
    earlier(values)
    (only() / "run.yaml").write_text(json.dumps(values))
    for listed in only().glob("checkpoints/*/manifest.json"):
        file = listed.with_name("state.json")
        state = json.loads(file.read_text())
        earlier(state["config"])
        file.write_text(json.dumps(state))
        known = {"bytes": file.stat().st_size, "sha256": hashlib.sha256(file.read_bytes()).hexdigest()}
        listed.write_text(json.dumps(json.loads(listed.read_text()) | {"state.json": known}))
    with pytest.raises(UserError, match="seed=7"):
        go_on("seed=7")
    assert ended(go_on()) == undisturbed()
    assert "training.patience=null: there was no such setting when this run began" in capfd.readouterr().out


def test_a_run_without_a_checkpoint_begins_and_says_so(
    compose: Callable[..., Any], undisturbed: Any, capfd: pytest.CaptureFixture[str]
) -> None:
    killed(compose(*LONG), "step", 3)
    assert ended(go_on()) == undisturbed()
    assert f"{only()} has no checkpoint yet; it begins at its first step" in capfd.readouterr().out


def test_code_comes_from_the_command_line_alone_also_when_a_run_goes_on(compose: Callable[..., Any]) -> None:
    killed(compose(*LONG), "step", 17)
    file = only() / "run.yaml"
    file.write_text(file.read_text().replace('"imports": []', '"imports": ["evil"]'))
    Path("evil.py").write_text("open('done', 'w')\n")
    with pytest.raises(UserError, match=r"it needs imports=\[evil\], which only the command line can say"):
        go_on()
    assert not Path("done").exists()


def test_a_run_that_is_still_running_is_left_alone(compose: Callable[..., Any]) -> None:
    run = compose(*LONG, "training.max_steps=100000", "training.workers=1")
    process = begun(run, 4)
    frozen = (only() / "run.yaml").read_text()
    still = f"is still running, as process {process.pid}; end that first"
    with pytest.raises(UserError, match=still):
        go_on("training.max_steps=100001")
    with pytest.raises(UserError, match=still):  # Of two that have both found it free, one is late.
        start(run, folder=only())
    assert (only() / "run.yaml").read_text() == frozen
    assert process.is_alive()
    process.kill()
    process.join()
    resumed("last", [], None)  # Though the worker that it has forked may still be there.


def test_a_resume_that_is_refused_late_has_changed_nothing(compose: Callable[..., Any]) -> None:
    start(compose(*LONG))
    before = [(only() / file).read_bytes() for file in ("run.yaml", "result.json", "lengths.json")]
    Path("train.jsonl").write_text(Path("train.jsonl").read_text().replace("apple", "pear"))
    with pytest.raises(UserError, match="the train rows are not those"):
        go_on("training.max_steps=20")
    assert [(only() / file).read_bytes() for file in ("run.yaml", "result.json", "lengths.json")] == before


def test_precision_stays_what_auto_has_chosen(
    compose: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    both: list[Any] = ["fp32", "bf16"]
    here = hardware.choose_precision("auto", hardware.choose_device("cpu"))
    killed(compose(*LONG, "precision=auto"), "step", 17)
    monkeypatch.setattr(opening, "choose_precision",
                        lambda wanted, device: both[both.index(here) - 1] if wanted == "auto" else wanted)  # fmt: skip
    go_on()
    assert f"{here} (as before)" in capfd.readouterr().out


def test_a_longer_run_has_the_new_schedule_from_its_first_new_step_on(compose: Callable[..., Any]) -> None:
    settings = [*LONG, "training.save_every=null", "training.log_every=1", "training.learning_rate=1e-2"]
    rates = {
        steps: {point["step"]: point["train/lr"] for point in journal(Path(start(
            compose(*settings, f"training.max_steps={steps}", f"runs_folder=whole{steps}"))["folder"])
            ) if "train/lr" in point} for steps in (12, 16)}  # fmt: skip
    assert killed(compose(*settings), "saved", 13) == -signal.SIGKILL  # Step 6 is logged, step 4 is saved.
    composing.initialize(None)
    assert killed(resumed("last", ["training.max_steps=16"], None)[0], "saved", 7, only()) == -signal.SIGKILL
    assert json.loads((only() / "lengths.json").read_text()) == [[0, 12], [6, 16]]
    seen = told(only())
    assert seen[-1]["step"] == 7
    go_on()
    points = [point for point in told(only()) if "train/lr" in point]
    assert [point["step"] for point in points] == list(range(1, 17))
    expected = [rates[12][step] if step <= 6 else rates[16][step] for step in range(1, 17)]
    assert [point["train/lr"] for point in points] == expected
    assert told(only())[: len(seen)] == seen
    once = ended(only())
    only().rename("twice")
    killed(compose(*settings), "saved", 13)
    assert ended(go_on("training.max_steps=16")) == once


def test_without_checkpoints_the_best_weights_are_found_and_nothing_is_left(run: Callable[..., Any]) -> None:
    folder = Path(run(*LONG, "training.save_total=0", "training.evaluate_every=2")["folder"])
    assert not list((folder / "checkpoints").iterdir())


def test_a_run_can_become_longer(compose: Callable[..., Any]) -> None:
    settings = [*LONG, "training.keep_best=false", "training.schedule=constant", "training.warmup=0"]
    whole = Path(start(compose(*settings, "training.max_steps=16", "runs_folder=whole"))["folder"])
    first = Path(start(compose(*settings))["folder"])
    with pytest.raises(UserError, match="has ended; its model is"):
        go_on()
    longer = go_on("training.max_steps=16")
    assert longer == first
    assert ended(longer)["files"] == ended(whole)["files"]


@pytest.mark.parametrize(
    ("number", "code", "settings"),
    [
        (signal.SIGTERM, 143, ["backend=torch", "training.workers=2"]),
        (signal.SIGINT, 130, ["backend=hf"]),
        (signal.SIGTERM, 143, ["backend=accelerate", "backend.processes=2"]),
    ],
)
def test_a_signal_ends_a_run_with_a_checkpoint(
    number: signal.Signals, code: int, settings: list[str], compose: Callable[..., Any], corpus: Path
) -> None:
    process = typed(*SMALL, *LONG, "training.max_steps=100000", *settings)
    wait_for_step(process, 2)
    assert process.pid
    os.kill(process.pid, number)
    process.join(timeout=120)
    said = Path("child.log").read_text()
    assert process.exitcode == code, said
    assert "Traceback" not in said
    assert "xp: ending after this step, with a checkpoint" in said
    folder = only()
    events = [json.loads(line) for line in (folder / "journal.jsonl").read_text().splitlines()]
    assert events[-1]["status"] == "KILLED"

    found = checkpoint.newest(folder / "checkpoints", print)
    assert found is not None
    last = max(event["step"] for event in events if "train/loss" in event.get("metrics", {}))
    assert found.step >= last  # Not the one of three steps before.


@pytest.mark.parametrize("settings", [[], ["task.max_length=4", "task.overlong=split", "training.batch_size=1"]])
def test_a_loss_that_is_not_finite_names_step_and_rows(settings: list[str], run: Callable[..., Any]) -> None:
    """Also where rows are split: the place is that of the row in its file."""
    with pytest.raises(UserError) as caught:
        run(*LONG, "training.learning_rate=1e30", "training.max_grad_norm=null", "training.save_every=1", *settings)
    found = re.fullmatch(
        r"training: loss (\S+), gradient norm (?:nan|inf) at step (\d+), of the rows (.*?)( and 3 more)?; "
        r"the checkpoint of step (\d+) is good; lower training.learning_rate, or .*",
        str(caught.value),
    )
    assert found, str(caught.value)
    assert int(found[5]) == int(found[2]) - 1
    places = found[3].split("; ")
    assert len(places) == (1 if settings else 4)
    for place in places:
        file, _, row = place.partition(", row ")
        assert 1 <= int(row) <= len(Path(file).read_text().splitlines())


def test_a_row_that_was_split_is_found_again(compose: Callable[..., Any]) -> None:
    run = compose("task=causal_lm", "task.max_length=4", "task.overlong=split")
    task, splits, preparation = opening.read(run, Report(), True)
    loaded = opening.load(run, task, "fp32", [], splits.train, Report())
    encoded, _ = preparation.encoded("train", splits, loaded.processor, [])
    texts = [json.loads(line)["text"] for line in Path("train.jsonl").read_text().splitlines()]
    assert len(encoded.rows) > len(texts)
    numbers = list(range(len(encoded.rows)))
    places = opening.places(task, splits, loaded, encoded, numbers)
    for number, place in zip(numbers, places, strict=True):
        part = loaded.processor.decode(encoded.rows[number]["input_ids"], skip_special_tokens=True)
        assert part.strip() in texts[int(place.removeprefix("train.jsonl, row ")) - 1]
    assert len(set(places)) == len(texts)


def test_a_sweep_says_that_runs_go_on_one_at_a_time() -> None:
    refused = command("-m", "resume=last", "seed=1,2")
    assert refused.returncode == 2
    assert refused.stderr == "xp: resume=last: one run at a time; leave out -m\n"


def test_resume_says_what_it_is_for() -> None:
    refused = command("resume=nowhere")
    assert refused.returncode == 2
    assert refused.stderr.startswith("xp: resume=nowhere: no folder of a run")
