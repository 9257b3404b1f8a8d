"""The main job as a newcomer types it, on the bundled model and the interpreter's own library."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from conftest import ROOT, command

BUNDLED = ROOT / "xp" / "assets" / "bundled"


def finished(folder: Path) -> tuple[dict[str, Any], Any]:
    (file,) = folder.glob("runs/*/result.json")
    result: dict[str, Any] = json.loads(file.read_text())
    return result, file.parent


def test_the_bundled_model_is_small_and_has_a_card() -> None:
    assert sum(file.stat().st_size for file in BUNDLED.iterdir()) < 8_000_000
    card = (BUNDLED / "README.md").read_text()
    assert "bits per byte" in card
    assert "experiment=bundled_model" in card


def test_the_main_job(tmp_path: Path) -> None:
    """Far above the majority class, with a table at the end that says where all of it is."""
    ended = command(folder=tmp_path)
    assert ended.returncode == 0, ended.stderr
    assert ended.stderr == ""
    result, folder = finished(tmp_path)
    accuracy, majority = result["metrics"]["eval/accuracy"], result["baseline"]["eval/accuracy"]
    assert accuracy > 0.7 > 2 * majority
    told = [f"{accuracy:.4f}", f"{majority:.4f}", result["run_id"], f"runs/{folder.name}/model", "truncated"]
    for word in [*told, "mlflow ui --backend-store-uri sqlite:///runs/mlflow.db", "weights (100.00%)"]:
        assert word in ended.stdout


@pytest.mark.slow
def test_adapters_come_near_on_few_weights(tmp_path: Path) -> None:
    ended = command("backend=accelerate", "peft=lora", folder=tmp_path)
    assert ended.returncode == 0, ended.stderr
    assert ended.stderr == ""
    result, _ = finished(tmp_path)
    assert result["trainable"] / result["weights"] < 0.03
    assert result["metrics"]["eval/accuracy"] > 0.6


def test_language_modelling_on_the_same_corpus(tmp_path: Path) -> None:
    """The bundled model is at home there: a step of training changes little."""
    settings = ["data=stdlib_code", "training.max_steps=2", "training.epochs=null", "training.learning_rate=1e-5"]
    ended = command(*settings, "data.train_rows=20", "data.eval_rows=10", folder=tmp_path)
    assert ended.returncode == 0, ended.stderr
    metrics = finished(tmp_path)[0]["metrics"]
    assert set(metrics) == {"eval/loss", "eval/perplexity", "eval/bits_per_byte"}
    assert metrics["eval/bits_per_byte"] < 1.5


@pytest.mark.parametrize("name", ["parity_text_classification", "parity_causal_lm"])
@pytest.mark.slow
def test_the_parity_experiments_show_parity(name: str, tmp_path: Path) -> None:
    ended = command("-m", f"experiment={name}", "backend=torch,accelerate,hf", "peft=none,lora", folder=tmp_path)
    assert ended.returncode == 0, ended.stderr
    (file,) = tmp_path.glob("runs/sweep-*/sweep.json")
    digests: dict[str, set[str]] = {}
    for job in json.loads(file.read_text()):
        digests.setdefault(job["overrides"].partition("peft=")[2], set()).add(job["digest"])
    assert [len(found) for found in digests.values()] == [1, 1]
