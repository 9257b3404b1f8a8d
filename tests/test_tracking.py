"""What MLflow is told, by the embedded store and by a real server."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from bombs import begin
from conftest import SMALL, command, journal

from xp.error import UserError
from xp.launch import start
from xp.run import Run
from xp.tracking.sync import pending

Ran = Callable[..., dict[str, Any]]


def read_back(uri: str, run_id: str) -> tuple[Any, Any]:
    from mlflow import MlflowClient

    client = MlflowClient(uri)
    return client, client.get_run(run_id)


@pytest.mark.parametrize("store", ["embedded", "server"])
def test_a_run_is_all_there(store: str, run: Ran, request: pytest.FixtureRequest, corpus: Path) -> None:
    """Read back through MLflow's API: curves, parameters, tags, the data set, artifacts, environment and source."""
    uri = request.getfixturevalue("server") if store == "server" else f"sqlite:///{corpus}/runs/mlflow.db"
    where = [f"tracking.uri={uri}"] if store == "server" else []
    result = run("task=text_classification", "peft=lora", "tracking.log_model=true", *where)
    client, tracked = read_back(uri, result["run_id"])
    assert (tracked.info.status, tracked.info.run_name) == ("FINISHED", result["run"])

    for name in ("train/loss", "train/lr", "train/grad_norm", "train/items_per_second", "train/padding"):
        logged = [(point.step, point.value) for point in client.get_metric_history(result["run_id"], name)]
        assert logged == [(point["step"], point[name]) for point in result["points"] if name in point]
        assert [step for step, _ in logged] == [1, 2, 3, 4, 5, 6]
    assert tracked.data.metrics["eval/accuracy"] == result["metrics"]["eval/accuracy"]
    assert tracked.data.metrics["data/train_rows"] == 60

    params = tracked.data.params
    assert (params["peft.rank"], params["training.batch_size"], params["data.train"]) == ("4", "8", "train.jsonl")
    assert (params["training.epochs"], params["model.config.hidden_size"]) == ("null", "32")
    assert {"environment.torch", "environment.transformers", "environment.python", "environment.processor"} <= set(
        params
    )

    tags = tracked.data.tags
    assert (tags["xp.backend"], tags["xp.peft"], tags["xp.model"], tags["xp.task"], tags["xp.data"]) == (
        "torch", "lora", "scratch", "text_classification", "files")  # fmt: skip
    assert (tags["xp.command"], tags["xp.seed"], tags["xp.precision"]) == ("train", "0", "fp32")
    assert tags["xp.weights"] == result["digest"]
    assert tags["xp.folder"] == result["folder"]

    (data,) = tracked.inputs.dataset_inputs
    assert (data.dataset.name, json.loads(data.dataset.profile)) == ("files", {"train": 60, "eval": 25})
    assert tags["xp.data_fingerprint"].startswith(data.dataset.digest)

    files = {each.path for each in client.list_artifacts(result["run_id"])}
    assert {"run.yaml", "result.json", "model"} <= files
    inside = {Path(each.path).name for each in client.list_artifacts(result["run_id"], "model")}
    assert {"adapter_model.safetensors", "adapter_config.json", "tokenizer.json"} <= inside
    if store == "embedded":
        assert (
            client.get_experiment(tracked.info.experiment_id).artifact_location == (corpus / "runs/artifacts").as_uri()
        )
        assert not (corpus / "mlruns").exists()


def test_a_run_is_called_after_the_model_that_it_goes_on_from(run: Ran, corpus: Path) -> None:
    """In its folder's name, in MLflow and in what is told; never after the yaml whose path was replaced."""
    first = run("task=text_classification")
    again = run("task=text_classification", "model=bundled", f"model.path={first['model']}")
    assert again["run"].startswith(f"{first['run']}-")
    _, tracked = read_back(f"sqlite:///{corpus}/runs/mlflow.db", again["run_id"])
    assert tracked.info.run_name == again["run"]
    assert (tracked.data.tags["xp.model"], tracked.data.params["choices.model"]) == (first["run"], first["run"])
    assert tracked.data.params["model.path"] == first["model"]


@pytest.mark.parametrize("store", ["embedded", "server"])
def test_a_table_is_shown_as_one_and_replaced_by_its_next(
    store: str, compose: Callable[..., Any], request: pytest.FixtureRequest, corpus: Path
) -> None:
    """As after a run that is resumed: its last evaluation is logged again."""
    from xp.findings import Findings, write
    from xp.tracking import Tracker

    where = [f"tracking.uri={request.getfixturevalue('server')}"] if store == "server" else []
    tracker = Tracker(compose(*where).tracking, corpus, {}, None)
    first, second = ({"text": ["ä", "b"][:rows], "loss": [1.5, float("nan")][:rows]} for rows in (2, 1))
    write(Findings(tables={"worst": first}), corpus / "findings")
    tracker.artifact(corpus / "findings")
    tracker.table(first, "findings/worst.json")
    tracker.table({"label": ["a"]}, "findings/classes.json")
    tracker.table(second, "findings/worst.json")
    tracker.close("FINISHED")

    uri = where[0].removeprefix("tracking.uri=") if where else f"sqlite:///{corpus}/runs/mlflow.db"
    client, tracked = read_back(uri, tracker.opened())
    assert json.loads(tracked.data.tags["mlflow.loggedArtifacts"]) == [
        {"path": f"findings/{name}.json", "type": "table"} for name in ("worst", "classes")
    ]
    with open(client.download_artifacts(tracked.info.run_id, "findings/worst.json")) as file:
        assert json.load(file) == {"columns": ["text", "loss"], "data": [["ä", 1.5]]}


def test_a_process_that_does_not_track_can_be_told_everything() -> None:
    from xp.tracking import Tracker, Untracked

    untracked = Untracked()
    public = {name for name, method in vars(Tracker).items() if callable(method) and not name.startswith("_")}
    assert public <= vars(untracked).keys() | vars(Untracked).keys()
    assert untracked.table({"a": [1]}, "a.json") is None  # type: ignore[func-returns-value]


def test_the_source_version_is_told(run: Ran, corpus: Path) -> None:
    from xp.hardware import source

    if "mlflow.source.git.commit" not in source():
        pytest.skip("not a git checkout")
    _, tracked = read_back(f"sqlite:///{corpus}/runs/mlflow.db", run()["run_id"])
    assert len(tracked.data.tags["mlflow.source.git.commit"]) == 40


def test_names_are_the_same_from_every_backend(run: Ran) -> None:
    names = [
        {name for point in run(f"backend={backend}")["points"] for name in point}
        for backend in ("torch", "accelerate", "hf")
    ]
    assert names[0] == names[1] == names[2]


def test_a_value_too_long_for_mlflow_is_given_by_its_digest(run: Ran, corpus: Path) -> None:
    many = "[" + ",".join(["train.jsonl"] * 600) + "]"
    _, tracked = read_back(f"sqlite:///{corpus}/runs/mlflow.db", run(f"data.train={many}")["run_id"])
    assert tracked.data.params["data.train"].startswith("sha256 ")


@pytest.mark.parametrize(
    ("uri", "message"),
    [
        ("sqlite:////proc/nowhere/x.db", "no folder can be made there"),
        ("sqlite:///train.jsonl", "file is not a database"),
        ("http://", "this names no server"),
        ("http://localhost:port", "this names no server"),
        ("mysql+nothing://localhost/x", "mysql.nothing"),
    ],
)
def test_an_address_that_mlflow_cannot_take_is_one_line(uri: str, message: str, run: Ran) -> None:
    with pytest.raises(UserError, match=message) as caught:
        run(f"tracking.uri={uri}")
    assert "\n" not in str(caught.value)
    assert list(pending(Path("runs"))) == []  # It has never begun.


def test_a_deleted_experiment_is_one_line(run: Ran, corpus: Path) -> None:
    from mlflow import MlflowClient

    run()
    client = MlflowClient(f"sqlite:///{corpus}/runs/mlflow.db")
    client.delete_experiment(client.get_experiment_by_name("xp").experiment_id)
    with pytest.raises(UserError, match="it was deleted in MLflow"):
        run()


def test_a_crash_of_our_own_is_a_failed_run(run: Ran, corpus: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from mlflow import MlflowClient

    from xp.backend.torch import Torch

    def crash(self: Any, job: Any) -> None:
        raise ZeroDivisionError("ours")

    monkeypatch.setattr(Torch, "fit", crash)
    with pytest.raises(ZeroDivisionError):
        run()
    client = MlflowClient(f"sqlite:///{corpus}/runs/mlflow.db")
    (tracked,) = client.search_runs([client.get_experiment_by_name("xp").experiment_id])
    assert (tracked.info.status, tracked.data.tags["xp.error"]) == ("FAILED", "ZeroDivisionError: ours")


@pytest.mark.parametrize(
    ("signal", "code", "sweep"),
    [("TERM", 143, False), ("INT", 130, False), pytest.param("TERM", 143, True, marks=pytest.mark.slow)],
)
def test_a_run_that_is_ended_is_killed_in_mlflow(signal: str, code: int, sweep: bool, corpus: Path) -> None:
    from mlflow import MlflowClient

    # A shell starts what it puts into the background deaf to Ctrl-C, and so all that those tests start.
    hearing = "import signal, sys; signal.signal(2, signal.default_int_handler); from xp.__main__ import main; "
    process = subprocess.Popen(
        [
            sys.executable,
            "-c",
            f"{hearing}sys.exit(main())",
            *(["-m"] if sweep else []),
            *SMALL,
            "training.max_steps=1000000",
        ],
        cwd=corpus,
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parent.parent)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    for _ in range(600):
        time.sleep(0.2)
        folders = [
            path
            for path in corpus.glob("runs/scratch*")
            if (path / "journal.jsonl").exists() and len(journal(path)) > 5
        ]
        if folders:
            break
    process.send_signal({"TERM": 15, "INT": 2}[signal])
    try:
        _, errors = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == code
    assert "Traceback" not in errors
    client = MlflowClient(f"sqlite:///{corpus}/runs/mlflow.db")
    tracked = client.search_runs([client.get_experiment_by_name("xp").experiment_id])
    assert [each.info.status for each in tracked] == ["KILLED"] * (2 if sweep else 1)


@pytest.mark.parametrize("number", [6, pytest.param(32, marks=pytest.mark.slow)])
def test_runs_that_start_together_on_a_fresh_store_all_finish(
    number: int, compose: Callable[..., Any], corpus: Path
) -> None:
    """Each process opens the store for itself, and none has made its tables before."""
    from mlflow import MlflowClient

    runs = [compose(f"seed={seed}") for seed in range(number)]
    (corpus / "runs" / "mlflow.db").unlink()
    processes = [begin(run, "none", 0, None) for run in runs]
    for process in processes:
        process.join(timeout=500)
    said = Path("child.log").read_text()
    assert [process.exitcode for process in processes] == [0] * number, said
    assert "locked" not in said
    assert "are not in MLflow" not in said  # Slow it may be, for 32 at once on two cores; but it gets everything.
    client = MlflowClient(f"sqlite:///{corpus}/runs/mlflow.db")
    tracked = client.search_runs([client.get_experiment_by_name("xp").experiment_id])
    assert [each.info.status for each in tracked] == ["FINISHED"] * number
    assert all(each.data.metrics["train/loss"] for each in tracked)


def test_a_mistake_in_several_processes_is_a_failed_run(corpus: Path) -> None:
    from mlflow import MlflowClient

    (corpus / "other.jsonl").write_text('{"text": "apple", "label": "friut"}\n')
    ended = command(*SMALL, "data.eval=other.jsonl", "backend=accelerate", "backend.processes=2", folder=corpus)
    command("command=sync", folder=corpus)  # On a busy machine rank 0 may have been ended before MLflow had all.
    assert (ended.returncode, ended.stderr.count("\n")) == (2, 1)
    client = MlflowClient(f"sqlite:///{corpus}/runs/mlflow.db")
    (tracked,) = client.search_runs([client.get_experiment_by_name("xp").experiment_id])
    assert tracked.info.status == "FAILED"
    assert "friut" in tracked.data.tags["xp.error"]


def test_an_error_in_a_process_of_its_own_is_one_line_and_2(corpus: Path) -> None:
    ended = command(*SMALL, "data.columns.text=txet", folder=corpus)
    assert ended.returncode == 2
    assert ended.stderr == (
        "xp: data.columns.text=txet: the train rows of 'files' have no such column. Did you mean 'text'? "
        "Their columns: text, label\n"
    )


def test_who_is_killed_while_a_store_gets_its_tables_leaves_no_half_of_one(
    compose: Callable[..., Any], corpus: Path
) -> None:
    """Some of its migrations could not be begun again, and then nobody could ever use it."""
    from mlflow import MlflowClient

    first = compose("seed=1")
    (corpus / "runs" / "mlflow.db").unlink()
    process = begin(first, "none", 0, None)
    until = time.monotonic() + 120
    while not any(file.stat().st_size > 20_000 for file in corpus.glob("runs/mlflow.db*")):
        assert process.is_alive(), Path("child.log").read_text()
        assert time.monotonic() < until
        time.sleep(0.001)
    process.kill()
    process.join()
    assert not (corpus / "runs" / "mlflow.db").exists()
    second = start(Run.parse(first.values() | {"seed": 2}))
    client = MlflowClient(f"sqlite:///{corpus}/runs/mlflow.db")
    tracked = client.search_runs([client.get_experiment_by_name("xp").experiment_id], order_by=["start_time"])
    assert [each.info.status for each in tracked] == ["KILLED", "FINISHED"]
    assert tracked[1].info.run_id == second["run_id"]
    assert sorted(file.name for file in corpus.glob("runs/mlflow.db*")) == ["mlflow.db", "mlflow.db.lock"]
