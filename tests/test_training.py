"""The recipe: every setting does what it says or is refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import curve, rows, write_rows

from xp.error import UserError
from xp.training.recipe import Training

Ran = Callable[..., dict[str, Any]]


@pytest.fixture
def recipe(compose: Callable[..., Any]) -> Callable[..., Training]:
    def made(*overrides: str) -> Training:
        training = compose(*overrides).training
        assert isinstance(training, Training)
        return training

    return made


def rates(training: Training, steps: int) -> list[float]:
    optimizer = training.make_optimizer(torch.nn.Linear(2, 2), torch.device("cpu"))
    schedule = training.make_schedule(optimizer, steps)
    made = []
    for _ in range(steps):
        made.append(schedule.get_last_lr()[0])
        optimizer.step()
        schedule.step()
    return made


@pytest.mark.parametrize("warmup", ["0.2", "2"])
def test_warmup_is_a_share_or_a_number_of_steps(warmup: str, recipe: Callable[..., Training]) -> None:
    made = rates(recipe(f"training.warmup={warmup}", "training.learning_rate=1.0"), 10)
    assert made == pytest.approx([0, 0.5, 1, 0.875, 0.75, 0.625, 0.5, 0.375, 0.25, 0.125])


SCHEDULES = {
    "linear": {},
    "cosine": {},
    "cosine_with_restarts": {"num_cycles": 2},
    "cosine_with_min_lr": {"min_lr_rate": 0.1},
    "cosine_warmup_with_min_lr": {"min_lr_rate": 0.1},
    "polynomial": {"lr_end": 1e-7},
    "constant_with_warmup": {},
    "inverse_sqrt": {},
    "warmup_stable_decay": {"num_decay_steps": 4},
}


def test_every_schedule_of_transformers_can_be_asked_for() -> None:
    from typing import get_args

    from transformers import SchedulerType

    from xp.training.recipe import Schedule

    assert set(get_args(Schedule)) == {each.value for each in SchedulerType}


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_every_schedule_rises_in_the_warmup_and_never_exceeds_the_rate(
    schedule: str, recipe: Callable[..., Training]
) -> None:
    options = [f"training.schedule_options.{name}={value}" for name, value in SCHEDULES[schedule].items()]
    made = rates(
        recipe(f"training.schedule={schedule}", *options, "training.learning_rate=1.0", "training.warmup=2"), 12
    )
    assert made[0] < made[2]
    assert max(made) == pytest.approx(1.0, rel=0.3)
    assert max(made) <= 1.0


def test_decay_spares_biases_and_norms(recipe: Callable[..., Training]) -> None:
    network = torch.nn.Sequential(torch.nn.Linear(3, 3), torch.nn.LayerNorm(3))
    decayed, spared = recipe("training.weight_decay=0.3").make_optimizer(network, torch.device("cpu")).param_groups
    assert (decayed["weight_decay"], [p.ndim for p in decayed["params"]]) == (0.3, [2])
    assert (spared["weight_decay"], [p.ndim for p in spared["params"]]) == (0.0, [1, 1, 1])


def test_frozen_weights_are_not_in_the_optimizer(recipe: Callable[..., Training]) -> None:
    network = torch.nn.Linear(3, 3)
    network.bias.requires_grad_(False)
    (group,) = recipe().make_optimizer(network, torch.device("cpu")).param_groups
    assert [p.shape for p in group["params"]] == [(3, 3)]


WRONG = [
    (
        ["training.optimizer_options.beta1=0.9"],
        "training.optimizer_options.beta1: adamw has no such option. Did you mean 'betas'",
    ),
    (
        ["training.optimizer=sgd", "training.optimizer_options.nesterov=true"],
        "training.optimizer_options: sgd refuses them",
    ),
    (["training.schedule_options.num_cycle=2", "training.schedule=cosine"], "Did you mean 'num_cycles'"),
    (["training.warmup=7"], "training.warmup=7.0: longer than the whole training of 6 steps"),
    (["training.learning_rate=1e30", "training.max_grad_norm=null"], "lower training.learning_rate"),
    (["task.max_length=1000"], "task.max_length=1000: this model takes sequences of at most 512 tokens"),
    (["task.max_length=3", "task.overlong=drop", "data.train_rows=5"], "task.overlong=drop: it leaves no train rows"),
    (["peft=lora", "peft.target_modules=[q_prj]"], "Did you mean 'q_proj'"),
    (
        ["model.config.hidden_sise=3"],
        "model.config.hidden_sise: a llama model has no such value. Did you mean 'hidden_size'",
    ),
    (["model.type=lama"], "model.type=lama: transformers has no such type. Did you mean 'llama'"),
    (["model.config.num_attention_heads=5"], "model.path=scratch llama"),
    (
        ["model.type=t5", "task=causal_lm", "~model.config", "+model.config={}"],
        "transformers has no AutoModelForCausalLM",
    ),
    (["device=cuda"], "device=cuda: torch sees no such device here"),
    (
        ["data.eval=other.jsonl"],
        "data.eval=other.jsonl, row 1: label: 'friut' is not among the labels of the model",
    ),
]


@pytest.mark.parametrize(
    ("overrides", "message"), WRONG, ids=lambda value: " ".join(value)[:50] if type(value) is list else ""
)
def test_what_cannot_be_done_is_one_line_and_a_failed_run(
    overrides: list[str], message: str, run: Ran, corpus: Path
) -> None:
    if torch.cuda.is_available() and "device=cuda" in overrides:
        pytest.skip("this machine has the device")
    from mlflow import MlflowClient

    (corpus / "other.jsonl").write_text('{"text": "apple", "label": "friut"}\n')
    with pytest.raises(UserError) as caught:
        run(*overrides)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
    client = MlflowClient(f"sqlite:///{corpus}/runs/mlflow.db")
    (tracked,) = client.search_runs([client.get_experiment_by_name("xp").experiment_id])
    assert tracked.info.status == "FAILED"
    assert message in tracked.data.tags["xp.error"]


def test_evaluating_counts_what_was_cut_and_refuses_what_was_dropped(run: Ran, corpus: Path) -> None:
    trained = ["command=evaluate", "model=pretrained", f"model.path={run('task=text_classification')['model']}"]
    points = run(*trained, "task=text_classification", "task.max_length=3")["points"]
    assert max(point.get("data/eval_truncated", 0) for point in points) > 0
    write_rows(corpus / "long.jsonl", [row for row in rows(60) if len(row["text"]) > 40])
    with pytest.raises(UserError, match="task.overlong=drop: it leaves no eval rows"):
        run(*trained, "task=text_classification", "task.max_length=3", "task.overlong=drop", "data.eval=long.jsonl")


def test_evaluations_come_when_asked_and_at_the_end(run: Ran) -> None:
    def evaluated(*overrides: str) -> list[int]:
        return [
            point["step"] for point in run("task=text_classification", *overrides)["points"] if "eval/loss" in point
        ]

    assert evaluated("training.evaluate_every=4") == [4, 6]
    assert evaluated("training.max_steps=null", "training.epochs=2", "training.batch_size=20") == [3, 6]
    assert evaluated("training.max_steps=null", "training.epochs=0.5", "training.batch_size=20") == [2]


def test_keeping_the_best_ends_with_its_weights(run: Ran) -> None:
    """A rate that rises makes later evaluations worse; the kept weights score as the best one did."""
    settings = [
        "training.learning_rate=1.0",
        "training.warmup=0.9",
        "training.max_steps=10",
        "training.evaluate_every=1",
    ]
    result = run(*settings, "training.metric=loss", "training.keep_best=true")
    losses = [point["eval/loss"] for point in result["points"] if "eval/loss" in point]
    assert result["objective"] == min(losses) < losses[-1]
    again = run("command=evaluate", "model=pretrained", f"model.path={result['model']}")
    assert again["metrics"]["eval/loss"] == pytest.approx(min(losses), rel=1e-6)
    assert not (Path(result["folder"]) / "best.safetensors").exists()


def test_a_tie_keeps_the_first(run: Ran) -> None:
    """All evaluations score the same, so the weights are those of the first one."""
    settings = ["training.learning_rate=1e-9", "training.evaluate_every=2", "task=text_classification"]
    first = run(*settings, "training.max_steps=2")
    kept = run(*settings, "training.keep_best=true")
    assert [point["step"] for point in kept["points"] if "best/accuracy" in point] == [2]
    assert kept["metrics"]["eval/accuracy"] == first["metrics"]["eval/accuracy"]


@pytest.mark.parametrize("schedule", ["reduce_lr_on_plateau", "greedy"])
def test_schedules_that_go_by_the_evaluations(schedule: str, run: Ran) -> None:
    settings = [
        f"training.schedule={schedule}",
        "training.warmup=0",
        "training.evaluate_every=1",
        "training.max_steps=12",
    ]
    options = [
        "training.schedule_options.patience=0",
        "training.learning_rate=1.0",
        "training.metric=loss",
        "training.max_steps=12",
    ]
    results = [run(*settings, *options, f"backend={backend}") for backend in ("torch", "accelerate", "hf")]
    rates = [rate for _, rate in curve(results[0]["points"], "train/lr")]
    assert min(rates) < rates[0] == 1.0
    assert len({result["digest"] for result in results}) == 1


def test_patience_stops_early_on_every_backend(run: Ran) -> None:
    settings = [
        "training.learning_rate=1.0",
        "training.warmup=0.9",
        "training.max_steps=30",
        "training.evaluate_every=1",
    ]
    for backend in ("torch", "accelerate", "hf"):
        points = run(*settings, f"backend={backend}", "training.metric=loss", "training.patience=2")["points"]
        losses = [point["eval/loss"] for point in points if "eval/loss" in point]
        assert len(losses) < 30
        assert losses.index(min(losses)) == len(losses) - 3


def test_label_smoothing_and_clipping_take_part(run: Ran) -> None:
    plain, smooth, free = (
        run(*more)["points"] for more in ([], ["training.label_smoothing=0.3"], ["training.max_grad_norm=null"])
    )
    assert curve(smooth, "train/loss")[0] != curve(plain, "train/loss")[0]
    assert curve(free, "train/grad_norm")[0] == curve(plain, "train/grad_norm")[0]
    assert curve(free, "train/loss")[-1] != curve(plain, "train/loss")[-1]


def test_gradient_checkpointing_changes_no_number(run: Ran) -> None:
    for peft in ("none", "lora"):
        plain, spared = (
            run(f"peft={peft}", "model.config.attention_dropout=0.2", f"training.gradient_checkpointing={on}")["digest"]
            for on in ("false", "true")
        )
        assert plain == spared


@pytest.mark.slow
def test_compile_trains_to_the_same_losses(run: Ran) -> None:
    plain, compiled = (curve(run(f"training.compile={on}")["points"], "train/loss") for on in ("false", "true"))
    for (_, loss), (_, same) in zip(plain, compiled, strict=True):
        assert same == pytest.approx(loss, rel=1e-4)


def test_precision_auto_follows_the_hardware(run: Ran, capsys: pytest.CaptureFixture[str]) -> None:
    from xp.hardware import choose_precision

    chosen = choose_precision("auto", torch.device("cpu"))
    run("precision=auto")
    assert f"{chosen} (auto)" in capsys.readouterr().out
    full, half = (curve(run(f"precision={name}")["points"], "train/loss") for name in ("fp32", "bf16"))
    assert full != half
    assert full[-1][1] == pytest.approx(half[-1][1], rel=0.05)


def test_the_saved_type_of_weights(run: Ran) -> None:
    from safetensors.torch import load_file

    saved = load_file(Path(run("training.save_dtype=bfloat16")["model"]) / "model.safetensors")
    assert {value.dtype for value in saved.values()} == {torch.bfloat16}


def test_the_result_says_all(run: Ran) -> None:
    result = run("task=text_classification")
    written = json.loads((Path(result["folder"]) / "result.json").read_text())
    assert written["objective"] == result["metrics"]["eval/accuracy"]
    assert set(written["baseline"]) == {"eval/accuracy", "eval/f1_macro"}
    assert written["trainable"] == written["weights"] > 0
