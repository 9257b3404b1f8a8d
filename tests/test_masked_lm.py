"""Masked language modelling: which tokens are hidden is a function of seed, epoch and index, and of nothing else."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import rows
from datasets import Dataset
from test_backend import CURVES, curve
from test_token_classification import BERT, word_pieces

from xp.error import UserError
from xp.model.tokenizer import SPECIAL_TOKENS, train_tokenizer
from xp.task.base import IGNORE
from xp.task.masked_lm import MaskedLM

Ran = Callable[..., dict[str, Any]]
TEXTS = [row["text"] for row in rows(60)]
LONG = Dataset.from_dict({"text": [" ".join(TEXTS[:12])]})


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return train_tokenizer(TEXTS, 300, ("mask_token",))


def task(**settings: Any) -> MaskedLM:
    values = {"max_length": 512, "overlong": "split", "mask_share": 0.15, "whole_words": False}
    values |= {"replace_mask": 0.8, "replace_random": 0.1, "prediction": {"top_k": 5, "targets": None}} | settings
    return MaskedLM(name="masked_lm", metrics=[], **values)


def drawn(posed: MaskedLM, tokenizer: Any, *seed: int, data: Dataset = LONG) -> dict[str, Any]:
    return posed.draw(posed.encode(data, tokenizer, []).rows[0], np.random.default_rng(list(seed)), tokenizer)


def test_the_share_is_hidden_and_the_rest_is_untouched(tokenizer: Any) -> None:
    row = task().encode(LONG, tokenizer, []).rows[0]
    made = drawn(task(), tokenizer, 0)
    hidden = [at for at, label in enumerate(made["labels"]) if label != IGNORE]
    assert len(hidden) == made["items"] == row["items"] == round(0.15 * (len(row["input_ids"]) - 1))
    assert [made["labels"][at] for at in hidden] == [row["input_ids"][at] for at in hidden]
    for at, (before, after) in enumerate(zip(row["input_ids"], made["input_ids"], strict=True)):
        assert before == after or at in hidden
    assert 0 not in hidden  # The begin token is special.


def test_what_is_hidden_follows_the_generator_alone(tokenizer: Any) -> None:
    first, again, other = (drawn(task(), tokenizer, *seed)["labels"] for seed in ((1, 2), (1, 2), (1, 3)))
    assert first == again != other


@pytest.mark.parametrize(("mask", "random"), [(1.0, 0.0), (0.0, 1.0), (0.0, 0.0), (0.8, 0.1)])
def test_hidden_tokens_are_replaced_by_share(mask: float, random: float, tokenizer: Any) -> None:
    posed = task(replace_mask=mask, replace_random=random, mask_share=0.9, max_length=10_000)
    many = Dataset.from_dict({"text": [" ".join(TEXTS * 4)]})
    row = posed.encode(many, tokenizer, []).rows[0]
    made = drawn(posed, tokenizer, 0, data=many)
    hidden = [at for at, label in enumerate(made["labels"]) if label != IGNORE]
    masked = sum(made["input_ids"][at] == tokenizer.mask_token_id for at in hidden) / len(hidden)
    kept = sum(made["input_ids"][at] == row["input_ids"][at] for at in hidden) / len(hidden)
    assert masked == pytest.approx(mask, abs=0.03)
    assert kept == pytest.approx(1 - mask - random, abs=0.03)


@pytest.mark.parametrize("make", ["byte level", "word pieces"])
def test_whole_words_are_hidden_whole(make: str) -> None:
    chosen = train_tokenizer(TEXTS, 270, ("mask_token",)) if make == "byte level" else word_pieces()
    posed = task(whole_words=True, mask_share=0.3)
    row = posed.encode(LONG, chosen, []).rows[0]
    units = row["units"]
    assert max(units) < len(units) - 2  # Some words are of several tokens.
    for seed in range(5):
        made = drawn(posed, chosen, seed)
        hidden = {at for at, label in enumerate(made["labels"]) if label != IGNORE}
        words = {units[at] for at in hidden}
        assert hidden == {at for at, unit in enumerate(units) if unit in words}
        assert -1 not in words
        assert 0 < made["items"] <= round(0.3 * sum(unit >= 0 for unit in units))


def test_at_least_one_token_of_each_row_is_hidden(tokenizer: Any) -> None:
    short = Dataset.from_dict({"text": ["a"]})
    for seed in range(20):
        assert drawn(task(mask_share=0.01), tokenizer, seed, data=short)["items"] == 1


@pytest.mark.parametrize("overlong", ["split", "truncate", "drop", "error"])
def test_overlong_texts(overlong: str, tokenizer: Any) -> None:
    data = Dataset.from_dict({"text": [*TEXTS, ""]})
    whole = tokenizer(TEXTS, add_special_tokens=False)["input_ids"]
    over = sum(len(tokens) > 9 for tokens in whole)
    posed = task(overlong=overlong, max_length=10)
    if overlong == "error":
        with pytest.raises(UserError, match=f"{over} of 60 texts have more than task.max_length=10"):
            posed.encode(data, tokenizer, [])
        return
    encoded = posed.encode(data, tokenizer, [])
    assert encoded.notes["empty"] == 1
    assert encoded.notes[{"split": "split", "truncate": "truncated", "drop": "dropped"}[overlong]] == over
    assert max(encoded.rows["length"]) <= 10
    if overlong == "split":
        assert list(chain(*(tokens[1:] for tokens in encoded.rows["input_ids"]))) == list(chain(*whole))


def test_loss_is_the_models_own_loss_times_the_hidden_tokens(tokenizer: Any) -> None:
    import transformers

    torch.manual_seed(0)
    config = transformers.BertConfig(
        vocab_size=len(tokenizer), hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=64
    )
    model = transformers.AutoModelForMaskedLM.from_config(config).eval()
    posed = task()
    encoded = posed.encode(Dataset.from_dict({"text": TEXTS[:5]}), tokenizer, []).rows
    made = [posed.draw(row, np.random.default_rng(at), tokenizer) for at, row in enumerate(encoded)]
    batch = posed.collate([[row] for row in made], tokenizer)
    items = sum(row["items"] for row in made)
    own = model(**batch).loss
    torch.testing.assert_close(posed.loss(model, batch, 0.0), own * items)
    with torch.inference_mode():
        outcomes = posed.outcomes(model, batch, tokenizer, None)
    scores = posed.score(outcomes | {"items": np.array([row["items"] for row in made])}, encoded, [])
    assert scores["loss"] == pytest.approx(own.item(), rel=1e-5)
    assert scores["perplexity"] == pytest.approx(math.exp(own.item()), rel=1e-4)
    assert 0 <= scores["accuracy"] <= 1


def test_baseline_is_the_frequency_of_the_tokens() -> None:
    data = Dataset.from_dict({"input_ids": [[9, 5, 5], [9, 5, 6]], "units": [[-1, 0, 1], [-1, 0, 1]]})
    scores = task().baseline(data, [])
    assert scores["accuracy"] == 0.75
    assert scores["loss"] == pytest.approx(-0.75 * math.log(0.75) - 0.25 * math.log(0.25))


def test_a_tokenizer_without_a_mask_token_is_refused_and_a_trained_one_gets_it() -> None:
    with pytest.raises(UserError, match="tokenizer has no mask token; choose a model"):
        task().encode(LONG, train_tokenizer(TEXTS, 300), [])
    made = train_tokenizer(TEXTS, 300, ("mask_token",))
    assert (made.mask_token_id, made.mask_token) == (3, "<|mask|>")
    plain = train_tokenizer(TEXTS, 300)
    assert plain.convert_tokens_to_ids(list(SPECIAL_TOKENS.values())) == [0, 1, 2]
    assert plain.mask_token_id is None


def test_whole_words_need_a_tokenizer_that_parts_them(tokenizer: Any) -> None:
    from tokenizers import pre_tokenizers

    made = train_tokenizer(TEXTS, 300, ("mask_token",))
    made._tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    with pytest.raises(UserError, match="task.whole_words=true: this model's tokenizer does not part words"):
        task(whole_words=True).encode(LONG, made, [])


def test_shares_of_more_than_one_are_refused() -> None:
    with pytest.raises(ValueError, match="replace_random=0.3: with replace_mask=0.8 it is more than 1"):
        task(replace_random=0.3)


def test_a_text_that_is_none_is_at_fault() -> None:
    assert task().fault({"text": None}) == "text: is missing"
    assert task().fault({"text": 3}) == "text: 3 is not a text"
    assert task().fault({"text": ""}) is None


def test_a_model_that_sees_only_the_past_is_refused(run: Ran) -> None:
    with pytest.raises(UserError, match="does not see the tokens after a hidden one"):
        run(*BERT, "task=masked_lm", "model.config.is_decoder=true")
    with pytest.raises(UserError, match="no AutoModelForMaskedLM for this architecture"):
        run("task=masked_lm")


def test_parity_and_every_epoch_hides_other_tokens(run: Ran) -> None:
    settings = [*BERT, "task=masked_lm", "training.micro_batch_size=3", "training.max_steps=10"]
    results = [run(*settings, f"backend={each}") for each in ("torch", "accelerate", "hf")]
    assert len({result["digest"] for result in results}) == 1
    curves = [curve(result["points"], *CURVES) for result in results]
    assert curves[0] == curves[1] == curves[2]


def test_hidden_tokens_are_found_and_the_saved_folder_fills_masks(run: Ran) -> None:
    from transformers import pipeline

    result = run(
        *BERT, "task=masked_lm", "task.whole_words=true", "training.max_steps=80", "training.learning_rate=1e-2"
    )
    assert result["metrics"]["eval/loss"] < result["baseline"]["eval/loss"] - 0.3
    assert result["metrics"]["eval/accuracy"] > result["baseline"]["eval/accuracy"]
    fill = pipeline("fill-mask", model=result["model"])
    assert fill("apple pear<|mask|> fig")[0]["score"] > 0
    again = run("command=evaluate", "task=masked_lm", "task.whole_words=true", "model=pretrained",
                f"model.path={result['model']}")  # fmt: skip
    assert again["metrics"] == pytest.approx(result["metrics"])
    assert Path(result["folder"], "evaluation").is_dir()
