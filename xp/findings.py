"""What an evaluation shows beyond numbers: tables, and a picture of what is taken for what."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    from matplotlib.figure import Figure

Table = dict[str, list[Any]]
"""Columns of equal length, by name."""

LONGEST_TEXT = 300
"""Characters of a text that a table shows."""

MOST_LABELS = 30
"""Labels that a confusion matrix shows: more could not be read."""

LONGEST_NAME = 24
"""Characters of a label's name in a picture; tables have the whole name."""


@dataclass
class Findings:
    """Tables and pictures of one evaluation, by name."""

    tables: dict[str, Table] = field(default_factory=dict)
    """Columns of equal length; they become ``<name>.json``."""

    pictures: dict[str, Callable[[], Figure]] = field(default_factory=dict)
    """What draws each picture, called only where it is written; they become ``<name>.png``."""


def confusion(gold: Sequence[int], predicted: Sequence[int], labels: Sequence[str]) -> Figure:
    """The confusion matrix: a row for each right label, a column for each predicted one, shaded by share of the row.

    Of more than `MOST_LABELS` labels it shows those with the most errors, and its title says so.

    Args:
        gold: right class ids.
        predicted: predicted class ids.
        labels: the labels' names, by class id.
    """
    import numpy as np

    counts = np.zeros((len(labels), len(labels)), dtype=np.int64)
    np.add.at(counts, (np.asarray(gold), np.asarray(predicted)), 1)
    errors = counts.copy()
    np.fill_diagonal(errors, 0)
    title = f"{errors.sum():,} of {counts.sum():,} wrong"
    shown = np.arange(len(labels))
    if len(labels) > MOST_LABELS:
        worst = np.argsort(-(errors.sum(0) + errors.sum(1)), kind="stable")[:MOST_LABELS]
        shown = np.sort(worst)
        inside = errors[np.ix_(shown, shown)].sum()
        title += (
            f"\nonly the {MOST_LABELS} of {len(labels)} labels with the most errors;"
            f" {inside:,} of the errors lie between them"
        )
    rows = np.maximum(counts.sum(1), 1)[shown]
    return _matrix(counts[np.ix_(shown, shown)], rows, [short(labels[number]) for number in shown.tolist()], title)


def _matrix(counts: np.ndarray, rows: np.ndarray, names: list[str], title: str) -> Figure:
    """Draws ``counts`` (n, n), shaded by their share of ``rows`` (n,)."""
    from matplotlib.colors import PowerNorm
    from matplotlib.figure import Figure  # Not pyplot: that keeps every figure and looks for a display.

    many = len(names)
    side = max(3.5, 0.5 * many if many <= 20 else 0.35 * many)
    margin = 0.08 * max(map(len, names)) + 0.7
    figure = Figure(figsize=(side + margin + 1, side + margin + 0.6), dpi=120, layout="constrained")
    axes = figure.add_subplot()
    shares = counts / rows[:, None]
    # The square root: an error that takes a twentieth of its row must be seen beside a diagonal near 1.
    image = axes.imshow(shares, cmap="Blues", norm=PowerNorm(0.5, vmin=0, vmax=1))
    # parse_math: a dollar sign in a name would be read as a formula.
    axes.set_xticks(range(many), names, rotation=90, fontsize=8, parse_math=False)
    axes.set_yticks(range(many), names, fontsize=8, parse_math=False)
    axes.set_xlabel("predicted label")
    axes.set_ylabel("right label")
    axes.set_title(title, fontsize=9, parse_math=False)
    figure.colorbar(image, ax=axes, shrink=0.7, label="share of the row")
    for row, column in zip(*counts.nonzero(), strict=True):
        count = int(counts[row, column])
        colour = "white" if shares[row, column] > 0.3 else "black"
        size = 8 if many <= 20 and count < 10_000 else 6
        axes.text(column, row, str(count), ha="center", va="center", color=colour, fontsize=size)
    return figure


def short(name: str) -> str:
    """A name on one line, of at most `LONGEST_NAME` characters: its middle gives way, so that both ends tell."""
    line = " ".join(name.split())
    if len(line) <= LONGEST_NAME:
        return line
    kept = LONGEST_NAME - 1
    return f"{line[: kept - kept // 2]}…{line[-(kept // 2) :]}"


def per_class(gold: Sequence[int], predicted: Sequence[int], labels: Sequence[str]) -> Table:
    """A row for each label: ``label``, ``precision``, ``recall``, ``f1``, ``support`` (its rows), ``predicted``.

    To four places. What has no cases counts as 0, as in the macro averages.

    Args:
        gold: right class ids.
        predicted: predicted class ids.
        labels: the labels' names, by class id.
    """
    import numpy as np

    truth, guess = np.asarray(gold), np.asarray(predicted)
    support = np.bincount(truth, minlength=len(labels))
    chosen = np.bincount(guess, minlength=len(labels))
    right = np.bincount(truth[truth == guess], minlength=len(labels))
    return {
        "label": list(labels),
        "precision": (right / np.maximum(chosen, 1)).round(4).tolist(),
        "recall": (right / np.maximum(support, 1)).round(4).tolist(),
        "f1": (2 * right / np.maximum(support + chosen, 1)).round(4).tolist(),
        "support": support.tolist(),
        "predicted": chosen.tolist(),
    }


def worst(losses: Sequence[float], columns: Table, most: int = 50) -> Table:
    """The rows with the highest losses, the worst first: ``row`` (its number in the evaluation set), ``loss``, columns.

    Args:
        losses: one a row; one that is not a number is the worst.
        columns: more to show of every row, as many values as losses; long texts are cut.
        most: how many rows.
    """
    key = [math.inf if math.isnan(loss) else float(loss) for loss in losses]
    order = sorted(range(len(key)), key=lambda row: -key[row])[:most]
    table: Table = {"row": order, "loss": [round(float(losses[row]), 4) for row in order]}
    for name, column in columns.items():
        if name in table or len(column) != len(losses):
            raise ValueError(f"the column {name!r} has {len(column)} values for {len(losses)} losses, or a taken name")
        table[name] = [cut(column[row]) for row in order]
    return table


def cut(value: Any) -> Any:
    """A value for a table: numbers as they are, all else as text of `LONGEST_TEXT` characters, marked where cut."""
    plain = value.item() if hasattr(value, "item") and getattr(value, "ndim", 0) == 0 else value
    if plain is None or isinstance(plain, (bool, int, float)):
        return plain
    text = plain if isinstance(plain, str) else json.dumps(plain, ensure_ascii=False, default=str)
    more = len(text) - LONGEST_TEXT
    return text if more <= 0 else f"{text[:LONGEST_TEXT]}… ({more:,} more characters)"


def split(table: Table) -> str:
    """A table as the JSON that MLflow shows as one: ``{"columns": [...], "data": [[...], ...]}``, a list a row.

    Numbers that JSON cannot say (nan, inf) become null.

    Raises:
        ValueError: the columns are not of equal length.
    """
    data = [[_plain(value) for value in row] for row in zip(*table.values(), strict=True)]
    return json.dumps({"columns": list(table), "data": data}, ensure_ascii=False, allow_nan=False)


def _plain(value: Any) -> Any:
    plain = value.item() if hasattr(value, "item") else value
    return None if isinstance(plain, float) and not math.isfinite(plain) else plain


def write(findings: Findings, folder: Path) -> None:
    """Each table as ``<folder>/<name>.json`` and each picture as ``<folder>/<name>.png``; the folder is made."""
    import warnings

    folder.mkdir(parents=True, exist_ok=True)
    for name, table in findings.tables.items():
        (folder / f"{name}.json").write_text(split(table), encoding="utf-8")
    for name, draw in findings.pictures.items():
        with warnings.catch_warnings():
            # Of scripts that matplotlib's own font lacks, a picture shows boxes; the tables have the names.
            warnings.filterwarnings("ignore", r"Glyph .* missing from font")
            draw().savefig(folder / f"{name}.png")
