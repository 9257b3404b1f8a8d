"""Text classification: what the label column asks for, pairs of texts, and the loss that goes with each."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import ROOT, rows, write_rows
from datasets import ClassLabel, Dataset, Features, List, Value
from test_backend import CURVES, curve

from xp.error import UserError
from xp.model.tokenizer import train_tokenizer
from xp.task.encoding import check_pair, frame, settle_pair
from xp.task.text_classification import TextClassification

TEXTS = [row["text"] for row in rows(60)]
METRICS = {"single_label": ["accuracy"], "multi_label": ["hamming_loss"], "regression": ["pearson"]}
Ran = Callable[..., dict[str, Any]]


@pytest.fixture
def tokenizer() -> Any:
    return train_tokenizer(TEXTS, 300)


def task(problem: str = "auto", metrics: list[str] | None = None, **settings: Any) -> TextClassification:
    values = {"labels": None, "max_length": 64, "overlong": "truncate", "truncation_side": "right"} | settings
    values |= {"prediction": {"top_k": 1, "function_to_apply": None}}
    metrics = METRICS[problem] if metrics is None else metrics
    return TextClassification(name="text_classification", problem=problem, metrics=metrics, **values)


def network(posed: TextClassification, labels: list[str], size: int) -> Any:
    import transformers

    torch.manual_seed(0)
    config = transformers.LlamaConfig(
        vocab_size=size,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=1,
        num_attention_heads=2,
        pad_token_id=0,
        **posed.config(labels),
    )
    return transformers.AutoModelForSequenceClassification.from_config(config).eval()


COLUMNS = {
    "single_label": (["a", "b", "a", "b"], ["accuracy", "f1_macro"]),
    "multi_label": ([["a"], [], ["b", "a"], ["b"]], ["f1_micro", "f1_macro"]),
    "regression": ([0.5, -1.0, 2.25, 0.0], ["mean_squared_error", "pearson", "spearman"]),
}


@pytest.mark.parametrize("problem", COLUMNS)
def test_the_label_column_decides_on_the_problem_and_the_loss_is_the_models_own(problem: str, tokenizer: Any) -> None:
    column, metrics = COLUMNS[problem]
    data = Dataset.from_dict({"text": TEXTS[:4], "label": column})
    posed = task(metrics=metrics).resolved(data)
    assert posed.problem == problem
    labels = posed.label_names(data)
    assert labels == ([] if problem == "regression" else ["a", "b"])
    model = network(posed, labels, len(tokenizer))
    encoded = posed.encode(data, tokenizer, labels).rows
    batch = posed.collate([[row] for row in encoded], tokenizer)
    own = model(**batch).loss  # transformers picks the loss by the config's problem_type.
    torch.testing.assert_close(posed.loss(model, batch, 0.0), own * 4)
    with torch.inference_mode():
        outcomes = posed.outcomes(model, batch, tokenizer, None)
    scores = posed.score(outcomes, encoded, labels)
    assert scores["loss"] == pytest.approx(own.item(), rel=1e-5)
    assert set(scores) == {"loss", *metrics} == {"loss", *posed.baseline(encoded, labels)}
    found = posed.findings(outcomes, encoded, labels, tokenizer)
    assert len(found.tables["worst"]["row"]) == 4
    for draw in found.pictures.values():
        draw().canvas.draw()


def test_metrics_that_do_not_fit_name_the_yaml_that_does() -> None:
    lists = Dataset.from_dict({"text": ["a"], "label": [["x"]]})
    with pytest.raises(UserError, match=r"accuracy\].*holds lists.*task=multi_label_classification"):
        task(metrics=["accuracy"]).resolved(lists)
    numbers = Dataset.from_dict({"text": ["a"], "label": [0.5]})
    with pytest.raises(UserError, match="task=text_regression"):
        task(metrics=["accuracy"]).resolved(numbers)
    words = Dataset.from_dict({"text": ["a"], "label": ["x"]})
    with pytest.raises(UserError, match="task=text_classification"):
        task(metrics=["pearson"]).resolved(words)


def test_form_of_the_answers_follows_the_problem_or_else_the_metrics() -> None:
    assert [task(problem).answers for problem in METRICS] == ["class", "classes", "number"]
    assert [task(metrics=metrics).answers for metrics in METRICS.values()] == ["class", "classes", "number"]


@pytest.mark.parametrize(
    ("problem", "label", "said"),
    [
        ("auto", None, "label: is missing"),
        ("auto", "", "label: is missing"),
        ("auto", float("nan"), "label: nan is not a finite number"),
        ("auto", ["a", None], "label: None is not a label"),
        ("single_label", ["a"], "task=multi_label_classification takes lists"),
        ("multi_label", "a", "label: 'a' is not a list of labels"),
        ("multi_label", [0.5], "label: 0.5 is not a label"),
        ("regression", "high", "label: 'high' is not a finite number"),
        ("regression", True, "label: True is not a finite number"),
        ("regression", float("inf"), "label: inf is not a finite number"),
    ],
)
def test_a_label_at_fault_is_said(problem: str, label: Any, said: str) -> None:
    posed = task(problem, metrics=[])
    assert said in str(posed.fault({"text": "a", "label": label}))


def test_good_rows_have_no_fault_and_texts_that_are_none_do() -> None:
    for problem, label in (("auto", "a"), ("auto", []), ("multi_label", ["a"]), ("regression", 3), ("auto", 0)):
        assert task(problem, metrics=[]).fault({"text": "a", "text_pair": "b", "label": label}) is None
    assert task(metrics=[]).fault({"text": None, "label": 1}) == "text: is empty"
    assert task(metrics=[]).fault({"text": "a", "text_pair": 3, "label": 1}) == "text_pair: is 3, which is not text"


def test_lists_of_class_labels_have_their_names(tokenizer: Any) -> None:
    features = Features({"text": Value("string"), "label": List(ClassLabel(names=["joy", "fear", "none"]))})
    data = Dataset.from_list([{"text": "a", "label": [2, 0]}, {"text": "b", "label": []}], features=features)
    posed = task("multi_label")
    assert posed.label_names(data) == ["joy", "fear", "none"]
    assert posed.encode(data, tokenizer, ["none", "joy", "fear"]).rows["label"][:] == [[1, 1, 0], [0, 0, 0]]


def test_columns_of_0_and_1_take_their_names_from_the_setting(tokenizer: Any) -> None:
    data = Dataset.from_dict({"text": ["a", "b"], "label": [[0, 1, 1], [0, 0, 0]]})
    with pytest.raises(UserError, match=r"3 numbers that are 0 or 1.*task.labels=\[a,b,c\]"):
        task("multi_label").label_names(data)
    posed = task("multi_label", labels=["x", "y", "z"])
    assert posed.label_names(data) == ["x", "y", "z"]
    assert posed.encode(data, tokenizer, ["x", "y", "z"]).rows["label"][:] == [[0, 1, 1], [0, 0, 0]]


def test_labels_that_the_model_does_not_have_are_refused(tokenizer: Any) -> None:
    data = Dataset.from_dict({"text": ["a", "b"], "label": [["jog"], ["fear"]]})
    with pytest.raises(UserError, match="label 'jog' is not one the model has. Did you mean 'joy'"):
        task("multi_label").encode(data, tokenizer, ["joy", "fear"])
    empty = Dataset.from_dict({"text": ["a"], "label": [[]]})
    with pytest.raises(UserError, match="no row has a label"):
        task("multi_label").label_names(empty.cast_column("label", List(Value("string"))))
    with pytest.raises(UserError, match="it holds lists; task.problem=regression needs a number a row"):
        task("regression").encode(Dataset.from_dict({"text": ["a"], "label": [["b"]]}), tokenizer, [])
    assert task("regression").fault({"text": "a", "label": "b"}) == "label: 'b' is not a finite number"


def test_labels_given_twice_or_for_a_number_are_refused() -> None:
    with pytest.raises(ValueError, match="two of them are the same"):
        task("single_label", labels=["a", "a"])
    with pytest.raises(ValueError, match="a number has no labels"):
        task("regression", labels=["a"])
    with pytest.raises(UserError, match="holds numbers, which have no labels"):
        task(metrics=["pearson"], labels=["a"]).resolved(Dataset.from_dict({"text": ["a"], "label": [0.5]}))


def test_label_smoothing_of_a_number_is_refused_and_of_labels_draws_to_a_half(tokenizer: Any) -> None:
    with pytest.raises(UserError, match="training.label_smoothing=0.1: a number"):
        task("regression")._problem.loss(torch.zeros(2, 1), torch.zeros(2), 0.1)
    many = task("multi_label")._problem
    half = many.loss(torch.tensor([[3.0, -1.0]]), torch.tensor([[0.5, 0.5]]), 0.0)
    torch.testing.assert_close(many.loss(torch.tensor([[3.0, -1.0]]), torch.tensor([[1.0, 0.0]]), 0.999999), half)


def test_the_saved_config_says_which_problem_it_is(run: Ran, corpus: Path) -> None:
    """And the folder is evaluated with what it scored."""
    from transformers import AutoConfig

    for name in ("train", "eval"):
        made = [{"text": row["text"], "label": len(row["text"]) / 10} for row in rows(60)]
        write_rows(corpus / f"{name}.jsonl", made)
    first = run("task=text_regression", "training.learning_rate=1e-2")
    config = AutoConfig.from_pretrained(first["model"])
    assert (config.problem_type, config.num_labels) == ("regression", 1)
    again = run("command=evaluate", "task=text_regression", "model=pretrained", f"model.path={first['model']}")
    assert again["metrics"] == pytest.approx(first["metrics"])


def test_a_model_with_other_labels_becomes_one_of_numbers(run: Ran, corpus: Path) -> None:
    classes = run("task=text_classification")
    for name in ("train", "eval"):
        write_rows(
            corpus / f"{name}.jsonl", [{"text": row["text"], "label": 0.5 * at} for at, row in enumerate(rows(20))]
        )
    numbers = run("task=text_regression", "model=pretrained", f"model.path={classes['model']}")
    assert "eval/pearson" in numbers["metrics"]


def test_a_pair_is_separated_and_the_template_is_saved(tokenizer: Any, tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    single = tokenizer("apple pear")["input_ids"]
    with pytest.raises(UserError, match="puts nothing between the texts of a pair"):
        check_pair(tokenizer)
    settle_pair(tokenizer)
    check_pair(tokenizer)
    assert tokenizer("apple pear")["input_ids"] == single
    first, second = (tokenizer(text, add_special_tokens=False)["input_ids"] for text in ("apple", "pear"))
    expected = [tokenizer.bos_token_id, *first, tokenizer.eos_token_id, *second]
    assert tokenizer("apple", "pear")["input_ids"] == expected
    tokenizer.save_pretrained(tmp_path)
    assert AutoTokenizer.from_pretrained(tmp_path)("apple", "pear")["input_ids"] == expected
    assert frame(tokenizer) == ([tokenizer.bos_token_id], [])


def test_of_a_long_pair_the_longer_text_is_cut_on_the_side_that_is_set(tokenizer: Any) -> None:
    settle_pair(tokenizer)
    data = Dataset.from_dict({"text": ["apple " * 30], "text_pair": ["pear"], "label": ["a"]})
    pear = tokenizer("pear", add_special_tokens=False)["input_ids"]
    for side, end in (("right", "apple"), ("left", " apple ")):
        posed = task("single_label", max_length=12, truncation_side=side)
        posed.equip(tokenizer, None, False)
        encoded = posed.encode(data, tokenizer, ["a"])
        (tokens,) = encoded.rows["input_ids"]
        assert (len(tokens), tokens[-len(pear) :], encoded.notes["truncated"]) == (12, pear, 1)
        whole = tokenizer("apple " * 30, add_special_tokens=False)["input_ids"]
        kept = tokens[1 : -len(pear) - 1]
        assert kept == (whole[: len(kept)] if side == "right" else whole[-len(kept) :]), end


def test_no_room_for_a_text_is_refused(tokenizer: Any) -> None:
    settle_pair(tokenizer)
    data = Dataset.from_dict({"text": ["apple pear"], "text_pair": ["pear"], "label": ["a"]})
    with pytest.raises(UserError, match="task.max_length=3: with 2 special tokens no token"):
        task("single_label", max_length=3).encode(data, tokenizer, ["a"])


def test_the_second_text_of_a_pair_is_seen(run: Ran, corpus: Path) -> None:
    """The label is in the second text alone: it is learned."""
    made = [{"text": "the same", "text_pair": row["text"], "label": row["label"]} for row in rows(60)]
    for name in ("train", "eval"):
        write_rows(corpus / f"{name}.jsonl", made)
    result = run("task=text_classification", "training.max_steps=40", "training.learning_rate=1e-2")
    assert result["metrics"]["eval/accuracy"] > 0.9
    assert result["baseline"]["eval/accuracy"] < 0.5


PROBLEMS = {
    "multi_label": ("multi_label_classification", lambda row: [row["label"], "long"][: 1 + (len(row["text"]) > 30)]),
    "regression": ("text_regression", lambda row: len(row["text"]) / 20),
}


@pytest.mark.parametrize("problem", PROBLEMS)
def test_parity_of_the_other_problems(problem: str, run: Ran, corpus: Path) -> None:
    name, label = PROBLEMS[problem]
    made = [row | {"label": label(row)} for row in rows(60)]
    for side in ("train", "eval"):
        write_rows(corpus / f"{side}.jsonl", made)
    results = [
        run(f"task={name}", "training.micro_batch_size=3", f"backend={each}") for each in ("torch", "accelerate", "hf")
    ]
    assert len({result["digest"] for result in results}) == 1
    curves = [curve(result["points"], *CURVES) for result in results]
    assert curves[0] == curves[1] == curves[2]


@pytest.mark.parametrize("data", ["stdlib_modules", "stdlib_branches", "stdlib_pairs"])
def test_embedded_data_fits_its_task(data: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from xp.config import compose
    from xp.run import Run

    monkeypatch.chdir(tmp_path)
    compose.initialize(None)
    made = Run.parse(compose.values([f"data={data}", "data.train_rows=200", "data.eval_rows=50"]))
    assert isinstance(made.task, TextClassification)
    splits = made.data.load(made.task.columns, optional=made.task.optional_columns, train=True)
    assert splits.train is not None
    posed = made.task.resolved(splits.train)
    assert [posed.fault(row) for row in splits.train] == [None] * 200
    labels = posed.label_names(splits.train)
    assert posed.problem == {"stdlib_branches": "regression", "stdlib_modules": "multi_label"}.get(data, "single_label")
    assert bool(labels) == (data != "stdlib_branches")
    assert (ROOT / "conf" / "data" / f"{data}.yaml").is_file()
