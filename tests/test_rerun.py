"""Rerun: a tracked run is done again from what MLflow holds, and what differs is told."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from bombs import killed
from conftest import command, curve, journal, rows, write_rows

from xp.config import compose as composing
from xp.error import UserError
from xp.launch import start
from xp.rerun import again
from xp.resume import resumed

Ran = Callable[..., dict[str, Any]]


def client() -> Any:
    from mlflow import MlflowClient

    return MlflowClient(f"sqlite:///{Path('runs/mlflow.db').absolute()}")


@pytest.fixture(scope="module")
def folder_of_stores(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("stores")
    (folder / "runs").mkdir(exist_ok=True)
    return folder


@pytest.fixture
def store(folder_of_stores: Path, compose: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """A current folder that several tests share, for to make a store takes seconds; gives `compose`."""
    monkeypatch.chdir(folder_of_stores)
    composing.initialize(None)
    return compose


def rerun(where: str, *overrides: str) -> tuple[dict[str, Any], list[str]]:
    """Does a run again in this process; gives its result with ``points``, and what was said before it began."""
    composing.initialize(None)
    said: list[str] = []
    run, origin = again(where, list(overrides), None, said.append)
    result = start(run, origin=origin)
    return result | {"points": journal(Path(result["folder"]))}, said


def made(text: str | None, **tags: str) -> str:
    """A run of MLflow that xp did not make, with this for its run.yaml."""
    tracking = client()
    known = tracking.get_experiment_by_name("xp")
    experiment = (
        known.experiment_id
        if known
        else tracking.create_experiment("xp", (Path("runs") / "artifacts").absolute().as_uri())
    )
    run_id: str = tracking.create_run(experiment, tags=tags, run_name="made").info.run_id
    if text is not None:
        tracking.log_text(run_id, text, "run.yaml")
    return run_id


def test_a_run_is_done_again_without_its_folder(run: Ran, capsys: pytest.CaptureFixture[str]) -> None:
    """To the last bit, in a folder and a run of MLflow of its own; each of the two knows of the other."""
    first = run("model.config.attention_dropout=0.2", "task=causal_lm", "training.keep_best=true")
    shutil.rmtree(first["folder"])
    shutil.rmtree("runs/cache")
    capsys.readouterr()
    second, said = rerun(first["run_id"][:8])
    assert (second["metrics"], second["digest"]) == (first["metrics"], first["digest"])
    names = ("train/loss", "train/grad_norm", "train/lr")
    assert curve(second["points"], *names) == curve(first["points"], *names)
    assert second["run"] != first["run"]
    assert second["run_id"] != first["run_id"]

    assert said[0].startswith(f"runs {first['run']} ({first['run_id'][:8]}) of ")
    assert len(said) == 1
    of = f"{first['run']} ({first['run_id'][:8]})"
    lines = capsys.readouterr().out.splitlines()
    for same in ("code as", "environment as", "data as"):
        assert f"the same {same} {of}" in lines
    assert f"the same final metrics as {of}, to the last bit" in lines
    assert "train/loss: equal at all 6 points of the curve" in lines
    old, new = (client().get_run(each["run_id"]) for each in (first, second))
    assert old.data.tags[f"xp.rerun.{second['run']}"] == second["run_id"]
    assert new.data.tags["xp.rerun_of"] == first["run_id"]
    assert new.data.tags["xp.rerun_differs"] == "nothing"
    with open(client().download_artifacts(second["run_id"], "rerun.json")) as file:
        report = json.load(file)
    assert (report["of"]["run_id"], report["differs"]) == (first["run_id"], {})

    third, _ = rerun("last")
    assert client().get_run(third["run_id"]).data.tags["xp.rerun_of"] == second["run_id"]
    assert third["metrics"] == first["metrics"]


def test_evaluations_and_predictions_are_done_again(run: Ran) -> None:
    trained = run("task=text_classification")
    path = f"model.path={trained['model']}"
    rest = ["model=pretrained", path, "data=files", "data.eval=eval.jsonl", "training.evaluation_batch_size=8"]
    evaluated = run("command=evaluate", "task=text_classification", *rest)
    again_evaluated, _ = rerun(evaluated["run"])
    assert again_evaluated["metrics"] == evaluated["metrics"] == trained["metrics"]
    asked = ["command=predict", "task=text_classification", "model=pretrained", path, "inputs=[apple fig, cow]"]
    asked += ["prediction.output=out.jsonl"]
    composing.initialize(None)
    from xp.run import Run

    predicted = start(Run.parse(composing.values(asked)))
    Path("out.jsonl").unlink()
    again_predicted, said = rerun(predicted["run_id"])
    assert 'prediction.output="out.jsonl" is not written again, unless it is said again' in said
    assert not Path("out.jsonl").exists()
    lines = [Path(each["predictions"]).read_text() for each in (predicted, again_predicted)]
    assert lines[0] == lines[1]
    assert client().get_run(again_predicted["run_id"]).data.tags["xp.rerun_differs"] == "settings"
    rerun(predicted["run_id"], "prediction.output=out.jsonl")
    assert Path("out.jsonl").read_text() == lines[0]


def test_a_run_is_done_again_from_another_folder(
    run: Ran, corpus: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = run(f"data.train={corpus}/train.jsonl", f"data.eval={corpus}/eval.jsonl")
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    monkeypatch.chdir(elsewhere)
    with pytest.raises(UserError, match=r"^rerun=last: there is no store at tracking.uri=sqlite:///runs/mlflow.db"):
        rerun("last")
    assert not Path("runs").exists()
    second, _ = rerun(first["run_id"], f"tracking.uri=sqlite:///{corpus}/runs/mlflow.db")
    assert second["metrics"] == first["metrics"]
    assert Path(second["folder"]).absolute().parent == elsewhere / "runs"
    assert len(list((corpus / "runs").glob("scratch-*"))) == 1


def test_what_differs_is_told_and_not_refused(run: Ran, capsys: pytest.CaptureFixture[str]) -> None:
    first = run()
    known = client()
    known.set_tag(first["run_id"], "xp.changed.environment.torch", "2.10.1")
    known.set_tag(first["run_id"], "mlflow.source.git.commit", "0" * 40)
    write_rows(Path("train.jsonl"), rows(61))
    second, said = rerun(first["run_id"], "seed=3", "training.learning_rate=2e-3", "peft=lora")
    import torch

    assert {"seed=3 (was 0)", "training.learning_rate=0.002 (was 0.0015)", "peft.name=lora (was none)"} <= {
        *said
    } or said
    out = capsys.readouterr().out
    of = f"{first['run']} ({first['run_id'][:8]})"
    assert f"other environment than {of}: torch {torch.__version__} (was 2.10.1)\n" in out
    assert f"other code than {of}: commit " in out
    assert f"other data than {of}: fingerprint " in out
    assert f"other metrics than {of}: " in out
    tags = known.get_run(second["run_id"]).data.tags
    assert tags["xp.rerun_differs"] == "settings, environment, code, data, outcome, metrics, curve"
    report = json.loads((Path(second["folder"]) / "rerun.json").read_text())
    assert report["differs"]["environment"]["torch"] == ["2.10.1", torch.__version__]
    assert (tags["xp.peft"], tags["xp.seed"]) == ("lora", "3")


def test_a_run_that_was_killed_or_extended_is_done_again_as_it_was_in_the_end(
    run: Ran, compose: Callable[..., Any]
) -> None:
    first = run("training.max_steps=4", "training.save_every=2")
    composing.initialize(None)
    going, folder = resumed(first["run_id"], ["training.max_steps=6"], None)
    start(going, folder=folder)
    second, said = rerun(first["run_id"])
    assert [point["step"] for point in second["points"] if "train/loss" in point] == [1, 2, 3, 4, 5, 6]
    assert any(line.startswith("it was made longer on its way (from 4 to 6 steps, after step 4)") for line in said)

    killed(compose(), "step", 4)
    third, said = rerun("last")
    assert "which is KILLED" in said[0] or "which is RUNNING" in said[0]
    assert third["digest"] == run()["digest"]


def test_a_run_of_an_earlier_xp_gets_the_settings_that_have_come_since(run: Ran) -> None:
    first = run()
    old = json.loads((Path(first["folder"]) / "run.yaml").read_text())
    del old["cache"], old["training"]["patience"], old["data"]["columns"], old["model"]["config"]["hidden_size"]
    composing.initialize(None)
    said: list[str] = []
    found, _ = again(made(json.dumps(old)), [], None, said.append)
    assert said[1:3] == [
        "cache=true: there was no such setting then",
        "data.columns={}: there was no such setting then",
    ]
    assert said[3] == "training.patience=null: there was no such setting then"
    assert "hidden_size" not in found.values()["model"]["config"]  # A key of the user's own is not made up.


def frozen(compose: Callable[..., Any], **changed: Any) -> str:
    values = compose().values()
    for key, value in changed.items():
        *parents, last = key.split("__")
        there = values
        for parent in parents:
            there = there[parent]
        there[last] = value
    return json.dumps(values)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "made has no run.yaml in MLflow"),
        ("", "its run.yaml does not parse: Expecting value"),
        ("command: train\n", "its run.yaml does not parse"),
        ("[1]", "its run.yaml holds no settings"),
        ("[" * 100_000, "its run.yaml does not parse"),
        ("9" * 5_000, "its run.yaml does not parse"),
        ('{"command": "train"}', "its settings cannot be run any more: examples: has no value"),
        ('{"command": "train", "choices": {"model": "../../x"}, "model": 3}', "its settings cannot be run any more: "),
    ],
)
def test_what_is_no_run_of_xp_is_one_line(text: str | None, message: str, store: Callable[..., Any]) -> None:
    with pytest.raises(UserError, match=message) as caught:
        again(made(text), [], None, print)
    assert str(caught.value).startswith("rerun=")
    assert "\n" not in str(caught.value)
    assert not list(Path("runs").glob("*/run.yaml"))


@pytest.mark.parametrize(
    ("changed", "overrides", "message"),
    [
        ({"imports": ["os"]}, [], r"it needs imports=\[os\], which only the command line can say"),
        ({"imports": "os"}, [], r"it needs imports=\[...\], which only the command line can say"),
        ({"model__trust_remote_code": True}, [], "it needs model.trust_remote_code=true, .* only the command line"),
        ({"seed": "x"}, [], 'its settings cannot be run any more: seed="x": it must be an integer'),
        ({"training__foo": 1}, [], "its settings cannot be run any more: training.foo: there is no such key"),
        ({"tracking__experiment": "hf_QwErTyUiOpAsDfGhJkLzXcVbNm"}, [], "tracking.experiment: it holds a token"),
        ({}, ["seeed=1"], "seeed: there is no such key. Did you mean 'seed'?"),
        ({}, ["experiment=parity_causal_lm"], "experiment: this cannot be said of a run that there is"),
        ({}, ["training.learning_rate=fast"], 'training.learning_rate="fast": it must be a number'),
        ({}, ["model=pretrained"], "model.path has no value; give model.path=<value>"),
        ({}, ["tracking.uri=htp://x"], "tracking.uri=htp://x: this is no address"),
    ],
)
def test_what_cannot_be_run_again_is_one_line(
    changed: dict[str, Any], overrides: list[str], message: str, store: Callable[..., Any]
) -> None:
    where = made(frozen(store, **changed))
    with pytest.raises(UserError, match=message):
        again(where, overrides, None, print)


def test_what_mlflow_holds_decides_no_place(compose: Callable[..., Any], tmp_path: Path) -> None:
    """The folder of runs, the store and the names of folders come from here, whoever has written the run."""
    Path("runs").mkdir(exist_ok=True)
    choices = compose().choices | {"model": "../../elsewhere"}
    elsewhere = {"uri": f"sqlite:///{tmp_path}/other/m.db", "experiment": "mine", "log_model": False}
    where = made(frozen(compose, runs_folder=str(tmp_path / "other"), tracking=elsewhere, choices=choices))
    result, _ = rerun(where)
    assert Path(result["folder"]).resolve().parent == (tmp_path / "runs").resolve()
    assert not (tmp_path / "other").exists()
    assert client().get_experiment_by_name("mine") is not None


def test_a_run_that_is_not_found_is_one_line(run: Ran) -> None:
    first = run()
    for where, message in (
        ("last", ""),
        ("0" * 32, "knows no such run"),
        ("0" * 8, "knows no such run"),
        (first["run_id"][:7], f"knows no such run. Did you mean '{first['run_id']}'?"),
        (first["run"][:-1], f"Did you mean '{first['run']}'?"),
        ("' OR 1=1", "knows no such run"),
        ("runs/nothing", "knows no such run"),
        (first["folder"], ""),
    ):
        if message:
            with pytest.raises(UserError, match=re.escape(message)):
                rerun(where)
        else:
            composing.initialize(None)
            assert again(where, [], None, print)[1].facts.run_id == first["run_id"]
    client().delete_run(first["run_id"])
    with pytest.raises(UserError, match="it was deleted in MLflow; restore it"):
        rerun(first["run_id"])
    with pytest.raises(UserError, match="rerun=last: sqlite:///runs/mlflow.db knows no such run"):
        rerun("last")


def test_a_sweep_is_not_run_again(store: Callable[..., Any]) -> None:
    with pytest.raises(
        UserError, match="it is a sweep, and its jobs are runs of their own; the best of them is rerun=abc"
    ):
        again(made(None, **{"xp.command": "sweep", "xp.best": "abc"}), [], None, print)


def test_the_command_line_takes_one_run_at_a_time(corpus: Path) -> None:
    for arguments, message in (
        (["rerun=last", "resume=last"], "xp: rerun=last resume=last: one run at a time"),
        (["-m", "rerun=last", "seed=1,2"], "xp: rerun=last: one run at a time; leave out -m"),
        (["rerun="], "xp: rerun=: "),
    ):
        ended = command(*arguments, folder=corpus)
        assert (ended.returncode, ended.stderr.count("\n")) == (2, 1)
        assert ended.stderr.startswith(message)
