"""Adapters: every method of the installed peft trains, is saved and opens again; settings are checked early."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import LM
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


@pytest.mark.parametrize("batching", ["length", "packed"])
def test_norms_are_trained_in_float32_on_a_base_that_is_stored_in_bfloat16(batching: str, run: Ran) -> None:
    """The norms give float32 then, which the layers after them take under autocast alone."""
    base = run(*LM, "training.save_dtype=bfloat16", "runs_folder=bases")["model"]
    given = [*LM, "precision=bf16", PRETRAINED]
    trained = run(*given, f"model.path={base}", "peft=lntuning", f"training.batching={batching}")
    again = run("command=evaluate", *given, f"model.path={trained['model']}")
    assert again["metrics"]["eval/loss"] == pytest.approx(trained["metrics"]["eval/loss"], rel=1e-2)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["peft=trainable_tokens", "peft.options.token_indices=[5000]"],
         "peft.options.token_indices: there is no token 5000; this model has those from 0 to "),
        (["peft=lora", "peft.options.trainable_token_indices=[5,5000]"],
         "peft.options.trainable_token_indices: there is no token 5000; this model has those from 0 to "),
        (["peft=lora", "peft.options.trainable_token_indices={lm_head: [-1]}"],
         "peft.options.trainable_token_indices: there is no token -1; this model has those from 0 to "),
        (["peft=lora", "peft.options.layer_replication=[[0,9]]"],
         "peft.options.layer_replication: there are no layers [0, 9]; this model has 2: give [<first>, <one after the"),
        (["peft=lora", "peft.modules_to_save=[lm_hed,embed_tokens]"],
         "peft.modules_to_save: no layer of this model is called lm_hed. Did you mean 'lm_head'?"),
        (["peft=lora", "peft.target_modules=q_proj"],
         "peft.target_modules=q_proj: no layer of this model matches. A string is a regular expression of a whole "
         "name, and a list has names. Did you mean [q_proj]? Its linear layers: "),
        (["peft=lora", "peft.target_modules=all_linear"],
         "peft.target_modules=all_linear: no layer of this model matches. Did you mean 'all-linear'? Its linear"),
        (["peft=lora", "peft.target_modules=[q_proj,v_prj]"],
         "peft.target_modules: no layer of this model is called v_prj. Did you mean 'v_proj'?"),
        (["peft=lora", "peft.options.exclude_modules=[q_proj,v_prj]"],
         "peft.options.exclude_modules: no layer of this model is called v_prj. Did you mean 'v_proj'?"),
        (["peft=lora", "peft.options.exclude_modules=q_proj"],
         "peft.options.exclude_modules=q_proj: no layer of this model matches. A string is a regular expression of a "
         "whole name, and a list has names. Did you mean [q_proj]? Its linear layers: down_proj, "),
        (["peft=lora", "peft.options.exclude_modules='q_proj('"],
         "peft.options.exclude_modules: q_proj( is no regular expression: missing ), unterminated subpattern"),
        (["peft=ia3", "peft.options.feedforward_modules=[dwn_proj]"],
         "peft.options.feedforward_modules: no layer of this model is called dwn_proj. Did you mean 'down_proj'?"),
        (["peft=lora", "peft.options.rank_pattern={q_prj: 8}"],
         "peft.options.rank_pattern: no adapted layer matches q_prj. Did you mean 'q_proj'?"),
        (["peft=lora", "peft.options.rank_pattern={q_proj: abc}"],
         "peft.options.rank_pattern.q_proj=abc: it must be a whole number of 1 or more"),
        (["peft=lora", "peft.options.alpha_pattern={q_proj: 0}"],
         "peft.options.alpha_pattern.q_proj=0: it must be a number above 0"),
        (["peft=lora", "peft.options.rank_pattern={*q: 8}"],
         "peft.options.rank_pattern: *q is no regular expression: nothing to repeat"),
        (["peft=lora", "peft.target_modules=[q_proj]", "peft.options.alpha_pattern={v_proj: 8}"],
         "peft.options.alpha_pattern: no adapted layer matches v_proj. Did you mean 'q_proj'?"),
        (["peft=vera", "peft.options.r=-1"], "peft.options.r=-1: it is a number of things; give 1 or more"),
        (["peft=prefix", "peft.options.num_virtual_tokens=0"],
         "peft.options.num_virtual_tokens=0: it is a number of things; give 1 or more"),
        (["peft=oft", "peft.options.r=-1"], "peft.options.r=-1: it is a number of things; give 1 or more"),
        (["peft=any", "peft.type=CARTRIDGE"],
         "peft.options.num_virtual_tokens has no value, and CARTRIDGE needs one; give peft.options.num_virtu"),
        (["peft=any", "peft.type=ADAPTION_PROMPT", "peft.options.adapter_len=4"],
         "peft.options.adapter_layers has no value, and ADAPTION_PROMPT needs one; give peft.options.adap"),
        (["peft=trainable_tokens", "peft.options.token_indices=[]"],
         "peft.options.token_indices has no value, and TRAINABLE_TOKENS needs one; give peft.options.token_indices=[<"),
        (["peft=any", "peft.type=CPT", "peft.options.num_virtual_tokens=4"],
         "peft.options.num_virtual_tokens: peft's CPT has one for each of cpt_token_ids; give those"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("model", ["scratch", "pretrained"])
def test_what_does_not_fit_the_network_is_one_line(
    model: str, given: list[str], message: str, base: str, run: Ran
) -> None:
    """On a network without weights, and on one that has them."""
    with pytest.raises(UserError) as caught:
        run(*LM, *([PRETRAINED, f"model.path={base}"] if model == "pretrained" else []), *given)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_what_peft_raises_on_weights_is_one_line(base: str, run: Ran) -> None:
    """Where a network without weights cannot tell."""
    with pytest.raises(UserError, match=r"^peft: VERA: "):
        run(*LM, PRETRAINED, f"model.path={base}", "peft=vera", f"peft.options.projection_prng_key={1 << 80}")


def test_an_adapter_is_not_trained_further_under_other_settings(base: str, run: Ran) -> None:
    given = [*LM, PRETRAINED, "peft=lora"]
    model = run(*given, f"model.path={base}", "peft.target_modules=[q_proj]")["model"]
    for more, message in (
        (
            "peft.modules_to_save=[lm_head]",
            r"peft.modules_to_save=\['lm_head'\]: the adapter in model.path has \[\]; give",
        ),
        ("peft.target_modules=.*q_proj", r"peft.target_modules=.*q_proj: the adapter in model.path has \['q_proj'\]; "),
    ):
        with pytest.raises(UserError, match=message):
            run(*given, f"model.path={model}", more)
    held = run(*given, f"model.path={base}", "peft.target_modules=.*q_proj", "peft.modules_to_save=[lm_head]")["model"]
    further = [f"model.path={held}", "peft.target_modules=.*q_proj", "peft.modules_to_save=[lm_head]"]
    assert run(*given, *further)["trainable"] > 300 * 32


def test_a_method_with_a_yaml_stays_what_it_is_called(compose: Callable[..., Run]) -> None:
    with pytest.raises(UserError, match=r"^peft.type=LORA: peft=ia3 is IA3; give peft=any peft.type=LORA$"):
        compose("peft=ia3", "peft.type=LORA")
    assert compose("peft=ia3", "peft.type=ia3").peft.name == "any"
    assert compose("peft=any", "peft.type=LORA").peft.name == "any"


@pytest.mark.parametrize(("one", "other"), [("ia3", "lora"), ("lora", "ia3"), ("prefix", "lora")])
def test_an_adapter_of_another_method_is_trained_further_as_it_is_said(
    one: str, other: str, base: str, run: Ran
) -> None:
    model = run(*LM, PRETRAINED, f"model.path={base}", f"peft={one}")["model"]
    with pytest.raises(UserError, match="give peft=any peft.type=[A-Z3_]+ to train it further") as caught:
        run(*LM, PRETRAINED, f"model.path={model}", f"peft={other}")
    advice = str(caught.value).partition("give ")[2].split()[:2]
    assert run(*LM, PRETRAINED, f"model.path={model}", *advice)["trainable"]


def logits_of(base: str) -> Any:
    from transformers import AutoModelForCausalLM

    return logits(AutoModelForCausalLM.from_pretrained(base)).numpy()
