"""The README: its commands are real, its groups and choices are those there are."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
from conftest import ROOT, command, rows

from xp import compose
from xp.run import Run

TEXT = (ROOT / "README.md").read_text()
BLOCKS = re.findall(r"```sh\n(.*?)```", TEXT, re.DOTALL)
COMMANDS = [line.partition("  #")[0].strip() for block in BLOCKS for line in block.splitlines()]
XP = [line for line in COMMANDS if line.startswith("python -m xp")]


def arguments(line: str) -> list[str]:
    return shlex.split(re.sub(r"<run( id)?>", "some", line))[3:]


@pytest.mark.parametrize("line", [line for line in XP if "--" not in line])
def test_every_command_is_a_right_config(line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    compose.initialize(None)
    given = arguments(line)
    if given[:1] == ["-m"]:  # The first job of the sweep stands for all.
        given = [re.sub(r"=([^\[,]*),.*", r"=\1", each) for each in given[1:]]
    Run.parse(compose.values(given))


def test_every_group_and_choice_is_listed() -> None:
    listed = dict(re.findall(r"^\| `(\w+)` \| ([\w, ]+) \|", TEXT, re.MULTILINE))
    there = {
        folder.name: {file.stem for file in folder.glob("*.yaml")}
        for folder in (ROOT / "conf").iterdir()
        if folder.is_dir()
    }
    assert {group: set(choices.split(", ")) for group, choices in listed.items()} == there


def test_it_opens_with_two_commands() -> None:
    first, second = BLOCKS[0].splitlines()
    assert first.endswith("pip install -e . && python -m xp")
    assert second.endswith('pip install -e ".[dev]" && python -m pytest')


@pytest.mark.slow
@pytest.mark.parametrize(
    "line", [line for line in COMMANDS if "xp" in line and "pip" not in line and "distilbert" not in line]
)
def test_every_command_runs(line: str, tmp_path: Path) -> None:
    """As it stands, on files like those it names and a model like the one it names."""
    import csv
    import json
    import subprocess

    made = [{"sentence": row["text"], "stars": row["label"]} for row in rows(60)]
    for name in ("train", "dev"):
        with (tmp_path / f"{name}.csv").open("w") as file:
            writer = csv.DictWriter(file, ["sentence", "stars"])
            writer.writeheader()
            writer.writerows(made)
        (tmp_path / f"{name}.tsv").write_text("".join(f"{row['sentence']}\t{row['stars']}\n" for row in made))
    for name in ("books", "more"):
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps({"text": row["sentence"]}) + "\n" for row in made))
    bundled = ROOT / "xp" / "assets" / "bundled"
    line = line.replace("path/to/folder_or_hub_id", str(bundled))
    if "<run" in line:
        assert command("data.train_rows=64", "training.epochs=1", folder=tmp_path).returncode == 0
        (result,) = [json.loads(file.read_text()) for file in tmp_path.glob("runs/bundled-*/result.json")]
        line = line.replace("<run id>", result["run_id"]).replace("<run>", result["run"])
    if line.startswith("mlflow ui"):
        return
    ended = subprocess.run(line, shell=True, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=1200)
    assert ended.returncode == 0, ended.stderr
