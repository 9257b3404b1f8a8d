"""Multiple choice: any number of choices a row, labels by number, name or text."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import WORDS, rows, write_rows
from datasets import Dataset
from test_backend import CURVES, curve
from test_token_classification import BERT, word_pieces

from xp.error import UserError
from xp.model.tokenizer import train_tokenizer
from xp.task.multiple_choice import MultipleChoice

Ran = Callable[..., dict[str, Any]]
ROW = {"text": "a b", "choices": ["a", "b c", "d"], "label": 1}
MORE = {"text": "c", "choices": ["e", "d d d"], "label": 0}


def task(**settings: Any) -> MultipleChoice:
    values = {"max_length": 32, "overlong": "truncate", "truncation_side": "right"} | settings
    return MultipleChoice(name="multiple_choice", metrics=["accuracy"], **values)


def network(size: int) -> Any:
    import transformers

    torch.manual_seed(0)
    config = transformers.BertConfig(
        vocab_size=size, hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=64
    )
    return transformers.AutoModelForMultipleChoice.from_config(config).eval()


def batch_of(*made: dict[str, Any]) -> tuple[Any, dict[str, torch.Tensor], Dataset]:
    tokenizer = word_pieces()
    tokenizer.model_input_names = ["input_ids", "token_type_ids", "attention_mask"]
    encoded = task().encode(Dataset.from_list(list(made)), tokenizer, []).rows
    return network(len(tokenizer)), task().collate([[row] for row in encoded], tokenizer), encoded


def test_loss_is_the_models_own_loss_times_the_rows() -> None:
    model, batch, _ = batch_of(ROW, ROW | {"label": 2, "choices": ["d d d", "a", "c"]})
    assert batch["input_ids"].shape[:2] == (2, 3)
    own = model(**{name: value for name, value in batch.items() if name != "there"}).loss
    torch.testing.assert_close(task().loss(model, batch, 0.0), own * 2)
    smooth = torch.nn.functional.cross_entropy(
        model(**{name: value for name, value in batch.items() if name not in ("there", "labels")}).logits,
        batch["labels"], reduction="sum", label_smoothing=0.3,
    )  # fmt: skip
    torch.testing.assert_close(task().loss(model, batch, 0.3), smooth)


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_a_row_with_fewer_choices_has_the_loss_it_has_alone(smoothing: float) -> None:
    model, both, encoded = batch_of(ROW, MORE)
    together = task().loss(model, both, smoothing)
    alone = [task().loss(model, batch_of(row)[1], smoothing) for row in (ROW, MORE)]
    torch.testing.assert_close(together, sum(alone))
    assert torch.isfinite(together)
    together.backward()
    assert all(torch.isfinite(p.grad).all() for p in model.parameters() if p.grad is not None)
    with torch.inference_mode():
        outcomes = task().outcomes(model, both, None, None)
    assert outcomes["prediction"][1] in (0, 1)
    scores = task().score(outcomes, encoded, [])
    assert set(scores) == {"accuracy", "loss"}


def test_lengths_are_room_and_tokens_are_counted_apart() -> None:
    _, batch, encoded = batch_of(ROW, ROW)
    assert encoded["length"][0] == 3 * max(len(choice) for choice in encoded["input_ids"][0])
    assert sum(encoded["length"]) == batch["input_ids"].numel()
    assert sum(encoded["tokens"]) == int(batch["attention_mask"].sum())


@pytest.mark.parametrize(
    ("label", "choices", "names", "number"),
    [
        (1, ["a", "b"], None, 1),
        ("1", ["a", "b"], None, 1),
        ("B", ["x", "y"], None, 1),
        ("y", ["x", "y"], None, 1),
        ("2", ["x", "y"], ["1", "2"], 1),
        ("b", ["b", "c"], ["c", "b"], 1),
    ],
)
def test_labels_are_numbers_letters_texts_or_names(label: Any, choices: Any, names: Any, number: int) -> None:
    row = {"text": "a", "choices": choices, "label": label} | ({"names": names} if names else {})
    assert task().fault(row) is None
    assert task().encode(Dataset.from_list([row]), word_pieces(), []).rows["label"][:] == [number]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"text": None}, "text: is missing"),
        ({"choices": "a"}, "choices: 'a' is not a list of texts"),
        ({"choices": ["a"]}, "choices: ['a'] is not a list of two texts or more"),
        ({"choices": ["a", None]}, "choices: ['a', None] is not a list of two texts or more"),
        ({"names": ["A"]}, "names: 1 names for 3 choices"),
        ({"label": None}, "label: is missing"),
        ({"label": ""}, "label: is missing"),
        ({"label": 3}, "label: 3 is none of the 3 choices, counted from 0"),
        ({"label": -1}, "label: -1 is none of the 3 choices"),
        ({"label": "E"}, "label: 'E' is none of the 3 choices"),
        ({"label": True}, "label: True is none of the 3 choices"),
        ({"label": "1", "choices": ["1", "2"]}, "label: '1' may be the name or the text of a choice"),
        ({"label": "A", "names": ["x", "y", "z"]}, "label: 'A' is none of the 3 choices"),
    ],
)
def test_a_row_at_fault_is_said(change: dict[str, Any], said: str) -> None:
    assert said in str(task().fault(ROW | change))


def test_overlong_questions_are_truncated_dropped_or_refused() -> None:
    data = Dataset.from_list([{"text": "a b c d e f", "choices": ["a", "b b b b"], "label": 0}, MORE])
    assert task(max_length=8).encode(data, word_pieces(), []).notes == {"rows": 2, "truncated": 1}
    assert task(max_length=8, overlong="drop").encode(data, word_pieces(), []).notes == {"rows": 2, "dropped": 1}
    with pytest.raises(UserError, match="1 of 2 questions have more than task.max_length=8"):
        task(max_length=8, overlong="error").encode(data, word_pieces(), [])


def test_a_decoder_without_such_a_head_is_refused_in_one_line(corpus: Path, run: Ran) -> None:
    for name in ("train", "eval"):
        write_rows(corpus / f"{name}.jsonl", [ROW] * 10)
    with pytest.raises(UserError, match="no AutoModelForMultipleChoice for this architecture"):
        run("task=multiple_choice")


def questions(number: int) -> list[dict[str, Any]]:
    """Which of these is of the kind? Two to three choices, whose number and place vary."""
    made = []
    for at, row in enumerate(rows(number)):
        kinds = [kind for kind in WORDS if kind != row["label"]][: 1 + at % 2]
        choices = [WORDS[kind][at % 3] for kind in kinds]
        choices.insert(
            at % (len(choices) + 1), WORDS["tool"][at % 3] if row["label"] == "tool" else row["text"].split()[0]
        )
        made.append({"text": "which is it", "choices": choices, "label": choices[at % len(choices)]})
    return made


def test_parity(corpus: Path, run: Ran) -> None:
    for name in ("train", "eval"):
        write_rows(corpus / f"{name}.jsonl", questions(60))
    settings = [*BERT, "task=multiple_choice", "training.micro_batch_size=3"]
    results = [run(*settings, f"backend={each}") for each in ("torch", "accelerate", "hf")]
    assert len({result["digest"] for result in results}) == 1
    curves = [curve(result["points"], *CURVES) for result in results]
    assert curves[0] == curves[1] == curves[2]


def test_the_right_choice_is_learned_and_answered(corpus: Path, run: Ran) -> None:
    from transformers import AutoModelForMultipleChoice, AutoTokenizer

    made = [
        {"text": "fruit", "choices": ["saw", row["text"], "cat"], "label": 1}
        for row in rows(80)
        if "apple" in row["text"]
    ]
    made += [{"text": "fruit", "choices": ["apple pear", "saw axe"], "label": "apple pear"}] * len(made)
    for name in ("train", "eval"):
        write_rows(corpus / f"{name}.jsonl", made)
    result = run(*BERT, "task=multiple_choice", "training.max_steps=40", "training.learning_rate=1e-2")
    assert result["metrics"]["eval/accuracy"] > 0.95
    network = AutoModelForMultipleChoice.from_pretrained(result["model"])
    tokenizer = AutoTokenizer.from_pretrained(result["model"])
    with torch.inference_mode():
        asked = [{"text": "fruit", "choices": choices} for choices in (["saw", "apple pear", "cat"], ["apple", "saw"])]
        one, two = task(max_length=128).answer(asked, network.eval(), tokenizer, None)
    assert (one["choice"], one["label"], two["label"]) == (1, "apple pear", "apple")
    assert len(one["scores"]) == 3
    assert len(two["scores"]) == 2
    assert sum(two["scores"]) == pytest.approx(1)
    assert one["score"] == max(one["scores"])
    with pytest.raises(ValueError, match="choices: 'a' is not a list of two texts"):
        task().answer([{"text": "fruit", "choices": "a"}], network, tokenizer, None)


def test_embedded_choices_are_the_same_words_in_four_orders() -> None:
    from xp.data.stdlib_lines import line_pairs, next_lines

    text = "\n".join(f"    value_{at} = compute(first, {at}) + other[{at}]" for at in range(40))
    made = list(next_lines("a.py", text))
    assert made == list(next_lines("a.py", text))
    for row in made:
        assert len({*row["choices"]}) == 4
        assert len({"".join(sorted(choice)) for choice in row["choices"]}) == 1
        assert row["choices"][row["label"]] in text.split("\n")
        assert task().fault(row) is None
    assert len({row["label"] for row in made}) > 1
    assert {row["label"] for row in line_pairs("a.py", text)} == {"written", "shuffled"}


def test_a_tokenizer_that_runs_pairs_together_gets_a_separator() -> None:
    tokenizer = train_tokenizer(["a b c"], 290)
    task().equip(tokenizer, None, False)
    encoded = task().encode(Dataset.from_list([ROW]), tokenizer, []).rows
    assert all(choice.count(tokenizer.eos_token_id) == 1 for choice in encoded["input_ids"][0])
