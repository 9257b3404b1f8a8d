"""command=diff: what differs between runs, and where their curves part."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conftest import ROOT, SMALL, command, rows, write_rows

from xp.comparison import Facts, curves, show
from xp.config import compose as composing
from xp.error import UserError
from xp.launch import start
from xp.run import Run


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Runs that differ in one thing each, in a folder that no test changes: ``folder``, and results by their names."""
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("diff")
        patch.chdir(folder)
        write_rows(Path("train.jsonl"), rows(60))
        write_rows(Path("other.jsonl"), rows(61))
        write_rows(Path("eval.jsonl"), rows(85)[60:])
        composing.initialize(None)
        made = {
            "one": [],
            "same": [],
            "clipped": ["training.max_grad_norm=0.5", "training.evaluate_every=2"],
            "rows": ["data.train=other.jsonl"],
            "longer": ["training.max_steps=8", "training.schedule=constant", "training.warmup=0"],
        }
        common = [*SMALL, "training.schedule=constant", "training.warmup=0"]
        results = {name: start(Run.parse(composing.values([*common, *given]))) for name, given in made.items()}
        results["predicted"] = start(Run.parse(composing.values([
            "command=predict", "task=text_classification", "model=pretrained", f"model.path={results['one']['model']}",
            "inputs=[apple fig, cow]"])))  # fmt: skip
        return results | {"folder": folder}


@pytest.fixture
def diff(
    done: dict[str, Any], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., str]:
    """Compares runs in this process; gives what is printed, the cells of each row separated by single bars."""
    monkeypatch.chdir(done["folder"])
    composing.initialize(None)

    def shown(*runs: str, **given: str) -> str:
        before = {file for file in Path().rglob("*") if file.suffix != ".lock"}
        capsys.readouterr()
        show(
            Run.parse(
                composing.values(["command=diff", f"runs=[{','.join(runs)}]", *(f"{k}={v}" for k, v in given.items())])
            )
        )
        assert {file for file in Path().rglob("*") if file.suffix != ".lock"} == before
        return re.sub(r" *[│┃] *", "|", capsys.readouterr().out)

    return shown


@pytest.mark.parametrize("kind", ["folder", "run", "run_id", "prefix"])
def test_runs_that_are_the_same_are_said_to_be(kind: str, done: dict[str, Any], diff: Callable[..., str]) -> None:
    """Whatever names them: the folder, its name, the id of MLflow, the beginning of that."""
    one, same = (done[name]["run_id"][:8] if kind == "prefix" else done[name][kind] for name in ("one", "same"))
    out = diff(one, same)
    assert out == (
        f"nothing differs between {done['one']['run']} ({done['one']['run_id'][:8]}) and {done['same']['run']} "
        f"({done['same']['run_id'][:8]}): settings, environment, code, data, metrics are the same\n"
        "train/loss: equal at all 6 points of the curve\n"
    ).replace("code, ", "code, " if (ROOT / ".git").exists() else "")


@pytest.mark.parametrize("kind", ["folder", "run_id"])
def test_a_setting_that_differs_is_told_with_what_came_of_it(
    kind: str, done: dict[str, Any], diff: Callable[..., str]
) -> None:
    """The folder and MLflow tell the same of a run; sections in which nothing differs are not there."""
    out = diff(done["one"][kind], done["clipped"][kind])
    assert "|training.max_grad_norm|1.0|0.5||\n" in out
    assert "|training.evaluate_every|null|2||\n" in out
    sections = re.findall(r"^\|(settings|environment|code|data|outcome|metrics|speed|run)\|\|\|\|$", out, re.MULTILINE)
    assert sections == ["settings", "outcome", "metrics", "speed"]
    row = re.search(r"\|eval/loss\|([\d.]+)\|([\d.]+)\|([-+][\d.e-]+)\|", out)
    assert row is not None
    values = [done[name]["metrics"]["eval/loss"] for name in ("one", "clipped")]
    assert [float(row[1]), float(row[2])] == [pytest.approx(each, abs=1e-4) for each in values]
    assert float(row[3]) == pytest.approx(values[1] - values[0], abs=1e-4)
    parted = re.search(r"^train/loss: equal up to step 1, then ([\d.]+) against ([\d.]+) at step 2$", out, re.MULTILINE)
    assert parted is not None
    assert parted[1] != parted[2]


def test_other_rows_and_another_length_are_told(done: dict[str, Any], diff: Callable[..., str]) -> None:
    out = diff(done["one"]["run"], done["rows"]["run"])
    assert re.search(r"\|data\|\|\|\|\n\|fingerprint\|[0-9a-f]{12}\|[0-9a-f]{12}\|\|\n", out)
    assert "|data/train_rows|60|61|+1|" in out
    out = diff(done["one"]["run"], done["longer"]["run"])
    assert "train/loss: equal at all 6 points of the curve; step 6 is the last that all of them have\n" in out


def test_three_runs_have_a_column_each(done: dict[str, Any], diff: Callable[..., str]) -> None:
    out = diff(*(done[name]["run"] for name in ("one", "same", "clipped")))
    assert "|training.max_grad_norm|1.0|1.0|0.5|\n" in out
    assert "difference" not in out
    assert "train/loss: equal up to step 1, then" in out


def test_runs_of_different_commands_can_be_compared(done: dict[str, Any], diff: Callable[..., str]) -> None:
    out = diff(done["one"]["run_id"], done["predicted"]["run"])
    assert "|command|train|predict||\n" in out
    assert f"nothing is known of the data of {done['predicted']['run']} (" in out


def test_a_folder_that_was_carried_elsewhere_tells_all(
    done: dict[str, Any], diff: Callable[..., str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("one", "rows"):
        shutil.copytree(done[name]["folder"], tmp_path / name)
    monkeypatch.chdir(tmp_path)
    out = diff("one", "rows")
    assert "nothing is known" not in out
    assert "|fingerprint|" in out
    assert "|eval/loss|" in out


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["runs=[a]"], "runs: command=diff compares at least two; give runs=[<one>,<other>]"),
        ([], "runs: command=diff compares at least two"),
        (["command=train", "runs=[a,b]"], "runs: command=train compares none; use command=diff"),
        (["runs=[12345678,1e234567]"], "runs=12345678: sqlite:///runs/mlflow.db knows no such run"),
        (["runs=[one,one]"], "runs: one is one, which is there already; name another one"),
        (["runs=[one,runs/../one/../one]"], "is one, which is there already"),
        (["runs=[one,onf]"], "runs=onf: sqlite:///runs/mlflow.db knows no such run"),
    ],
)
def test_what_cannot_be_compared_is_one_line(
    given: list[str], message: str, done: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "runs").mkdir()
    shutil.copy(done["folder"] / "runs" / "mlflow.db", tmp_path / "runs")
    shutil.copytree(
        done["one"]["folder"] if Path(done["one"]["folder"]).is_absolute() else done["folder"] / done["one"]["folder"],
        tmp_path / "one",
    )
    monkeypatch.chdir(tmp_path)
    composing.initialize(None)
    with pytest.raises(UserError, match=re.escape(message)):
        show(Run.parse(composing.values(["command=diff", *given])))


def test_curves_part_at_the_first_point_or_later() -> None:
    def facts(*values: float) -> Facts:
        return Facts("", points={"train/loss": {10 * at: value for at, value in enumerate(values, 1)}})

    nan = float("nan")
    assert curves([facts(1.0, nan), facts(1.0, nan)]) == (True, "train/loss: equal at all 2 points of the curve")
    assert curves([facts(1.0), facts()]) == (True, "")
    assert curves([facts(0.5, 0.51231), facts(0.5, 0.51232)]) == (
        False, "train/loss: equal up to step 10, then 0.51231 against 0.51232 at step 20")  # fmt: skip
    assert curves([facts(0.1), facts(0.1 + 2**-54)])[1].startswith(
        "train/loss: differs from the first point on: 0.1000000000000000"
    )


def test_it_costs_no_folder_and_ends_with_0(done: dict[str, Any]) -> None:
    before = set(done["folder"].rglob("*"))
    ended = command("command=diff", f"runs=[{done['one']['run']},{done['rows']['run_id'][:8]}]", folder=done["folder"])
    assert (ended.returncode, ended.stderr) == (0, "")
    assert "fingerprint" in ended.stdout
    assert {file for file in set(done["folder"].rglob("*")) - before if file.suffix != ".lock"} == set()
