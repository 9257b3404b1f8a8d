"""The house: imports only point down, heavy libraries stay out of the way, files stay small."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import ROOT

LAYERS = [
    {"secret"},  # imports nothing of xp
    {"error"},
    {"component", "console", "metric", "findings", "cache", "hub", "unpickled", "process"},
    {"imports", "fault", "consent", "adapter"},
    {"tracking", "hardware"},
    {"model", "peft", "task", "data", "generation", "ledger"},
    {"training"},
    {"features", "places", "evaluation", "prediction", "chat", "proof", "backend", "saving", "mishap"},
    {"prepare", "run"},
    {"report", "show", "config"},
    {"comparison"},
    {"commands"},
    {"workers"},
    {"launch"},
    {"sweep", "resume", "rerun"},
    {"__main__"},
]
"""From the ground up. A file may import from lower layers, and a package from itself."""

HEAVY = {"torch", "transformers", "datasets", "peft", "accelerate", "evaluate", "mlflow", "sklearn", "numpy", "rich"}
HEAVY |= {
    "bitsandbytes",
    "matplotlib",
    "PIL",
    "pandas",
    "scipy",
    "rouge_score",
    "sacrebleu",
    "jiwer",
    "soundfile",
    "av",
}
COMPOSING = {f"xp/config/{name}.py" for name in ("closed", "complaint", "compose", "grid", "sources")}
COMPOSING |= {"xp/sweep/launcher.py"}
ONLY = {
    "mlflow": {f"xp/tracking/{name}.py" for name in ("store", "batch", "sending", "delivery", "remembered")},
    "accelerate": {"xp/backend/accelerate.py"},
    "hydra": {"xp/__main__.py", *COMPOSING},
    "omegaconf": COMPOSING,
}
FILES = sorted((ROOT / "xp").rglob("*.py"))


def imports(file: Path) -> Iterator[tuple[str, bool]]:
    """Every module that a file imports, and whether at its top, outside of functions and TYPE_CHECKING."""
    tree = ast.parse(file.read_text())
    top = {id(node) for node in tree.body}
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module:
            for alias in node.names:
                yield (f"xp.{alias.name}" if node.module == "xp" else node.module), id(node) in top
        elif isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name, id(node) in top


def layer(room: str) -> int:
    return next(number for number, rooms in enumerate(LAYERS) if room in rooms)


def room(file: Path) -> str:
    return file.relative_to(ROOT / "xp").parts[0].removesuffix(".py")


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(ROOT)))
def test_imports_point_down(file: Path) -> None:
    here = room(file)
    if here == "__init__":
        return
    for module, _ in imports(file):
        if module.startswith("xp."):
            there = module.split(".")[1]
            assert there == here or layer(there) < layer(here), f"{here} imports {there}"


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(ROOT)))
def test_heavy_libraries_are_imported_where_they_are_used(file: Path) -> None:
    if file.match("metric/base.py"):  # Imported when a metric is computed: it derives from evaluate's class.
        return
    assert not {module.split(".")[0] for module, top in imports(file) if top} & HEAVY


@pytest.mark.parametrize("library", ONLY)
def test_some_libraries_have_one_door(library: str) -> None:
    users = {str(file.relative_to(ROOT)) for file in FILES if any(m.split(".")[0] == library for m, _ in imports(file))}
    assert users <= ONLY[library]


def test_trainer_lives_in_one_file() -> None:
    users = {file.name for file in FILES if "transformers import Trainer" in file.read_text()}
    assert users == {"hf.py"}


def test_files_stay_small() -> None:
    assert {str(file): lines for file in FILES if (lines := len(file.read_text().splitlines())) > 255} == {}


def test_there_is_no_room_for_leftovers() -> None:
    assert not [file for file in FILES if file.stem in ("utils", "common", "helpers", "misc")]


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(ROOT)))
def test_every_setting_says_what_it_means(file: Path) -> None:
    """A field of a settings class is followed by a docstring, but for the kinds of a Run."""
    for cls in ast.walk(ast.parse(file.read_text())):
        if not isinstance(cls, ast.ClassDef) or cls.name == "Run":
            continue
        bases = {ast.unparse(base) for base in cls.bases}
        if not bases & {"Settings", "Component", "Model", "Data", "Task", "Peft", "Backend", "Generation"}:
            continue
        for node, after in zip(cls.body, [*cls.body[1:], ast.Pass()], strict=True):
            if isinstance(node, ast.AnnAssign) and "ClassVar" not in ast.unparse(node.annotation):
                assert isinstance(after, ast.Expr), f"{cls.name}.{ast.unparse(node.target)} has no docstring"
