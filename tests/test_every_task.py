"""Every trainable task, on its embedded data: one curve from three engines, and from one process and two."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conftest import curve, journal, put_store

from xp.config import compose
from xp.launch import start
from xp.run import Run
from xp.task import Trainable

RECIPE = [
    "training=default",
    "training.epochs=null",
    "training.max_steps=6",
    "training.batch_size=7",  # So that two processes differ in what they hold.
    "training.micro_batch_size=3",
    "training.learning_rate=1e-2",
    "training.evaluate_every=3",
    "training.log_every=1",
    "data.train_rows=40",
    "data.eval_rows=10",
    "precision=fp32",
    "tracking.log_model=false",
]
DECODER = ["model=scratch", "model.vocabulary=400", "model.config.hidden_size=32", "model.config.intermediate_size=64"]
ENCODER = ["model=scratch_bert", *DECODER[1:], "model.config.hidden_dropout_prob=0.1"]
DROPPED = [*DECODER, "model.config.attention_dropout=0.1"]
WRITER = ["model=scratch_bart", "model.vocabulary=400", "model.config.d_model=32", "model.config.dropout=0.1"]
TASKS = {
    "text_classification": ["data=stdlib_functions", *DROPPED],
    "text_classification, several labels": ["data=stdlib_modules", *DROPPED],
    "text_classification, a number": ["data=stdlib_branches", *DROPPED],
    "text_classification, pairs": ["data=stdlib_pairs", *ENCODER],
    "token_classification": ["data=stdlib_tokens", *ENCODER],
    "question_answering": ["data=stdlib_questions", "task.max_length=128", "task.stride=32", *DROPPED],
    "multiple_choice": ["data=stdlib_choices", *ENCODER],
    "masked_lm": ["data=stdlib_masked", *ENCODER],
    "masked_lm, whole words": ["data=stdlib_masked", "task.whole_words=true", *ENCODER],
    "causal_lm": ["data=stdlib_code", "data.train_rows=5", "data.eval_rows=2", "task.max_length=64", *DROPPED],
    "causal_lm, packed": ["data=stdlib_functions", "task=causal_lm", "training.batching=packed", *DROPPED],
    "text2text_generation": ["data=stdlib_names", "task.max_length=128", "generation.max_new_tokens=5", *WRITER],
    "chat": ["data=stdlib_chat", *DROPPED],
    "chat, packed": ["data=stdlib_chat", "training.batching=packed", *DROPPED],
    "image_classification": [
        "data=digits",
        "task.augment=crop_flip",
        "model=scratch_vit",
        "model.config.hidden_size=16",
        "model.config.num_hidden_layers=1",
        "model.config.hidden_dropout_prob=0.2",
    ],
    "audio_classification": [
        "data=tones",
        "task.max_seconds=0.3",
        "model=scratch_wav2vec2",
        "model.config.conv_dim=[16,16,16]",
        "model.config.hidden_size=16",
        "model.config.num_hidden_layers=1",
        "model.config.mask_time_prob=0.4",
    ],
}
CURVES = ("train/loss", "train/grad_norm", "train/lr", "train/padding")


@pytest.fixture
def ran(tmp_path: Path, empty_store: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., dict[str, Any]]:
    monkeypatch.chdir(tmp_path)
    put_store(empty_store, tmp_path)

    def run(name: str, *overrides: str) -> dict[str, Any]:
        compose.initialize(None)
        result = start(Run.parse(compose.values([*settings(name), *overrides])))
        return result | {"points": journal(Path(result["folder"]))}

    return run


def settings(name: str) -> list[str]:
    """The recipe with what a task says of its own, which comes last and has the last word."""
    own = {each.partition("=")[0] for each in TASKS[name]}
    return [*(each for each in RECIPE if each.partition("=")[0] not in own), *TASKS[name]]


def test_no_task_is_left_out() -> None:
    trainable = {name for name, each in Trainable.all().items() if each.__module__.startswith("xp.")}
    assert {name.partition(",")[0] for name in TASKS} == trainable


VARIED = ("several labels", "a number", "pairs", "whole words")
"""Ends of names of tasks that differ from another one in their labels alone; left to ``-m slow``."""


@pytest.mark.parametrize(
    "name", [pytest.param(each, marks=pytest.mark.slow if each.endswith(VARIED) else ()) for each in TASKS]
)
def test_three_engines_give_one_curve(name: str, ran: Callable[..., dict[str, Any]]) -> None:
    """To the last bit: every point of every curve, every score of every evaluation, and the weights."""
    results = [ran(name, f"backend={backend}") for backend in ("torch", "accelerate", "hf")]
    torch, accelerate, hf = [curve(result["points"], *CURVES) for result in results]
    assert len(torch) == 6
    assert torch == accelerate == hf
    scores = [
        [{key: value for key, value in point.items() if key.startswith("eval/")} for point in result["points"]]
        for result in results
    ]
    assert scores[0] == scores[1] == scores[2]
    assert len({result["digest"] for result in results}) == 1
    assert torch[-1][1] != torch[0][1]


ALIKE = (
    "several labels",
    "number",
    "pairs",
    "whole words",
    "question_answering",
    "multiple_choice",
    "masked_lm",
    "chat",
)
"""Ends of names whose two processes differ from another task's in nothing but the loss; left to ``-m slow``."""


@pytest.mark.parametrize(
    "name", [pytest.param(each, marks=pytest.mark.slow if each.endswith(ALIKE) else ()) for each in TASKS]
)
def test_two_processes_give_the_curve_of_one(name: str, ran: Callable[..., dict[str, Any]]) -> None:
    """Losses, gradients and scores, with dropout off, which the processes draw for themselves."""
    own = {each.partition("=")[0] for each in TASKS[name]}
    drops = ("hidden_dropout_prob", "attention_dropout", "dropout", "mask_time_prob")
    sober = [f"model.config.{each}=0.0" for each in drops if f"model.config.{each}" in own]
    if "model=scratch_bert" in TASKS[name]:
        sober += ["model.config.attention_probs_dropout_prob=0.0"]
    if "model=scratch_bart" in TASKS[name]:
        sober += ["model.config.attention_dropout=0.0", "model.config.activation_dropout=0.0"]
    if name.startswith("audio"):
        more = ("hidden_dropout", "attention_dropout", "feat_proj_dropout", "activation_dropout", "final_dropout")
        sober += [f"model.config.{each}=0.0" for each in (*more, "layerdrop")]
    alone = ran(name, *sober)
    two = ran(name, *sober, "backend=accelerate", "backend.processes=2")
    expected = curve(alone["points"], *CURVES)
    got = curve(two["points"], *CURVES)
    assert [row[0] for row in got] == [row[0] for row in expected]
    for mine, theirs in zip(got, expected, strict=True):
        assert mine[1] == pytest.approx(theirs[1], rel=1e-5)
        assert mine[2] == pytest.approx(theirs[2], rel=1e-3)
    (last,) = [point for point in two["points"] if point["step"] == 6 and "eval/loss" in point]
    scores = {key: value for key, value in last.items() if key.startswith("eval/")}
    assert scores == pytest.approx(alone["metrics"], rel=1e-4)
