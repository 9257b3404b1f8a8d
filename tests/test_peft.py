"""Adapters: every method of the installed peft trains, is saved and opens again; settings are checked early."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from reopened import by_xp, logits, reopened

from xp.adapter.folder import methods
from xp.error import UserError
from xp.launch import start
from xp.peft import known
from xp.run import Run

Ran = Callable[..., dict[str, Any]]
PRETRAINED = "model=pretrained"
FITTING = {
    "PROMPT_TUNING": {"num_virtual_tokens": 4},
    "PREFIX_TUNING": {"num_virtual_tokens": 4},
    "P_TUNING": {"num_virtual_tokens": 4},
    "CARTRIDGE": {"num_virtual_tokens": 4},
    "MULTITASK_PROMPT_TUNING": {"num_virtual_tokens": 4, "num_tasks": 1},
    "CPT": {"cpt_token_ids": [5, 6], "cpt_mask": [1, 1], "cpt_tokens_type_mask": [1, 2]},
    "TRAINABLE_TOKENS": {"token_indices": [3, 4]},
    "ADAPTION_PROMPT": {"adapter_len": 4, "adapter_layers": 1},
    "C3A": {"block_size": 16},
    "FOURIERFT": {"n_frequency": 50},
    "WAVEFT": {"n_frequency": 50},
    "MISS": {"r": 8},
    "SHIRA": {"r": 2},
    "PSOFT": {"r": 4},
    "ROAD": {"group_size": 8},
    "VBLORA": {"vector_length": 16, "num_vectors": 8},
}
"""Options for a network of 32 dimensions, where a method has no defaults or too large ones."""

REFUSED = {"LILY": "this model sees the tokens that task=causal_lm has it predict"}
"""Methods that no language model can be trained with, and what is said of it."""


def test_the_options_that_are_read_are_those_that_peft_has() -> None:
    from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING

    found = {kind: known.options(kind) for kind in methods()}
    there = {kind.value: made for kind, made in PEFT_TYPE_TO_CONFIG_MAPPING.items()}
    assert found == {kind: {field.name for field in dataclasses.fields(made)} for kind, made in there.items()}


def test_every_method_trains_and_opens_again_with_the_same_logits(
    base: str, compose: Callable[..., Run], monkeypatch: pytest.MonkeyPatch
) -> None:
    """In another process. The methods are those that peft has, whichever these are."""
    settings = ["task=causal_lm", "task.max_length=24", "training.max_steps=3", "training.learning_rate=1e-2"]
    values = compose(PRETRAINED, f"model.path={base}", "peft=any", "peft.type=VERA", *settings).values()
    made: dict[str, np.ndarray] = {}
    train = import_module("xp.commands.train")  # The package has the function of that name.
    saved = train.save_model

    def spied(run: Run, loaded: Any, folder: Path, *more: Any) -> str:
        made["last"] = logits(loaded.network).numpy()
        return saved(run, loaded, folder, *more)

    monkeypatch.setattr(train, "save_model", spied)
    before = logits_of(base)
    loras = [start(Run.parse(values | {"peft": values["peft"] | {"type": "LORA"}, "seed": seed})) for seed in (1, 2)]
    fitting = FITTING | {"XLORA": {"adapters": {f"lora_{at}": lora["model"] for at, lora in enumerate(loras)}}}
    expected, jobs, wrong = dict[str, np.ndarray](), {}, dict[str, str]()
    for kind in methods():
        peft = values["peft"] | {"type": kind, "options": fitting.get(kind, {})}
        try:
            result = start(Run.parse(values | {"peft": peft}))
        except UserError as error:
            if REFUSED.get(kind, "nothing") not in str(error) or "\n" in str(error):
                wrong[kind] = str(error)
            continue
        except Exception as error:
            wrong[kind] = f"{type(error).__name__}: {error}"
            continue
        expected[kind] = made["last"]
        jobs[kind] = (values, result["model"])
        if np.array_equal(made["last"], before):
            wrong[kind] = "it has learned nothing"
    assert len(expected) + len(REFUSED) + len(wrong) == len(methods())
    for kind, found in reopened(by_xp, jobs).items():
        if isinstance(found, str) or not np.array_equal(found, expected[kind]):
            wrong[kind] = found if isinstance(found, str) else f"{np.abs(found - expected[kind]).max()} apart"
    assert wrong == {}


def logits_of(base: str) -> Any:
    from transformers import AutoModelForCausalLM

    return logits(AutoModelForCausalLM.from_pretrained(base)).numpy()
