"""One experiment, three engines, one curve."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conftest import SMALL, command, curve, journal, write_rows

CURVES = ("train/loss", "train/grad_norm", "train/lr", "train/padding")
TASKS = {
    "text_classification": ["task=text_classification", "model.config.pad_token_id=0"],
    "causal_lm": ["task=causal_lm", "task.max_length=24"],
}
DROPOUT = ["model.config.attention_dropout=0.2"]
PEFTS = {"none": ["peft=none"], "lora": ["peft=lora", "peft.dropout=0.2"]}
MORE = [
    "training.micro_batch_size=3",
    "training.evaluate_every=2",
    "training.max_steps=10",
    "training.max_grad_norm=0.5",
    "training.learning_rate=2e-2",
]

Ran = Callable[..., dict[str, Any]]


@pytest.mark.parametrize("peft", PEFTS)
@pytest.mark.parametrize("task", TASKS)
def test_parity(task: str, peft: str, run: Ran) -> None:
    """hf, torch and accelerate agree to the last bit: every point of every curve, and the weights."""
    results = [
        run(*TASKS[task], *DROPOUT, *PEFTS[peft], *MORE, f"backend={name}") for name in ("torch", "accelerate", "hf")
    ]
    torch, accelerate, hf = [curve(result["points"], *CURVES) for result in results]
    assert len(torch) == 10
    assert accelerate == torch
    assert hf == torch
    evaluations = [
        [{n: v for n, v in p.items() if n.startswith("eval/")} for p in result["points"]] for result in results
    ]
    assert evaluations[0] == evaluations[1] == evaluations[2]
    assert len({result["digest"] for result in results}) == 1
    assert torch[-1][1] != torch[0][1]


def test_dropout_is_on_and_follows_the_seed(run: Ran) -> None:
    """So that parity is not that of networks without anything random."""
    plain, dropped, again, other = (
        run("task=causal_lm", *dropout, f"seed={seed}")["digest"]
        for dropout, seed in (([], 0), (DROPOUT, 0), (DROPOUT, 0), (DROPOUT, 1))
    )
    assert dropped == again
    assert len({plain, dropped, other}) == 3


@pytest.mark.parametrize("optimizer", ["adafactor", "sgd"])
def test_parity_of_the_other_optimizers(optimizer: str, run: Ran) -> None:
    results = [run(f"training.optimizer={optimizer}", f"backend={name}") for name in ("torch", "accelerate", "hf")]
    assert len({result["digest"] for result in results}) == 1


@pytest.mark.parametrize("task", TASKS)
def test_accumulation_changes_neither_loss_nor_gradient(task: str, run: Ran) -> None:
    """1 × 8 = 8 × 1, with rows of very unequal length."""
    whole, single = (
        curve(run(*TASKS[task], f"training.micro_batch_size={size}")["points"], *CURVES) for size in (8, 1)
    )
    for (step, loss, norm, *_), (same, loss_single, norm_single, *_) in zip(whole, single, strict=True):
        assert step == same
        assert loss_single == pytest.approx(loss, rel=1e-5)
        assert norm_single == pytest.approx(norm, rel=1e-4)


def test_packed_gives_the_curve_of_shuffle_with_less_padding(run: Ran) -> None:
    shuffle, packed = (
        curve(run(*TASKS["causal_lm"], f"training.batching={batching}")["points"], *CURVES)
        for batching in ("shuffle", "packed")
    )
    for (_, loss, norm, *_), (_, loss_packed, norm_packed, *_) in zip(shuffle, packed, strict=True):
        assert loss_packed == pytest.approx(loss, rel=1e-5)
        assert norm_packed == pytest.approx(norm, rel=1e-4)
    assert sum(point[-1] for point in packed) < 0.7 * sum(point[-1] for point in shuffle)


def test_workers_change_nothing(run: Ran) -> None:
    assert run("training.workers=1")["digest"] == run()["digest"]


def curves_agree(folder: Path, expected: list[tuple[float, ...]]) -> None:
    (made,) = [path for path in (folder / "runs").iterdir() if (path / "journal.jsonl").exists()]
    assert [row[0] for row in curve(journal(made), *CURVES)] == [row[0] for row in expected]
    for got, want in zip(curve(journal(made), *CURVES), expected, strict=True):
        assert got[1:4] == pytest.approx(want[1:4], rel=1e-5)
    result = json.loads((made / "result.json").read_text())
    assert result["metrics"]["eval/loss"] == pytest.approx(json.loads((folder / "expected.json").read_text()), rel=1e-4)


LAUNCHES = {
    "xp, accelerate": (("xp",), ["backend=accelerate", "backend.processes=2"]),
    "xp, hf": (("xp",), ["backend=hf", "backend.processes=2"]),
    "accelerate launch": (("accelerate.commands.launch", "--num_processes", "2", "-m", "xp"), ["backend=accelerate"]),
    "accelerate launch, hf": (
        ("accelerate.commands.launch", "--multi_gpu", "--num_processes", "2", "--main_process_port", "0", "-m", "xp"),
        ["backend=hf"],
    ),
    "torchrun": (
        ("torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "xp"),
        ["backend=accelerate"],
    ),
}


@pytest.mark.parametrize(
    "launch",
    [pytest.param(each, marks=pytest.mark.slow if each == "accelerate launch, hf" else ()) for each in LAUNCHES],
)
def test_two_processes_give_the_curve_of_one(launch: str, run: Ran, tmp_path: Path) -> None:
    """Same steps, same losses, one run folder and one MLflow run. Batches of 7 rows, so that processes differ."""
    from mlflow import MlflowClient

    settings = [
        "training.batch_size=7",
        "training.micro_batch_size=2",
        "training.max_steps=10",
        "task=text_classification",
    ]
    alone = run(*settings)
    expected = curve(alone["points"], *CURVES)
    folder = tmp_path / "two"
    folder.mkdir()
    for name in ("train.jsonl", "eval.jsonl"):
        (folder / name).write_text((tmp_path / name).read_text())
    (folder / "expected.json").write_text(json.dumps(alone["metrics"]["eval/loss"]))
    launcher, backend = LAUNCHES[launch]
    ended = command(*SMALL, *settings, *backend, launcher=launcher, folder=folder)
    assert ended.returncode == 0, ended.stderr
    curves_agree(folder, expected)
    client = MlflowClient(tracking_uri=f"sqlite:///{folder}/runs/mlflow.db")
    (tracked,) = client.search_runs([client.get_experiment_by_name("xp").experiment_id])
    assert (tracked.info.status, tracked.data.tags["xp.processes"]) == ("FINISHED", "2")


def test_more_processes_than_rows_in_a_step(run: Ran, corpus: Path) -> None:
    """A step of one row on two processes: one of them joins in at no weight."""
    rows = [json.loads(line) for line in (corpus / "train.jsonl").read_text().splitlines()]
    write_rows(corpus / "train.jsonl", rows[:9])
    settings = ["training.batch_size=4", "task=causal_lm"]
    expected = curve(run(*settings)["points"], *CURVES)
    ended = command(*SMALL, *settings, "backend=accelerate", "backend.processes=2", "runs_folder=two", folder=corpus)
    assert ended.returncode == 0, ended.stderr
    (made,) = [path.parent for path in corpus.glob("two/*/journal.jsonl")]
    for got, want in zip(curve(journal(made), *CURVES), expected, strict=True):
        assert got[1:4] == pytest.approx(want[1:4], rel=1e-5)


def test_torch_refuses_processes_that_were_launched(corpus: Path) -> None:
    ended = command(
        *SMALL,
        "backend=torch",
        launcher=("torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "xp"),
        folder=corpus,
    )
    assert ended.returncode != 0
    assert "xp: backend=torch: it trains in one process, and 2 were launched" in ended.stderr
    assert not (corpus / "runs").exists()


def test_a_mistake_in_two_processes_is_one_line(corpus: Path) -> None:
    ended = command(
        *SMALL, "backend=accelerate", "backend.processes=2", "peft=lora", "peft.target_modules=[qproj]", folder=corpus
    )
    assert ended.returncode == 2
    assert ended.stderr.startswith(
        "xp: peft.target_modules=['qproj']: no layer of this model matches. Did you mean 'q_proj'?"
    )
    assert ended.stderr.count("\n") == 1


def test_what_a_launcher_asks_for_on_its_own_account_is_refused(corpus: Path) -> None:
    launcher = ("accelerate.commands.launch", "--mixed_precision", "bf16", "-m", "xp")
    ended = command(*SMALL, "backend=hf", launcher=launcher, folder=corpus)
    assert "ACCELERATE_MIXED_PRECISION=bf16: from accelerate launch, but xp decides that" in ended.stderr
    ended = command(*SMALL, "backend=accelerate", folder=corpus, ACCELERATE_GRADIENT_ACCUMULATION_STEPS="4")
    assert (ended.returncode, ended.stderr.count("\n")) == (2, 1)
    assert not (corpus / "runs").exists()
