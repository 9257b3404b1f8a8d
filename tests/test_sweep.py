"""Sweeps: many runs from one command."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from conftest import SMALL, command


def tracked_runs(folder: Path) -> tuple[Any, list[Any]]:
    from mlflow import MlflowClient

    client = MlflowClient(f"sqlite:///{folder}/runs/mlflow.db")
    everything = client.search_runs([client.get_experiment_by_name("xp").experiment_id])
    parents = [run for run in everything if run.data.tags["xp.command"] == "sweep"]
    return parents[0], [run for run in everything if run not in parents]


def test_a_sweep_over_backends_adapters_and_seeds(corpus: Path) -> None:
    """Nested runs under one parent, a table sorted by the objective, and one curve from all backends."""
    ended = command("-m", *SMALL, "backend=hf,torch,accelerate", "peft=none,lora", "seed=1,2", folder=corpus)
    assert ended.returncode == 0, ended.stderr
    parent, children = tracked_runs(corpus)
    assert len(children) == 12
    assert {run.data.tags["mlflow.parentRunId"] for run in children} == {parent.info.run_id}
    assert {run.info.status for run in [parent, *children]} == {"FINISHED"}
    weights: dict[tuple[str, str], set[str]] = {}
    for run in children:
        weights.setdefault((run.data.tags["xp.peft"], run.data.tags["xp.seed"]), set()).add(run.data.tags["xp.weights"])
    assert {len(digests) for digests in weights.values()} == {1}
    assert len(weights) == 4
    rows = [line.split("│")[1:-1] for line in ended.stdout.splitlines() if line.startswith("│")]
    objectives = [float(row[3]) for row in rows]
    assert objectives == sorted(objectives, reverse=True)
    assert [line for line in ended.stdout.splitlines() if line.startswith("[12/12]")]
    (folder,) = corpus.glob("runs/sweep-*")
    assert len(json.loads((folder / "sweep.json").read_text())) == 12


def test_a_job_that_fails_stops_no_other(corpus: Path) -> None:
    ended = command("-m", *SMALL, "model.type=llama,lama", "hydra.launcher.slots=2", folder=corpus)
    assert ended.returncode == 1
    parent, children = tracked_runs(corpus)
    assert sorted(run.info.status for run in children) == ["FAILED", "FINISHED"]
    assert parent.info.status == "FAILED"
    assert "model.type=lama: transformers has no such type. Did you mean 'llama'?" in ended.stdout
    assert "Traceback" not in ended.stdout + ended.stderr


def test_a_loss_is_sorted_with_the_smallest_first(corpus: Path) -> None:
    ended = command(
        "-m",
        *SMALL,
        "task=causal_lm",
        "task.max_length=32",
        "training.optimizer_options.eps=1e-8,1e-1,1e-4",
        folder=corpus,
    )
    assert ended.returncode == 0, ended.stderr
    objectives = [float(line.split("│")[2]) for line in ended.stdout.splitlines() if line.startswith("│")]
    assert len(objectives) == 3
    assert objectives == sorted(objectives)


def test_a_job_gives_the_weights_of_the_same_run_alone(corpus: Path, run: Any) -> None:
    assert command("-m", *SMALL, "seed=5", "runs_folder=elsewhere", folder=corpus).returncode == 0
    (result,) = [json.loads(file.read_text()) for file in (corpus / "elsewhere").glob("scratch*/result.json")]
    assert result["metrics"] == pytest.approx(run("seed=5")["metrics"], rel=1e-6)


@pytest.mark.parametrize("slots", ["0", "many"])
def test_slots_are_checked(slots: str, corpus: Path) -> None:
    ended = command("-m", *SMALL, "seed=1,2", f"hydra.launcher.slots={slots}", folder=corpus)
    assert (ended.returncode, ended.stderr.count("\n")) == (2, 1)
    assert f"hydra.launcher.slots={slots}" in ended.stderr


def test_jobs_may_take_several_processes(corpus: Path) -> None:
    ended = command("-m", *SMALL, "backend=torch,accelerate", "training.batch_size=7", folder=corpus)
    assert ended.returncode == 0, ended.stderr
    together = command(
        "-m", *SMALL, "backend=accelerate", "backend.processes=2", "training.batch_size=7", folder=corpus
    )
    assert together.returncode == 0, together.stdout
    losses = {
        run.data.tags["xp.processes"]: run.data.metrics["eval/loss"]
        for run in tracked_runs(corpus)[1]
        if run.data.tags["xp.backend"] == "accelerate"
    }
    assert losses["2"] == pytest.approx(losses["1"], rel=1e-4)
