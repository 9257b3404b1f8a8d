"""What several tests need: small data, small models, and a way to run xp as its users do."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parent.parent
os.environ.setdefault("OMP_NUM_THREADS", "1")  # Before torch: two test workers share two cores.
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")


def pytest_configure(config: pytest.Config) -> None:
    """Hide GPUs from all tests but those for them: what the others expect is what a CPU gives."""
    if config.getoption("markexpr") != "gpu":
        os.environ["CUDA_VISIBLE_DEVICES"] = ""


WORDS = {
    "fruit": ["apple", "pear", "plum", "fig"],
    "animal": ["cat", "dog", "cow", "hen"],
    "tool": ["saw", "axe", "file"],
}

SCRATCH = ["model=scratch", "model.config.hidden_size=32", "model.config.intermediate_size=64", "model.vocabulary=300"]
SMALL = [
    *SCRATCH,
    "data=files",
    "data.train=train.jsonl",
    "data.eval=eval.jsonl",
    "training.epochs=null",
    "training.max_steps=6",
    "training.batch_size=8",
    "training.log_every=1",
    "precision=fp32",
    "tracking.log_model=false",
]
"""A run of a second: a tiny random model on the rows of `corpus`."""

LM = ["task=causal_lm", "task.max_length=24", "training.max_steps=4", "training.learning_rate=1e-2"]
"""Makes it one of a language model, which learns something in it."""


def rows(number: int) -> list[dict[str, Any]]:
    """Texts of very unequal length about one kind of thing, and which kind that is."""
    kinds = list(WORDS)
    made = []
    for at in range(number):
        kind = kinds[(at * 7) % 3]
        words = [WORDS[kind][(at * at + each) % len(WORDS[kind])] for each in range(1 + (at * 5) % 17)]
        made.append({"text": " ".join(words), "label": kind})
    return made


def write_rows(file: Path, made: list[dict[str, Any]]) -> None:
    file.write_text("".join(json.dumps(row) + "\n" for row in made))


def from_yaml(kind: type[Any], **settings: Any) -> Any:
    """A component as its yaml describes it, for example ``from_yaml(CausalLM, max_length=8)``, settings changed."""
    (name,) = [name for name, each in kind.all().items() if each is kind]
    values = yaml.safe_load((ROOT / "conf" / kind.group / f"{name}.yaml").read_text())
    values.pop("defaults", None)
    return kind.model_validate(values | settings)


@pytest.fixture(scope="session", autouse=True)
def _forkserver() -> None:
    """What runs are forked from imports all that any test needs, begun before one could have it import less."""
    from multiprocessing import forkserver as server

    from bombs import forkserver

    forkserver()
    server.ensure_running()


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a real MLflow server, one for all tests: it takes long to start."""
    from servers import serving

    with serving(tmp_path_factory.mktemp("server")) as address:
        yield address


@pytest.fixture
def corpus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A current folder with train.jsonl (60 rows) and eval.jsonl (25 rows)."""
    write_rows(tmp_path / "train.jsonl", rows(60))
    write_rows(tmp_path / "eval.jsonl", rows(85)[60:])
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture(scope="session")
def empty_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An embedded store with its tables and nothing in them: to make one takes as long as a small run."""
    import logging

    from mlflow import MlflowClient

    for name in ("mlflow", "alembic"):
        logging.getLogger(name).setLevel(logging.WARNING)
    store = tmp_path_factory.mktemp("store") / "mlflow.db"
    MlflowClient(f"sqlite:///{store}").search_experiments()
    return store


def put_store(store: Path, folder: Path) -> None:
    """Have runs in a folder find a store that has its tables."""
    (folder / "runs").mkdir(exist_ok=True)
    shutil.copy(store, folder / "runs" / "mlflow.db")


@pytest.fixture
def compose(corpus: Path, empty_store: Path) -> Callable[..., Any]:
    """Composes and checks a small run from overrides, as the command line does."""
    from xp.config import compose as composing
    from xp.run import Run

    put_store(empty_store, corpus)

    def composed(*overrides: str) -> Run:
        composing.initialize(None)
        given = SMALL if not any(each.startswith("model=") for each in overrides) else SMALL[len(SCRATCH) :]
        return Run.parse(composing.values([*given, *overrides]))

    return composed


@pytest.fixture
def run(compose: Callable[..., Any]) -> Callable[..., dict[str, Any]]:
    """Does a small run in this process and gives its result, with the ``points`` of its journal."""
    from xp.launch import start

    def ran(*overrides: str) -> dict[str, Any]:
        result = start(compose(*overrides))
        return result | {"points": journal(Path(result["folder"]))}

    return ran


@pytest.fixture
def base(run: Callable[..., dict[str, Any]]) -> str:
    """A small language model's folder."""
    return str(run(*LM, "runs_folder=bases")["model"])


@pytest.fixture
def two(base: str, run: Callable[..., dict[str, Any]]) -> dict[str, str]:
    """Two LoRAs of one base, which differ in rank and in what they have learned."""
    law = run(*LM, "model=pretrained", f"model.path={base}", "peft=lora", "peft.rank=2")
    verse = run(*LM, "model=pretrained", f"model.path={base}", "peft=lora", "peft.rank=4", "seed=5")
    return {"law": str(law["model"]), "verse": str(verse["model"])}


def journal(folder: Path) -> list[dict[str, Any]]:
    """The metrics of a run's journal in the order they were logged, each with its ``step``."""
    lines = [json.loads(line) for line in (folder / "journal.jsonl").read_text().splitlines()]
    return [line["metrics"] | {"step": line["step"]} for line in lines if "metrics" in line]


def curve(points: list[dict[str, Any]], *names: str) -> list[tuple[float, ...]]:
    """The training curves: these metrics at every step that logged a training loss."""
    return [(point["step"], *(point[name] for name in names)) for point in points if "train/loss" in point]


def same_on_all_backends(run: Callable[..., dict[str, Any]], *overrides: str) -> list[tuple[float, ...]]:
    """A run's curve, once each backend has given it to the last bit, with the same weights and the same scores."""
    results = [run(*overrides, f"backend={name}") for name in ("torch", "accelerate", "hf")]
    curves = [curve(result["points"], "train/loss", "train/grad_norm") for result in results]
    assert curves[0] == curves[1] == curves[2]
    assert len({result["digest"] for result in results}) == 1
    assert len({json.dumps(result["metrics"]) for result in results}) == 1
    return curves[0]


def command(
    *arguments: str, launcher: tuple[str, ...] = (), folder: Path | None = None, seconds: int = 600, **env: str
) -> Any:
    """Runs ``python -m xp`` with these arguments in a process of its own."""
    return subprocess.run(
        [sys.executable, "-m", *(launcher or ("xp",)), *arguments],
        cwd=folder,
        env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)} | env,
        capture_output=True,
        text=True,
        timeout=seconds,
        check=False,
    )
