"""Many configs at once: what is shared among them is composed once, and nothing differs."""

from __future__ import annotations

from pathlib import Path

import pytest

from xp.config import compose
from xp.config.grid import Composer
from xp.error import UserError

BATCHES = [
    ["seed=1"],
    ["seed=2", "training.learning_rate=1e-3"],
    ["peft=lora", "peft.rank=2", "seed=3"],
    ["peft.rank=2", "peft=lora"],
    ["task=causal-lm", "data=stdlib_code", "data.columns.text=code"],
    ["data=stdlib_code", "+data.columns.text=code"],
    ["model=scratch", "model.config.hidden_size=8", "~data.train_rows", "+data.train_rows=4"],
    ["model.path=a/b", "training.optimizer_options={betas:[0.9,0.95]}"],
    ["training.optimizer_options={eps:1e-3}", "training.optimizer_options.betas=[0.9,0.95]"],
    ["training={epochs:2}", "training.epochs=1"],
    ["training.epochs=1", "training={epochs:2}"],
    ["experiment=parity_causal_lm", "seed=7"],
    ["data=mixture", "+data@data.sources.a=stdlib_code", "data.sources.a.train_rows=3"],
    ["command=predict", "inputs=What a film, really!"],
    ["runs_folder=a${seed}", "seed=5"],
]
WRONG = [["seed=1", "trainnig.epochs=1"], ["peft=lroa"], ["training.lr=1"], ["seed=1,2"], ["a=[1"], ["model.path=???"]]


@pytest.fixture(autouse=True)
def _initialized(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    compose.initialize(None)


def test_each_is_what_it_would_be_alone() -> None:
    composer = Composer(None)
    for overrides in [*BATCHES, *BATCHES[::-1]]:  # Twice: what is shared is not changed by those that share it.
        assert composer.values(overrides) == compose.values(overrides), overrides


@pytest.mark.parametrize("overrides", WRONG, ids=str)
def test_what_is_wrong_is_said_in_the_same_words(overrides: list[str]) -> None:
    with pytest.raises(UserError) as alone:
        compose.values(overrides)
    with pytest.raises(UserError) as shared:
        Composer(None).values(overrides)
    assert str(shared.value) == str(alone.value)


def test_the_users_own_groups_count_as_groups() -> None:
    Path("mine/data").mkdir(parents=True)
    Path("mine/data/own.yaml").write_text("defaults:\n  - stdlib_code\n  - _self_\ntrain_rows: 3\n")
    Path("mine/corpus").mkdir()
    Path("mine/corpus/small.yaml").write_text("# @package _global_\ndata:\n  train_rows: 5\n")
    for overrides in (["data=own"], ["+corpus=small", "data=stdlib_code", "seed=1"]):
        assert Composer("mine").values(overrides) == compose.values(overrides, "mine")


def test_the_yamls_of_two_hundred_jobs_are_read_once(monkeypatch: pytest.MonkeyPatch) -> None:
    read = []
    composed = compose.composed
    monkeypatch.setattr(compose, "composed", lambda *arguments: read.append(arguments) or composed(*arguments))
    composer = Composer(None)
    made = [composer.values(["peft=lora", f"seed={seed}", f"peft.rank={1 + seed % 4}"]) for seed in range(200)]
    assert [(each["seed"], each["peft"]["rank"]) for each in made] == [(seed, 1 + seed % 4) for seed in range(200)]
    assert len(read) == 1
