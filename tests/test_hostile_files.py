"""Models, adapters, data, templates and folders of runs are data, too: watched as in `test_hostile`."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import hostile_files
import pytest
from children import Children, children
from conftest import SCRATCH, rows, write_rows
from hostile import Case
from hostile_files import TRAIN, Link
from test_hostile import Box, check

EACH = 4
"""Inputs of each kind that are tried in every run of the tests; all of them with ``-m slow``."""

TALK = {"messages": [{"role": "user", "content": "hello"}, {"role": "assistant", "content": "well"}]}


@pytest.fixture(scope="module")
def heavy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Children]:
    caches = tmp_path_factory.getbasetemp() / "base" / "home"  # Asked for when the libraries are imported.
    with children(heavy=True, HF_HOME=str(caches)) as made:
        yield made


class Base:
    """Right models, adapters, data and runs, made once, and put back into the same folder for each hostile input."""

    def __init__(self, root: Path, asked: Children) -> None:
        self.box, self.kept = Box(root / "box", root / "home"), root / "kept"
        self.kept.mkdir()
        here = self.box.here
        write_rows(here / "train.jsonl", rows(20))
        write_rows(here / "eval.jsonl", rows(30)[20:])
        write_rows(here / "talks.jsonl", [TALK] * 4)
        train = [*TRAIN, "training.save_total=2"]
        (first,) = self._ran(asked, [*train, *SCRATCH])
        shutil.copytree(first / "model", here / "model")
        (second,) = self._ran(asked, [*train, "model=pretrained", "model.path=model", "peft=lora"]) - {first}
        shutil.copytree(second / "model", here / "adapter")
        shutil.rmtree(second)
        first.rename(here / "runs" / "victim")
        ended = asked.do([str(here / "saved")], here, call="test_hostile_files:save")
        assert ended.code == 0, ended.err
        for name in ("model", "adapter", "saved"):
            shutil.move(here / name, self.kept / name)
        shutil.move(here / "runs", self.kept / "runs")

    def _ran(self, asked: Children, arguments: list[str]) -> set[Path]:
        ended = asked.do(arguments, self.box.here)
        assert ended.code == 0, ended.err
        return {file.parent for file in (self.box.here / "runs").glob("*/result.json")}

    def fresh(self, case: Case) -> Box:
        """The box with what a case needs, and with its files."""
        here, outside = self.box.here, self.box.outside
        shutil.rmtree(self.box.root / "tmp")
        (self.box.root / "tmp").mkdir()
        for entry in here.iterdir():
            if entry.is_dir() and not entry.is_symlink():
                shutil.rmtree(entry)
            elif entry.name not in ("train.jsonl", "eval.jsonl", "talks.jsonl", f"{hostile_files.MODULE}.py"):
                entry.unlink()
        for entry in outside.iterdir():
            if entry.name != "canary":
                entry.unlink()
        (outside / "canary").write_text("unharmed\n")
        for name in (*case.base, "runs"):
            if name != "run":
                shutil.copytree(self.kept / name, here / name)
        if "run" not in case.base:
            shutil.rmtree(here / "runs" / "victim")
        for name, content in case.files.items():
            self._put(here / name, content)
        return self.box

    def _put(self, file: Path, content: Any) -> None:
        if file.name == "checkpoint":
            _forge(max(file.parent.glob("runs/victim/checkpoints/step-*")), content)
            return
        file.parent.mkdir(parents=True, exist_ok=True)
        if content is None or isinstance(content, Link):
            if file.is_dir():
                shutil.rmtree(file)
            file.unlink(missing_ok=True)
        if isinstance(content, Link):
            file.symlink_to(content)
        elif isinstance(content, Mapping):
            file.write_text(json.dumps(_merged(json.loads(file.read_text()) if file.exists() else {}, content)))
        elif content is not None:
            file.write_bytes(content if isinstance(content, bytes) else content.encode())


def _merged(there: Any, change: Any) -> Any:
    if not isinstance(there, dict) or not isinstance(change, Mapping):
        return change
    return there | {name: _merged(there.get(name), value) for name, value in change.items()}


def _forge(folder: Path, change: dict[str, Any]) -> None:
    """Change a checkpoint, and its checksums with it."""
    for name, content in change.items():
        file = folder / ("state.json" if name == "state" else f"{name}.safetensors")
        if name == "manifest":
            continue
        if isinstance(content, bytes):
            file.write_bytes(content)
        else:
            file.write_text(json.dumps(_merged(json.loads(file.read_text()), content)))
    known = {
        file.name: {"bytes": file.stat().st_size, "sha256": hashlib.sha256(file.read_bytes()).hexdigest()}
        for file in folder.iterdir()
        if file.name != "manifest.json"
    }
    (folder / "manifest.json").write_text(json.dumps(known | change.get("manifest", {})))


def save(where: str) -> int:
    """In a child: a saved data set."""
    from datasets import Dataset

    Dataset.from_list(rows(12)).save_to_disk(where)
    return 0


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory, heavy: Children) -> Base:
    return Base(tmp_path_factory.getbasetemp() / "base", heavy)


def check_all(kind: Callable[[], Iterator[Case]], every: bool, base: Base, asked: Children) -> None:
    cases = list(kind())
    chosen = cases if every else cases[:: max(1, len(cases) // EACH)]
    wrong = [each for case in chosen for each in check(case, base.fresh(case), asked, stop=False)]
    assert not wrong, f"{len(wrong)} of {len(chosen)}:\n" + "\n".join(wrong)


@pytest.mark.parametrize("kind", hostile_files.HEAVY, ids=lambda kind: kind.__name__)
def test_a_hostile_file_is_data(kind: Callable[[], Iterator[Case]], base: Base, heavy: Children) -> None:
    check_all(kind, False, base, heavy)


@pytest.mark.slow
@pytest.mark.parametrize("kind", hostile_files.HEAVY, ids=lambda kind: kind.__name__)
def test_every_hostile_file_is_data(kind: Callable[[], Iterator[Case]], base: Base, heavy: Children) -> None:
    check_all(kind, True, base, heavy)
