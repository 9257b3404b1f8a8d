"""Metrics: the values of the libraries they come from, and what is refused."""

from __future__ import annotations

import importlib.util
import math
import random
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import ROOT

from xp import metric
from xp.error import UserError
from xp.metric import METRICS, better, check, compute, values

SAMPLES: dict[str, tuple[Any, Any]] = {
    "class": ([0, 2, 2, 0, 3], [0, 1, 2, 0, 1]),
    "classes": ([[1, 0, 0], [1, 1, 0], [0, 0, 0]], [[1, 0, 1], [0, 1, 0], [0, 0, 0]]),
    "number": ([1.0, 2.5, 3.0], [1.0, 4.0, 2.0]),
    "tags": ([["B-PER", "I-PER", "O"], ["O", "B-LOC"]], [["B-PER", "O", "O"], ["O", "B-LOC"]]),
    "text": (["the cat sat on a mat", "a dog"], [["the cat sat on the mat"], ["the dog"]]),
    "answer": (
        [{"id": "1", "prediction_text": "The black Cat!", "no_answer_probability": 0.0}],
        [{"id": "1", "answers": {"text": ["a cat", "cat on a mat"], "answer_start": [0, 0]}}],
    ),
}


@pytest.fixture
def registry() -> Iterator[dict[str, metric.Entry]]:
    """The registry, as it was again afterwards."""
    for module in {entry.module for entry in metric.METRICS.values()}:
        import_module(module)  # A module that is imported later would be forgotten afterwards, for good.
    before, makers = dict(metric.METRICS), dict(metric._makers)
    yield metric.METRICS
    for kept, was in ((metric.METRICS, before), (metric._makers, makers)):
        for name in kept.keys() - was.keys():
            del kept[name]


@pytest.mark.parametrize(("name", "form"), [(name, form) for name, entry in METRICS.items() for form in entry.takes])
def test_every_metric_gives_what_it_says(name: str, form: str) -> None:
    found = compute([name], form, *SAMPLES[form])
    assert tuple(found) == METRICS[name].gives
    assert all(type(value) is float and math.isfinite(value) for value in found.values())


@pytest.mark.parametrize(("name", "form"), [(name, form) for name, entry in METRICS.items() for form in entry.takes])
def test_right_answers_score_best(name: str, form: str) -> None:
    gold = SAMPLES[form][1]
    if form == "text":
        right = [texts[0] for texts in gold]
    elif form == "answer":
        right = [
            {"id": row["id"], "prediction_text": row["answers"]["text"][0], "no_answer_probability": 0.0}
            for row in gold
        ]
    else:
        right = gold
    best = compute([name], form, right, gold)
    for value, score in best.items():
        wrong = compute([name], form, *SAMPLES[form])[value]
        assert score == wrong == 0 if score == wrong else (score < wrong) == (better(value) == "min"), value


def test_arrays_are_as_good_as_lists() -> None:
    predictions, references = SAMPLES["class"]
    given = compute(["accuracy", "f1_macro"], "class", np.array(predictions), np.array(references))
    assert given == compute(["accuracy", "f1_macro"], "class", predictions, references)


def test_classes_are_scored_as_scikit_learn_does() -> None:
    from sklearn import metrics as sklearn

    draw = random.Random(0)
    gold = [draw.randrange(5) for _ in range(200)]
    predictions = [truth if draw.random() < 0.6 else draw.randrange(5) for truth in gold]
    names = [name for name, entry in METRICS.items() if "class" in entry.takes]
    found = compute(names, "class", predictions, gold)
    assert found["f1_macro"] == sklearn.f1_score(gold, predictions, average="macro", zero_division=0)
    assert found["f1_weighted"] == sklearn.f1_score(gold, predictions, average="weighted")
    assert (
        found["f1_micro"]
        == pytest.approx(found["accuracy"])
        == pytest.approx(sklearn.accuracy_score(gold, predictions))
    )
    assert found["balanced_accuracy"] == pytest.approx(sklearn.balanced_accuracy_score(gold, predictions))
    assert found["precision_macro"] == sklearn.precision_score(gold, predictions, average="macro")
    assert found["recall_macro"] == sklearn.recall_score(gold, predictions, average="macro")
    assert found["matthews_correlation"] == sklearn.matthews_corrcoef(gold, predictions)
    assert found["cohen_kappa"] == sklearn.cohen_kappa_score(gold, predictions)


def test_a_class_that_is_only_predicted_counts_in_the_mean_but_not_in_balanced_accuracy() -> None:
    found = compute(["recall_macro", "balanced_accuracy", "f1_macro"], "class", [0, 0, 1, 2], [0, 0, 1, 1])
    assert found["recall_macro"] == pytest.approx(1.5 / 3)
    assert found["balanced_accuracy"] == pytest.approx(1.5 / 2)
    assert found["f1_macro"] == pytest.approx((1 + 2 / 3 + 0) / 3)


def test_a_single_class_has_no_correlation() -> None:
    found = compute(["matthews_correlation", "cohen_kappa", "accuracy"], "class", [1, 1], [1, 1])
    assert found == {"matthews_correlation": 0.0, "cohen_kappa": 0.0, "accuracy": 1.0}


def test_several_labels_a_row() -> None:
    found = compute(["exact_match_ratio", "hamming_loss", "f1_micro", "f1_macro"], "classes", *SAMPLES["classes"])
    assert found["exact_match_ratio"] == pytest.approx(1 / 3)
    assert found["hamming_loss"] == pytest.approx(2 / 9)
    assert found["f1_micro"] == pytest.approx(2 * 2 / (3 + 3))
    assert found["f1_macro"] == pytest.approx((2 / 3 + 1 + 0) / 3)


def test_the_f1_of_a_single_label_is_not_averaged_with_its_absence() -> None:
    found = compute(["f1_macro"], "classes", [[1], [1], [0], [0]], [[1], [0], [0], [0]])
    assert found["f1_macro"] == pytest.approx(2 / 3)


def test_numbers() -> None:
    found = compute(["mean_squared_error", "mean_absolute_error", "r2"], "number", [1.0, 2.5, 3.0], [1.0, 2.0, 4.0])
    assert found["mean_squared_error"] == pytest.approx(1.25 / 3)
    assert found["mean_absolute_error"] == pytest.approx(0.5)
    assert found["r2"] == pytest.approx(1 - 1.25 / (14 / 3))
    ranks = compute(["pearson", "spearman"], "number", [1.0, 2.0, 3.0, 10.0], [1.0, 4.0, 9.0, 16.0])
    assert ranks["spearman"] == pytest.approx(1.0)
    assert ranks["pearson"] == pytest.approx(np.corrcoef([1, 2, 3, 10], [1, 4, 9, 16])[0, 1])


@pytest.mark.parametrize(
    ("predictions", "references"), [([1.0, 1.0], [1.0, 2.0]), ([1.0, 2.0], [3.0, 3.0]), ([1.0], [2.0])]
)
def test_what_does_not_vary_correlates_with_nothing(predictions: list[float], references: list[float]) -> None:
    assert compute(["pearson", "spearman"], "number", predictions, references) == {"pearson": 0.0, "spearman": 0.0}


def test_r2_of_one_row_is_0() -> None:
    assert compute(["r2"], "number", [1.0], [2.0]) == {"r2": 0.0}


@pytest.mark.parametrize("name", [name for name, entry in METRICS.items() if "number" in entry.takes])
def test_numbers_that_are_not_finite_are_refused(name: str) -> None:
    with pytest.raises(UserError, match="1 of 2 predicted numbers are not finite: the model has diverged"):
        compute([name], "number", [1.0, math.nan], [1.0, 2.0])
    with pytest.raises(UserError, match="1 of 2 reference numbers"):
        compute([name], "number", [1.0, 2.0], [1.0, math.inf])


@pytest.mark.parametrize(
    ("tags", "expected"),
    [
        ("B-A I-A O B-B", {(0, 2, "A"), (3, 4, "B")}),
        ("B-A B-A", {(0, 1, "A"), (1, 2, "A")}),  # IOB2: two neighbours
        ("I-A I-A B-A", {(0, 2, "A"), (2, 3, "A")}),  # IOB1: B only between neighbours
        ("B-A I-B", {(0, 1, "A"), (1, 2, "B")}),  # another kind begins another
        ("O I-A", {(1, 2, "A")}),
        ("B-A I-A E-A S-A", {(0, 3, "A"), (3, 4, "A")}),  # IOBES
        ("B-A I-A L-A B-A L-A U-B", {(0, 3, "A"), (3, 5, "A"), (5, 6, "B")}),  # BILOU
        ("E-A I-A", {(0, 1, "A"), (1, 2, "A")}),
        ("B I O B", {(0, 2, ""), (3, 4, "")}),  # one kind of entity, without a name
        ("B-part-of I-part-of", {(0, 2, "part-of")}),
        ("O O", set()),
        ("", set()),
    ],
)
def test_where_entities_are(tags: str, expected: set[tuple[int, int, str]]) -> None:
    from xp.metric.tagging import entities

    assert entities(tags.split()) == expected


def test_entities_are_scored_as_by_seqeval() -> None:
    from seqeval.metrics import f1_score, precision_score, recall_score

    draw = random.Random(1)
    marks = ["O", "O", *(f"{mark}-{kind}" for mark in "BIES" for kind in ("PER", "LOC", "x-y"))]
    gold = [[draw.choice(marks) for _ in range(draw.randrange(1, 12))] for _ in range(400)]
    predictions = [[tag if draw.random() < 0.8 else draw.choice(marks) for tag in row] for row in gold]
    found = compute(["entity"], "tags", predictions, gold)
    assert found["entity_f1"] == pytest.approx(f1_score(gold, predictions))
    assert found["entity_precision"] == pytest.approx(precision_score(gold, predictions))
    assert found["entity_recall"] == pytest.approx(recall_score(gold, predictions))
    assert 0.3 < found["entity_f1"] < 0.9


def test_no_entities_anywhere_is_0() -> None:
    assert set(compute(["entity"], "tags", [["O"]], [["O"]]).values()) == {0.0}


def test_parts_of_speech_are_no_entities() -> None:
    gold, predictions = [["DET", "NOUN"], ["VERB"]], [["DET", "VERB"], ["VERB"]]
    with pytest.raises(UserError, match=r"the tag '\w+' does not say where .* choose word_accuracy or word_f1_macro"):
        compute(["entity"], "tags", predictions, gold)
    found = compute(["word_accuracy", "word_f1_macro"], "tags", predictions, gold)
    assert found == {"word_accuracy": pytest.approx(2 / 3), "word_f1_macro": pytest.approx((1 + 0 + 2 / 3) / 3)}


@pytest.mark.parametrize("name", ["entity", "word_accuracy", "word_f1_macro"])
def test_a_sentence_has_as_many_tags_as_words(name: str) -> None:
    with pytest.raises(ValueError, match="1 tags for 2 words"):
        compute([name], "tags", [["O"], ["O", "O"]], [["O", "O"], ["O"]])


def test_rouge_takes_the_nearest_reference_and_stems() -> None:
    found = compute(["rouge"], "text", ["the cats sat"], [["a dog", "the cat sat down"]])
    assert found["rouge1"] == pytest.approx(2 * 3 / (3 + 4))
    assert found["rouge2"] == pytest.approx(2 * 2 / (2 + 3))
    assert found["rougeL"] == found["rougeLsum"] == found["rouge1"]


def test_rouge_refuses_a_script_it_cannot_read() -> None:
    with pytest.raises(UserError, match="it reads a to z and digits only and finds none; choose chrf"):
        compute(["rouge"], "text", ["猫坐着"], [["猫坐着"]])
    assert compute(["chrf"], "text", ["猫坐着"], [["猫坐着"]])["chrf"] == pytest.approx(100)


def test_translations_are_scored_as_by_sacrebleu_with_unequal_numbers_of_references() -> None:
    import sacrebleu

    predictions = ["the cat sat on a mat today", "there is a small dog in here"]
    references = [["the cat sat on the mat today", "today a cat sat on a mat"], ["there is a dog in here"]]
    found = compute(["bleu", "chrf", "ter"], "text", predictions, references)
    streams = [[references[0][0], references[1][0]], [references[0][1], None]]
    assert found["bleu"] == pytest.approx(sacrebleu.corpus_bleu(predictions, streams).score)
    assert found["chrf"] == pytest.approx(sacrebleu.corpus_chrf(predictions, streams).score)
    assert found["ter"] == pytest.approx(sacrebleu.corpus_ter(predictions, streams).score)
    assert found["bleu"] > compute(["bleu"], "text", predictions, [row[:1] for row in references])["bleu"]


def test_exact_match_is_with_any_reference() -> None:
    assert compute(["exact_match"], "text", [" yes", "No", "maybe"], [["ja", "yes"], ["no"], ["maybe\n"]]) == {
        "exact_match": pytest.approx(2 / 3)
    }


def test_spoken_words_and_characters() -> None:
    found = compute(["wer", "cer"], "text", ["a b x", ""], [["a b c d"], ["e"]])
    assert found["wer"] == pytest.approx(3 / 5)
    assert found["cer"] == pytest.approx((3 + 1) / 8)
    assert compute(["wer", "cer"], "text", ["", "a"], [[""], ["a"]]) == {"wer": 0.0, "cer": 0.0}
    for name in ("wer", "cer"):
        with pytest.raises(UserError, match=f"metrics={name}: it takes one reference a row; row 1 .* has 2"):
            compute([name], "text", ["a", "b"], [["a"], ["b", "c"]])


def test_a_row_without_references_is_named() -> None:
    with pytest.raises(UserError, match="data: row 1 of the evaluation set has no reference text"):
        compute(["bleu"], "text", ["a", "b"], [["a"], []])


def test_answers_from_a_text() -> None:
    def squad(answer: str, *right: str) -> tuple[float, float]:
        predictions = [{"id": "7", "prediction_text": answer, "no_answer_probability": 0.0}]
        references = [{"id": "7", "answers": {"text": list(right), "answer_start": [0] * len(right)}}]
        found = compute(["squad"], "answer", predictions, references)
        return found["exact_match"], found["f1"]

    assert squad("The  Cat!", "cat") == (100, 100)
    assert squad("black cat", "dog", "the cat") == (0, pytest.approx(200 / 3))
    assert squad("cat cat", "cat") == (0, pytest.approx(200 / 3))
    assert squad("", "cat") == (0, 0)
    assert squad("") == (100, 100)
    assert squad("cat") == (0, 0)
    assert squad("", "the", "cat") == (0, 0)  # "the" is no answer to agree with
    assert squad("Tübingen", "tübingen") == (100, 100)


def test_an_answer_beside_another_question_is_an_error() -> None:
    (answer,), references = SAMPLES["answer"]
    with pytest.raises(ValueError, match="the answer to 2 stands beside the question 1"):
        compute(["squad"], "answer", [answer | {"id": "2"}], references)


@pytest.mark.parametrize(
    ("names", "form", "message"),
    [
        (["acuracy"], "class", r"task.metrics=acuracy: there is no such metric. Did you mean 'accuracy'\?"),
        (["seqeval"], "tags", r"There is: entity, word_accuracy, word_f1_macro. The hub's: imports=\[hub:seqeval\]"),
        (["bleu"], "class", "scores answers of the form text; this task's are class. These do: accuracy, balanced"),
        (["accuracy"], "classes", "scores answers of the form class; .* These do: .*exact_match_ratio"),
        (["accuracy", "accuracy"], "class", "it is named twice, for accuracy; leave one out"),
    ],
)
def test_a_wrong_name_is_told(names: list[str], form: str, message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        check(names, form)
    assert "\n" not in str(caught.value)
    with pytest.raises(UserError, match=message):
        compute(names, form, *SAMPLES[form])


def test_a_package_that_is_missing_is_told_with_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    check(["wer"], "text")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(
        UserError, match="task.metrics=wer: it needs a package that is not installed; pip install jiwer"
    ):
        check(["wer"], "text")
    check(["bleu"], "text")


def test_values_come_in_order() -> None:
    assert values(["squad", "entity"]) == ("exact_match", "f1", "entity_f1", "entity_precision", "entity_recall")
    assert values([]) == ()


@pytest.mark.parametrize(
    "value",
    [
        "loss",
        "eval/loss",
        "perplexity",
        "bits_per_byte",
        "mean_squared_error",
        "error_rate",
        "ter",
        "wer",
        "eval/cer",
        "hamming_loss",
    ],
)
def test_the_smaller_is_better(value: str) -> None:
    assert better(value) == "min"


@pytest.mark.parametrize("value", ["accuracy", "eval/f1_macro", "r2", "bleu", "character_f1", "certainty", "glossary"])
def test_the_larger_is_better(value: str) -> None:
    assert better(value) == "max"


def test_unequal_numbers_of_answers_are_an_error() -> None:
    with pytest.raises(ValueError, match="2 predictions for 1 references"):
        compute(["accuracy"], "class", [1, 2], [1])


def test_a_metric_of_ones_own(registry: dict[str, metric.Entry]) -> None:
    from xp.metric.base import Metric

    class Off(Metric, name="off_by", takes=("class", "number"), gives=("off_by", "most_off"), better="min"):
        """How far off."""

        def score(self, predictions: list[float], references: list[float]) -> dict[str, float]:
            off = [abs(a - b) for a, b in zip(predictions, references, strict=True)]
            return {"off_by": sum(off) / len(off), "most_off": max(off)}

    assert compute(["accuracy", "off_by"], "class", [1, 5], [1, 1]) == {"accuracy": 0.5, "off_by": 2.0, "most_off": 4.0}
    assert values(["off_by"]) == ("off_by", "most_off")
    assert better("eval/most_off") == "min"
    assert Off("class").description == "How far off."
    with pytest.raises(UserError, match="Did you mean 'off_by'"):
        check(["of_by"], "number")
    with pytest.raises(UserError, match="scores answers of the form class or number"):
        check(["off_by"], "text")
    with pytest.raises(TypeError, match="'off_by' is a metric already"):
        type(Metric)("Again", (Metric,), {}, name="off_by", takes=("class",), gives=("off_by",))


@pytest.mark.parametrize(
    ("said", "message"),
    [
        ({"name": "accuracy", "takes": ("class",), "gives": ("accuracy",)}, "'accuracy' is a metric already"),
        ({"name": "rouge"}, "must say what it takes and gives"),
        ({"name": "mine", "takes": ("class",)}, "must say what it takes and gives"),
        ({"name": "mine", "takes": ("class",), "gives": "mine"}, "must say what it takes and gives, as tuples"),
        ({"name": "mine", "takes": ("label",), "gives": ("mine",)}, "it must be some of class, classes, number"),
        ({"name": "mine", "gives": ("mine",)}, "it must be some of class, classes, number"),
    ],
)
def test_a_metric_must_have_a_name_of_its_own_and_say_what_it_does(said: dict[str, Any], message: str) -> None:
    from xp.metric.base import Metric

    before = dict(METRICS)
    with pytest.raises(TypeError, match=message):
        type(Metric)("Mine", (Metric,), {}, **said)
    assert before == METRICS


def folder(where: Path, name: str, features: str, result: str) -> str:
    """A metric as the hub keeps them: a folder with a script."""
    (where / name).mkdir()
    (where / name / f"{name}.py").write_text(
        textwrap.dedent(f"""
        import datasets
        import evaluate

        class Score(evaluate.Metric):
            def _info(self):
                return evaluate.MetricInfo(
                    description="", citation="", features=datasets.Features({features})
                )

            def _compute(self, predictions, references, sources=None):
                return {result}
        """)
    )
    return str(where / name)


VALUE = "datasets.Value('string')"


@pytest.fixture(scope="module")
def modules(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder for what evaluate copies and keeps, which otherwise is in the home."""
    import evaluate.config
    import evaluate.loading

    where = tmp_path_factory.mktemp("evaluate")
    (where / "modules").mkdir()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(evaluate.config, "HF_METRICS_CACHE", str(where / "data"))
        patch.setattr(evaluate.loading, "init_hf_modules", lambda given=None: str(where / "modules"))
        patch.syspath_prepend(str(where / "modules"))
        yield where


@pytest.mark.usefixtures("registry")
def test_a_metric_of_the_hub_gives_its_numbers(modules: Path) -> None:
    kinds = "{'predictions': datasets.Value('int64'), 'references': datasets.Value('int64')}"
    result = "{'half': len(predictions) / 2, 'tenth': __import__('numpy').float32(0.5), 'all': predictions, 'say': 'x'}"
    source = folder(modules, "halved", kinds, result)
    metric.load_imported(source)
    assert values(["accuracy", "halved"]) == ("accuracy", "halved")
    assert compute(["halved", "accuracy"], "class", [1, 2, 3], [1, 2, 4]) == {
        "half": 1.5, "tenth": 0.5, "accuracy": pytest.approx(2 / 3)}  # fmt: skip
    metric.load_imported(source)  # As a worker does that is told the imports again.
    assert compute(["halved"], "class", [1], [1])["half"] == 0.5
    with pytest.raises(UserError, match="task.metrics=halved: it cannot score this task's answers, of the form text"):
        compute(["halved"], "text", *SAMPLES["text"])
    assert compute(["halved"], "class", [1], [1])["half"] == 0.5  # Nothing of the failed answers is left.


@pytest.mark.usefixtures("registry")
def test_a_metric_of_the_hub_that_wants_one_reference_gets_one(modules: Path) -> None:
    kinds = f"{{'predictions': {VALUE}, 'references': {VALUE}, 'sources': {VALUE}}}"
    metric.load_imported(folder(modules, "alike", kinds, "{'same': float(predictions == references == sources)}"))
    with pytest.raises(UserError, match="task.metrics=alike: it needs sources; this task has predictions, references"):
        compute(["alike"], "text", ["a"], [["a"]])
    assert compute(["alike"], "text", ["a"], [["a"]], sources=["a"], unread=[1]) == {"alike": 1.0}
    with pytest.raises(UserError, match="it takes one reference a row; row 0 of the evaluation set has 2"):
        compute(["alike"], "text", ["a"], [["a", "b"]], sources=["a"])


@pytest.mark.usefixtures("registry")
def test_a_metric_of_the_hub_gets_the_fields_it_names(modules: Path) -> None:
    kinds = f"{{'predictions': {{'id': {VALUE}, 'prediction_text': {VALUE}}}, 'references': {{'id': {VALUE}}}}}"
    metric.load_imported(folder(modules, "answered", kinds, "{'many': len(predictions), 'keys': len(predictions[0])}"))
    assert compute(["answered"], "answer", *SAMPLES["answer"]) == {"many": 1.0, "keys": 2.0}


@pytest.mark.usefixtures("registry")
def test_a_metric_of_the_hub_without_a_number_is_refused(modules: Path) -> None:
    kinds = "{'predictions': datasets.Value('int64'), 'references': datasets.Value('int64')}"
    metric.load_imported(folder(modules, "listed", kinds, "{'all': predictions}"))
    with pytest.raises(UserError, match="task.metrics=listed: it gave no number"):
        compute(["listed"], "class", [1], [1])


@pytest.mark.usefixtures("registry")
def test_an_import_that_cannot_be_is_one_line(modules: Path) -> None:
    with pytest.raises(UserError, match="imports=hub:.*/nowhere: it is neither on the hub.*holds nowhere.py"):
        metric.load_imported(str(modules / "nowhere"))
    with pytest.raises(UserError, match="imports=hub:.*/bleu: there is a metric 'bleu' already"):
        metric.load_imported(str(modules / "bleu"))
    broken = folder(modules, "broken", "{", "{}")
    with pytest.raises(UserError, match="imports=hub:.*/broken: it cannot be loaded") as caught:
        metric.load_imported(broken)
    assert "\n" not in str(caught.value)


def test_metrics_touch_neither_network_nor_home_nor_the_current_folder(tmp_path: Path) -> None:
    """In a process of its own, whose sockets raise and whose home and current folder are empty."""
    script = f"""
import socket, sys
def refused(*arguments, **more):
    raise AssertionError(f"the network: {{arguments}}")
socket.socket.connect = socket.socket.connect_ex = socket.getaddrinfo = refused
sys.path.insert(0, {str(ROOT / "tests")!r})
from test_metric import SAMPLES
from xp.metric import METRICS, compute
for name, entry in METRICS.items():
    for form in entry.takes:
        compute([name], form, *SAMPLES[form])
"""
    home, current = tmp_path / "home", tmp_path / "current"
    home.mkdir()
    current.mkdir()
    environment = {"HOME": str(home), "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "PATH": "/usr/bin:/bin"}
    ended = subprocess.run(
        [sys.executable, "-c", script], cwd=current, env=environment, capture_output=True, text=True, check=False
    )
    assert ended.returncode == 0, ended.stderr
    assert [file for folder in (home, current) for file in folder.rglob("*")] == []


def test_the_registry_is_known_without_the_libraries() -> None:
    script = "import sys, xp.metric as m; m.check(['rouge'], 'text'); m.values(['rouge']); m.better('loss'); " + (
        "print({'evaluate', 'datasets', 'numpy', 'sklearn'} & set(sys.modules))"
    )
    ended = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
    assert ended.stdout.strip() == "set()"
