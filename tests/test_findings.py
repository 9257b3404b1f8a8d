"""What an evaluation shows beyond numbers: tables and pictures, small and large, with awkward names."""

from __future__ import annotations

import json
import math
import random
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import ROOT

from xp.findings import LONGEST_NAME, LONGEST_TEXT, Findings, confusion, cut, per_class, short, split, worst, write


def texts(figure: Any) -> list[str]:
    """The counts that a picture states, in the order of its cells."""
    return [text.get_text() for text in figure.axes[0].texts]


def test_a_confusion_matrix_has_right_labels_in_rows() -> None:
    figure = confusion([0, 0, 0, 1, 2], [0, 1, 1, 1, 0], ["a", "b", "c"])
    axes = figure.axes[0]
    np.testing.assert_allclose(axes.images[0].get_array(), [[1 / 3, 2 / 3, 0], [0, 1, 0], [1, 0, 0]])
    assert texts(figure) == ["1", "2", "1", "1"]
    assert (axes.get_ylabel(), axes.get_xlabel()) == ("right label", "predicted label")
    assert [tick.get_text() for tick in axes.get_yticklabels()] == ["a", "b", "c"]
    assert axes.get_title() == "3 of 5 wrong"


def test_of_many_labels_the_most_confused_are_shown_and_the_title_says_so() -> None:
    gold = [*range(150), *[140, 140, 7], *[40] * 9]
    predicted = [*range(150), *[7, 7, 140], *[90] * 9]
    axes = confusion(gold, predicted, [f"name {number}" for number in range(150)]).axes[0]
    names = [tick.get_text() for tick in axes.get_yticklabels()]
    assert len(names) == 30
    assert {"name 7", "name 40", "name 90", "name 140"} <= set(names)
    assert names == sorted(names, key=lambda name: int(name.split()[1]))
    assert axes.get_title().split("\n") == [
        "12 of 162 wrong",
        "only the 30 of 150 labels with the most errors; 12 of the errors lie between them",
    ]


def test_errors_with_labels_that_are_not_shown_are_counted_in_the_title_and_the_shades() -> None:
    """Label 0 is mistaken for each of 60 others: no more than 29 of them are in the picture."""
    gold, predicted = [0] * 60 + list(range(61)), list(range(1, 61)) + list(range(61))
    axes = confusion(gold, predicted, [str(number) for number in range(61)]).axes[0]
    assert axes.get_title().endswith("29 of the errors lie between them")
    np.testing.assert_allclose(axes.images[0].get_array()[0], [1 / 61] * 30)


@pytest.mark.parametrize("many", [2, 12, 30, 150])
def test_pictures_of_any_number_of_labels_are_written(many: int, tmp_path: Path) -> None:
    from PIL import Image

    draw = random.Random(0)
    gold, predicted = ([draw.randrange(many) for _ in range(300)] for _ in range(2))
    names = [rf"$\no$ 猫 {number} with a" "\nlong name that goes on" for number in range(many)]
    findings = Findings(pictures={"confusion": partial(confusion, gold, predicted, names)})
    write(findings, tmp_path / "deep/er")
    with Image.open(tmp_path / "deep/er/confusion.png") as picture:
        assert picture.format == "PNG"
        assert 300 < min(picture.size) <= max(picture.size) < 2000


def test_names_are_shortened_in_the_middle() -> None:
    name = short("organization.department.first\n.of.all")
    assert len(name) == LONGEST_NAME
    assert name.startswith("organizatio")
    assert name.endswith(".of.all")
    assert "…" in name
    assert short("two\n words") == "two words"


def test_a_label_that_never_occurs_has_a_row_of_noughts() -> None:
    table = per_class([0, 0, 1, 1], [0, 1, 1, 1], ["a", "b", "c"])
    assert table == {
        "label": ["a", "b", "c"],
        "precision": [1.0, 0.6667, 0.0],
        "recall": [0.5, 1.0, 0.0],
        "f1": [0.6667, 0.8, 0.0],
        "support": [2, 2, 0],
        "predicted": [1, 3, 0],
    }


def test_classes_are_scored_as_scikit_learn_does() -> None:
    from sklearn.metrics import precision_recall_fscore_support

    draw = random.Random(0)
    gold, predicted = ([draw.randrange(7) for _ in range(90)] for _ in range(2))
    table = per_class(np.array(gold), np.array(predicted), [str(number) for number in range(8)])
    expected = precision_recall_fscore_support(gold, predicted, labels=range(8), zero_division=0)
    for name, column in zip(("precision", "recall", "f1", "support"), expected, strict=True):
        np.testing.assert_allclose(table[name], column, atol=0.5e-4, rtol=0)


def test_the_worst_come_first() -> None:
    losses = np.array([0.5, 3.0, math.nan, 1.0, 3.0], dtype=np.float32)
    table = worst(losses, {"text": list("abcde"), "gold": np.arange(5)}, most=4)
    assert table["row"] == [2, 1, 4, 3]
    assert table["text"] == ["c", "b", "e", "d"]
    assert table["gold"] == [2, 1, 4, 3]
    assert table["loss"][1:] == [3.0, 3.0, 1.0]
    assert worst([1.0], {})["row"] == [0]


@pytest.mark.parametrize("columns", [{"text": ["a"]}, {"loss": ["a", "b"]}])
def test_columns_must_fit(columns: dict[str, list[Any]]) -> None:
    with pytest.raises(ValueError, match="the column"):
        worst([1.0, 2.0], columns)


def test_a_text_that_is_cut_says_so() -> None:
    whole = "x" * LONGEST_TEXT
    assert cut(whole) == whole
    assert cut(whole + "yz") == whole + "… (2 more characters)"
    assert cut(["B-PER", "ö"]) == '["B-PER", "ö"]'
    assert cut([whole]).endswith("… (4 more characters)")
    assert [cut(value) for value in (1, 0.5, None, True, np.float32(0.5), np.int64(3))] == [1, 0.5, None, True, 0.5, 3]


def test_tables_are_written_as_mlflow_reads_them(tmp_path: Path) -> None:
    import pandas

    table = {"name": ["ä", "b"], "value": [math.nan, 1.5], "count": [np.int64(1), 2]}
    write(Findings(tables={"things": table}), tmp_path)
    assert json.loads((tmp_path / "things.json").read_text("utf-8")) == {
        "columns": ["name", "value", "count"],
        "data": [["ä", None, 1], ["b", 1.5, 2]],
    }
    read = pandas.read_json(tmp_path / "things.json", orient="split")
    assert read["name"].tolist() == ["ä", "b"]
    assert read["count"].tolist() == [1, 2]


def test_columns_of_unequal_length_are_an_error() -> None:
    with pytest.raises(ValueError, match="shorter"):
        split({"a": [1, 2], "b": [1]})


def test_drawing_leaves_no_figures_behind_and_needs_no_display(tmp_path: Path) -> None:
    script = """
import sys
from pathlib import Path
from xp.findings import Findings, confusion, write
assert "matplotlib" not in sys.modules
write(Findings(pictures={"c": lambda: confusion([0, 1], [0, 0], ["a", "b"])}), Path(sys.argv[1]))
assert "matplotlib.pyplot" not in sys.modules
"""
    subprocess.run([sys.executable, "-W", "error", "-c", script, str(tmp_path)], cwd=ROOT, check=True)
    assert [file.name for file in tmp_path.iterdir()] == ["c.png"]
