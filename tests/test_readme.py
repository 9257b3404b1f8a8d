"""The README: its commands are real, its groups and choices are those there are."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import pytest
from conftest import ROOT, command, rows, write_rows

from xp.config import compose
from xp.run import Run

TEXT = (ROOT / "README.md").read_text()
BLOCKS = re.findall(r"```sh\n(.*?)```", TEXT, re.DOTALL)
COMMANDS = [line.partition("  #")[0].strip() for block in BLOCKS for line in block.splitlines()]
HUB = ("distilbert", "qwen3", "facebook/", "t5_small")  # Names in commands that go to the hub.
XP = [line for line in COMMANDS if line.startswith("python -m xp")]


def arguments(line: str) -> list[str]:
    return shlex.split(re.sub(r"<(other )?run( id)?>", lambda each: each[0].strip("<>").replace(" ", "_"), line))[3:]


@pytest.mark.parametrize("line", [line for line in XP if "--" not in line and not re.search("resume=|rerun=", line)])
def test_every_command_is_a_right_config(line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    if "imports=" in line:
        own_task(tmp_path)
        monkeypatch.syspath_prepend(tmp_path)
    compose.initialize(None)
    given = arguments(line)
    if given[:1] == ["-m"]:  # The first job of the sweep stands for all.
        given = [re.sub(r"=([^\[,]*),.*", r"=\1", each) for each in given[1:]]
    Run.parse(compose.values(given))


def test_every_group_is_listed_with_choices_that_there_are() -> None:
    """All of them, but for the long lists, which end in dots; --help has those whole."""
    listed = dict(re.findall(r"^\| `(\w+)` \| ([\w, .]+) \|", TEXT.partition("### Tasks")[0], re.MULTILINE))
    there = {
        folder.name: {file.stem for file in folder.glob("*.yaml")}
        for folder in (ROOT / "conf").iterdir()
        if folder.is_dir()
    }
    assert listed.keys() == there.keys()
    for group, choices in listed.items():
        named = set(choices.removesuffix(", ...").split(", "))
        assert named <= there[group]
        assert choices.endswith(", ...") or named == there[group]


def test_every_hub_data_set_and_task_of_the_table_is_there() -> None:
    table = TEXT[TEXT.index("| task | columns | hub data |") : TEXT.index("The label column decides")]
    rows = [line.split(" | ") for line in table.splitlines()[2:] if line.startswith("| ")]
    tasks = {name for row in rows for name in re.findall(r"`(\w+)`", row[0])}
    data = {name for row in rows for name in re.findall(r"\w+", row[2])}
    assert tasks <= {file.stem for file in (ROOT / "conf" / "task").glob("*.yaml")}
    hub = {file.stem for file in (ROOT / "conf" / "data").glob("*.yaml") if "  - hub\n" in file.read_text()}
    assert data == hub


def test_the_data_set_of_the_page_is_a_right_config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "conf" / "data").mkdir(parents=True)
    (block,) = re.findall(r"```yaml\n(# conf/data/rotten_tomatoes.yaml.*?)```", TEXT, re.DOTALL)
    (tmp_path / "conf" / "data" / "rotten_tomatoes.yaml").write_text(block)
    monkeypatch.chdir(tmp_path)
    compose.initialize(None)
    run = Run.parse(compose.values(["data=rotten_tomatoes"]))
    assert (run.data.name, run.task.name) == ("hub", "text_classification")


def own_task(folder: Path) -> None:
    """The page's own task, with the data that its command names."""
    (code,) = re.findall(r"```python\n(# preference.py.*?)```", TEXT, re.DOTALL)
    (block,) = re.findall(r"```yaml\n(# conf/task/preference.yaml.*?)```", TEXT, re.DOTALL)
    (folder / "preference.py").write_text(code)
    (folder / "conf" / "task").mkdir(parents=True)
    (folder / "conf" / "task" / "preference.yaml").write_text(block)
    made = (
        [row["text"] for row in rows(60) if row["label"] == "fruit"],
        [row["text"] for row in rows(60) if row["label"] == "tool"],
    )
    pairs = [{"chosen": fruit, "rejected": tool} for fruit in made[0] for tool in made[1][:4]]
    write_rows(folder / "pairs.jsonl", pairs)
    write_rows(folder / "more_pairs.jsonl", pairs[:12])


def test_the_task_of_the_page_learns_on_every_engine(tmp_path: Path) -> None:
    own_task(tmp_path)
    (line,) = [line for line in XP if "task=preference" in line]
    small = [
        "model=scratch",
        "model.vocabulary=300",
        "model.config.hidden_size=32",
        "training.batch_size=16",
        "precision=fp32",
    ]
    digests = set()
    for backend in ("torch", "accelerate", "hf"):
        given = [*shlex.split(line)[3:], *small, f"backend={backend}", f"runs_folder={backend}"]
        ended = command(*given, folder=tmp_path)
        assert ended.returncode == 0, ended.stderr
        (result,) = [json.loads(file.read_text()) for file in tmp_path.glob(f"{backend}/*/result.json")]
        assert result["metrics"]["eval/accuracy"] > 0.9
        digests.add(result["digest"])
    assert len(digests) == 1


def test_it_opens_with_two_commands() -> None:
    first, second = BLOCKS[0].splitlines()
    assert first.endswith("pip install -e . && python -m xp")
    assert second.endswith('pip install -e ".[dev]" && python -m pytest')


@pytest.mark.slow
@pytest.mark.parametrize(
    "line", [line for line in COMMANDS if "xp" in line and "pip" not in line and not any(hub in line for hub in HUB)]
)
def test_every_command_runs(line: str, tmp_path: Path) -> None:
    """As it stands, on files like those it names and a model like the one it names."""
    import csv
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
    write_rows(tmp_path / "prompts.jsonl", [{"prompt": row["sentence"]} for row in made[:5]])
    (tmp_path / "texts.txt").write_text("".join(f"{row['sentence']}\n" for row in made[:5]))
    for name in ("talks", "more_talks"):
        talks = [
            [{"role": "user", "content": "Name one."}, {"role": "assistant", "content": row["sentence"]}]
            for row in made
        ]
        write_rows(tmp_path / f"{name}.jsonl", [{"messages": talk} for talk in talks])
    own_task(tmp_path)
    bundled = ROOT / "xp" / "assets" / "bundled"
    line = line.replace("path/to/folder_or_hub_id", str(bundled))
    if "<run" in line or "resume=" in line:
        small = ["data.train_rows=64", "training.epochs=1"]
        small += ["peft=lora"] if "adapters=" in line or "command=merge" in line else []
        small += ["task=causal_lm"] if "adapters=" in line and re.search("command=generate|peft=x?lora", line) else []
        assert command(*small, folder=tmp_path).returncode == 0
        (file,) = tmp_path.glob("runs/bundled-*/result.json")
        result = json.loads(file.read_text())
        if "resume=" in line:
            file.unlink()  # As if it had been killed just before.
        if "<other run>" in line:
            assert command(*small, "runs_folder=other", folder=tmp_path).returncode == 0
            (other,) = tmp_path.glob("other/bundled-*")
            line = line.replace("runs/<other run>", str(other)).replace("<other run>", str(other))
        line = line.replace("<run id>", result["run_id"]).replace("<run>", result["run"])
    if line.startswith("mlflow ui"):
        return
    ended = subprocess.run(line, shell=True, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=1200)
    assert ended.returncode == 0, ended.stderr
