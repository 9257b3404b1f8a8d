"""Tasks: rows become features, batches and metrics; nothing is lost on the way without a count."""

from __future__ import annotations

import math
from itertools import chain
from typing import Any

import numpy as np
import pytest
import torch
from conftest import from_yaml, rows
from datasets import ClassLabel, Dataset, Features, Value

from xp.error import UserError
from xp.evaluation import evaluate
from xp.generation.greedy import Greedy
from xp.model.tokenizer import train_tokenizer
from xp.task import Trainable
from xp.task.base import IGNORE
from xp.task.causal_lm import CausalLM
from xp.task.text_classification import TextClassification

GREEDY = from_yaml(Greedy, max_new_tokens=8)
TEXTS = [row["text"] for row in rows(60)]


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return train_tokenizer(TEXTS, 300)


def classification(max_length: int = 64, overlong: str = "truncate") -> TextClassification:
    return from_yaml(TextClassification, max_length=max_length, overlong=overlong, problem="single_label")


def lm(max_length: int = 16, overlong: str = "split") -> CausalLM:
    return from_yaml(CausalLM, max_length=max_length, overlong=overlong)


def network(task: Trainable, tokenizer: Any, labels: list[str]) -> Any:
    import transformers

    torch.manual_seed(0)
    config = transformers.LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        pad_token_id=tokenizer.pad_token_id,
        **task.config(labels),
    )
    return getattr(transformers, task.auto_class).from_config(config).eval()


def test_labels_are_the_sorted_values_of_the_column() -> None:
    assert classification().label_names(Dataset.from_list(rows(9))) == ["animal", "fruit", "tool"]
    numbers = Dataset.from_list([{"text": "a", "label": 10}, {"text": "b", "label": 9}])
    assert classification().label_names(numbers) == ["9", "10"]


def test_labels_of_a_class_label_column_are_its_names(tokenizer: Any) -> None:
    features = Features({"text": Value("string"), "label": ClassLabel(names=["no", "yes"])})
    data = Dataset.from_list([{"text": "a", "label": 1}], features=features)
    assert classification().label_names(data) == ["no", "yes"]
    assert classification().encode(data, tokenizer, ["yes", "no"]).rows["label"][:] == [0]


def test_rows_without_a_label_are_counted_and_refused(tokenizer: Any) -> None:
    """The hub marks the hidden labels of a test split with -1, which Python takes for the last class."""
    features = Features({"text": Value("string"), "label": ClassLabel(names=["no", "yes"])})
    data = Dataset.from_list([{"text": "a", "label": -1}, {"text": "b", "label": 1}], features=features)
    with pytest.raises(UserError, match="1 of 2 rows have no label"):
        classification().encode(data, tokenizer, ["no", "yes"])


@pytest.mark.parametrize("value", [None, 0.5, "", ["a"]])
def test_labels_that_are_no_classes_are_refused(value: Any) -> None:
    with pytest.raises(UserError, match="label"):
        classification().label_names(Dataset.from_list([{"text": "a", "label": value}, {"text": "b", "label": value}]))


def test_an_unknown_label_names_the_nearest(tokenizer: Any) -> None:
    data = Dataset.from_list([{"text": "a", "label": "friut"}])
    with pytest.raises(UserError, match="'friut' is not one the model has. Did you mean 'fruit'"):
        classification().encode(data, tokenizer, ["animal", "fruit"])


def test_overlong_texts_are_truncated_dropped_or_refused_and_counted(tokenizer: Any) -> None:
    data = Dataset.from_list(rows(60))
    labels = ["animal", "fruit", "tool"]
    lengths = [len(tokenizer(text)["input_ids"]) for text in TEXTS]
    over = sum(length > 8 for length in lengths)
    assert 0 < over < 60
    cut = classification(8).encode(data, tokenizer, labels)
    assert cut.notes == {"rows": 60, "truncated": over}
    assert max(cut.rows["length"]) == 8
    dropped = classification(8, "drop").encode(data, tokenizer, labels)
    assert dropped.notes == {"rows": 60, "dropped": over}
    assert len(dropped.rows) == 60 - over
    with pytest.raises(UserError, match=f"{over} of 60 texts"):
        classification(8, "error").encode(data, tokenizer, labels)


def test_special_tokens_survive_truncation() -> None:
    from tokenizers.processors import TemplateProcessing

    tokenizer = train_tokenizer(TEXTS, 300)
    tokenizer._tokenizer.post_processor = TemplateProcessing(
        single="<|begin|> $A <|end|>", special_tokens=[("<|begin|>", 1), ("<|end|>", 2)]
    )
    encoded = classification(8).encode(Dataset.from_list(rows(60)), tokenizer, ["animal", "fruit", "tool"])
    assert {(row[0], row[-1]) for row in encoded.rows["input_ids"]} == {(1, 2)}


@pytest.mark.parametrize("max_length", [2, 5, 16, 1000])
def test_split_windows_predict_every_token_of_a_text_once(tokenizer: Any, max_length: int) -> None:
    data = Dataset.from_list(rows(20))
    encoded = lm(max_length).encode(data, tokenizer, [])
    predicted = list(chain.from_iterable(row[1:] for row in encoded.rows["input_ids"]))
    whole = [[*tokenizer(text, add_special_tokens=False)["input_ids"], tokenizer.eos_token_id] for text in TEXTS[:20]]
    assert predicted == list(chain.from_iterable(whole))
    assert sum(encoded.rows["items"]) == len(predicted)
    assert sum(encoded.rows["bytes"]) == sum(len(text.encode()) for text in TEXTS[:20])
    assert max(encoded.rows["length"]) <= max_length


def test_without_a_begin_token_the_first_token_does_not_count(tokenizer: Any) -> None:
    bare = train_tokenizer(TEXTS, 300)
    bare.bos_token = None
    encoded = lm().encode(Dataset.from_list([{"text": "apple pear"}]), bare, [])
    first = bare.decode(encoded.rows["input_ids"][0][:1])
    assert encoded.rows["bytes"][:] == [len("apple pear") - len(first)]


@pytest.mark.parametrize("overlong", ["truncate", "drop", "error"])
def test_overlong_texts_of_a_language_model(tokenizer: Any, overlong: str) -> None:
    data = Dataset.from_list(rows(60))
    over = sum(len(tokenizer(text)["input_ids"]) + 1 > 16 for text in TEXTS)
    if overlong == "error":
        with pytest.raises(UserError, match=f"{over} of 60 texts"):
            lm(overlong=overlong).encode(data, tokenizer, [])
        return
    encoded = lm(overlong=overlong).encode(data, tokenizer, [])
    assert encoded.notes[{"truncate": "truncated", "drop": "dropped"}[overlong]] == over
    assert len(encoded.rows) == (60 if overlong == "truncate" else 60 - over)


def test_texts_without_a_token_are_counted_and_none_left_is_an_error(tokenizer: Any) -> None:
    bare = train_tokenizer(TEXTS, 300)
    bare.bos_token = bare.eos_token = None
    assert lm().encode(Dataset.from_list([{"text": ""}, {"text": "a b c"}]), bare, []).notes["empty"] == 1
    with pytest.raises(UserError, match="nothing to predict"):
        lm().encode(Dataset.from_list([{"text": ""}]), bare, [])


def test_loss_is_the_models_own_loss_times_the_items(tokenizer: Any) -> None:
    task = lm(64)
    encoded = task.encode(Dataset.from_list(rows(6)), tokenizer, []).rows
    model = network(task, tokenizer, [])
    batch = task.collate([[row] for row in encoded], tokenizer)
    own = model(**batch).loss * sum(encoded["items"])
    torch.testing.assert_close(task.loss(model, batch, 0.0), own)
    kinds = classification()
    labels = ["animal", "fruit", "tool"]
    encoded = kinds.encode(Dataset.from_list(rows(6)), tokenizer, labels).rows
    model = network(kinds, tokenizer, labels)
    batch = kinds.collate([[row] for row in encoded], tokenizer)
    torch.testing.assert_close(kinds.loss(model, batch, 0.0), model(**batch).loss * 6)


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_packed_rows_equal_single_rows_in_loss_and_gradients(tokenizer: Any, smoothing: float) -> None:
    task = lm(200)
    encoded = list(task.encode(Dataset.from_list(rows(9)), tokenizer, []).rows)
    model = network(task, tokenizer, [])

    def gradients(sequences: list[list[dict[str, Any]]]) -> tuple[torch.Tensor, torch.Tensor]:
        model.zero_grad()
        loss = task.loss(model, task.collate(sequences, tokenizer), smoothing)
        loss.backward()
        return loss.detach(), torch.cat([parameter.grad.flatten() for parameter in model.parameters()])

    alone = gradients([[row] for row in encoded])
    packed = gradients([encoded[:4], encoded[4:8], encoded[8:]])
    torch.testing.assert_close(packed[0], alone[0])
    torch.testing.assert_close(packed[1], alone[1], atol=1e-5, rtol=1e-5)


def test_nothing_is_predicted_across_packed_rows(tokenizer: Any) -> None:
    batch = lm().collate([[{"input_ids": [1, 5, 6]}, {"input_ids": [1, 7]}]], tokenizer)
    assert batch["labels"].tolist() == [[IGNORE, 5, 6, IGNORE, 7]]
    assert batch["position_ids"].tolist() == [[0, 1, 2, 0, 1]]
    assert batch["attention_mask"][0, 0, 3].tolist() == [False, False, False, True, False]


@pytest.mark.parametrize("batch_size", [1, 4, 100])
def test_evaluation_restores_the_order_and_does_not_depend_on_the_batch_size(tokenizer: Any, batch_size: int) -> None:
    from contextlib import nullcontext

    task, labels = classification(), ["animal", "fruit", "tool"]
    encoded = task.encode(Dataset.from_list(rows(30)), tokenizer, labels).rows
    model = network(task, tokenizer, labels)
    with torch.no_grad():
        logits = torch.cat([model(input_ids=torch.tensor([row["input_ids"]])).logits for row in encoded])
    gold = torch.tensor(encoded["label"][:])
    device = torch.device("cpu")
    metrics = evaluate(task, model, encoded, labels, tokenizer, GREEDY, batch_size, device, nullcontext).scores
    assert metrics["accuracy"] == pytest.approx(float((logits.argmax(-1) == gold).float().mean()))
    assert metrics["loss"] == pytest.approx(float(torch.nn.functional.cross_entropy(logits, gold)), rel=1e-5)


def test_language_model_metrics_are_per_token_and_per_byte(tokenizer: Any) -> None:
    encoded = lm().encode(Dataset.from_list(rows(5)), tokenizer, []).rows
    outcomes = {"loss": np.array(encoded["items"]) * 2.0}
    metrics = lm().score(outcomes, encoded, [])
    size = sum(encoded["bytes"])
    assert metrics["loss"] == pytest.approx(2.0)
    assert metrics["perplexity"] == pytest.approx(math.exp(2))
    assert metrics["bits_per_byte"] == pytest.approx(2 * sum(encoded["items"]) / math.log(2) / size)


def test_an_empty_text_is_its_end_alone(tokenizer: Any) -> None:
    bare = train_tokenizer(TEXTS, 300)
    bare._tokenizer.post_processor = None
    encoded = classification().encode(Dataset.from_list([{"text": "", "label": "a"}]), bare, ["a"])
    assert encoded.rows["input_ids"][:] == [[bare.eos_token_id]]


def test_baseline_is_the_majority_class() -> None:
    data = Dataset.from_dict({"label": [0, 1, 1, 1]})
    assert classification().baseline(data, ["a", "b"])["accuracy"] == 0.75
