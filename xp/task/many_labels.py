"""Any of several labels for a row."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from xp import metric
from xp.error import UserError, nearest
from xp.findings import Findings, confusion, worst
from xp.task.base import objects
from xp.task.classification import class_config

if TYPE_CHECKING:
    import numpy as np
    from datasets import Dataset
    from torch import Tensor

NONE = "(none)"
"""In the confusion matrix: what a label was taken for that was left out, and what was there where one was made up."""


class ManyLabels:
    """Any of several labels, each by itself: binary cross-entropy, as a mean over the labels of a row."""

    form: ClassVar[str] = "classes"
    kind: ClassVar[str] = "multi_label_classification"
    yaml: ClassVar[str] = "multi_label_classification"
    type: ClassVar[Any] = ("int8",)

    def __init__(self, given: Sequence[str] | None) -> None:
        self.given = given
        """The setting ``task.labels``."""

    def names(self, rows: Dataset) -> list[str]:
        """Those of a list of ``ClassLabel``, else the sorted distinct values of all lists."""
        names = _inner_names(rows)
        if names is not None:
            return names
        if not len(rows):  # A stream, of which nothing is read yet.
            return []
        values = {value for row in rows["label"] for value in row}
        lengths = {len(row) for row in rows["label"]}
        if values <= {0, 1} and len(lengths) == 1 and max(lengths) > 1:
            raise UserError(
                f"task.labels=null: every row holds {max(lengths)} numbers that are 0 or 1, and no names; "
                f"name them in their order: task.labels=[{','.join('abcdefgh'[: max(lengths)])}]"
            )
        if not values:
            raise UserError("data.columns.label: no row has a label, so there is nothing to learn")
        return [str(value) for value in sorted(values)]

    def config(self, labels: Sequence[str]) -> dict[str, Any]:
        """Number and names of the labels."""
        return class_config(labels) | {"problem_type": self.kind}

    def fault(self, row: dict[str, Any]) -> str | None:
        """A list that is missing, or with something missing in it; an empty list is fine."""
        if not isinstance(row["label"], list):
            return f"label: {row['label']!r} is not a list of labels"
        wrong = [value for value in row["label"] if value is None or isinstance(value, float | list | dict)]
        return f"label: {wrong[0]!r} is not a label" if wrong else None

    def targets(self, rows: Dataset, labels: Sequence[str]) -> Callable[[Any], list[int]]:
        """1 for each of the model's labels that the row has, 0 for the others."""
        names = _inner_names(rows)
        if names is None and self.given is not None and list(self.given) == list(labels):
            width = len(labels)
            if width > 1 and all(len(row) == width and set(row) <= {0, 1} for row in rows["label"]):
                return list  # One 0 or 1 for each label, as columns of 0 and 1 are put together.
        ids = {name: number for number, name in enumerate(labels)}
        found: dict[Any, int] = {}
        for value in {value for row in rows["label"] for value in row}:
            name = names[value] if names and value >= 0 else str(value)
            if name not in ids:
                raise UserError(f"data: the label {name!r} is not one the model has.{nearest(name, ids)}")
            found[value] = ids[name]

        def encoded(row: list[Any]) -> list[int]:
            there = {found[value] for value in row}
            return [int(number in there) for number in range(len(labels))]

        return encoded

    def tensor(self, targets: Sequence[Any]) -> Tensor:
        """0.0 and 1.0, (rows, labels)."""
        import torch

        return torch.tensor(targets, dtype=torch.float32)

    def _losses(self, logits: Tensor, targets: Tensor) -> Tensor:
        from torch.nn.functional import binary_cross_entropy_with_logits

        return binary_cross_entropy_with_logits(logits.float(), targets, reduction="none").mean(-1)

    def loss(self, logits: Tensor, targets: Tensor, label_smoothing: float) -> Tensor:
        """Binary cross-entropy, the mean over the labels; smoothing draws 0 and 1 towards a half."""
        return self._losses(logits, targets * (1 - label_smoothing) + label_smoothing / 2).sum()

    def outcomes(self, logits: Tensor, targets: Tensor) -> dict[str, np.ndarray]:
        """The labels with a probability of more than a half, as 0 and 1."""
        chosen = (logits > 0).int().cpu().tolist()
        return {"loss": self._losses(logits, targets).cpu().numpy(), "prediction": objects(chosen)}

    def scores(self, names: Sequence[str], outcomes: dict[str, np.ndarray], rows: Dataset) -> dict[str, float]:
        """Metrics of sets of classes."""
        scores = metric.compute(names, self.form, outcomes["prediction"].tolist(), list(rows["label"]))
        return scores | {"loss": float(outcomes["loss"].mean())}

    def baseline(self, names: Sequence[str], rows: Dataset) -> dict[str, float]:
        """Always the most frequent set of labels, of those with a label where there are such."""
        gold = list(rows["label"])
        counts = Counter(tuple(row) for row in gold if any(row)) or Counter(map(tuple, gold))
        (most, _), *_ = counts.most_common(1)
        return metric.compute(names, self.form, [list(most)] * len(gold), gold)

    def findings(
        self, outcomes: dict[str, np.ndarray], rows: Dataset, labels: Sequence[str], inputs: dict[str, list[Any]]
    ) -> Findings:
        """Hits, misses and false alarms of each label, as a matrix and a table, and the rows with the highest loss."""
        gold, predicted = list(rows["label"]), outcomes["prediction"].tolist()
        none = len(labels)
        pairs = [
            (number if truth else none, number if guess else none)
            for truths, guesses in zip(gold, predicted, strict=True)
            for number, (truth, guess) in enumerate(zip(truths, guesses, strict=True))
            if truth or guess
        ]
        table: dict[str, list[Any]] = {
            name: [] for name in ("label", "precision", "recall", "f1", "support", "predicted")
        }
        for number, label in enumerate(labels):
            hits = pairs.count((number, number))
            true, guessed = hits + pairs.count((number, none)), hits + pairs.count((none, number))
            shares = (hits / max(guessed, 1), hits / max(true, 1), 2 * hits / max(true + guessed, 1))
            values = (label, *(round(share, 4) for share in shares), true, guessed)
            for name, value in zip(table, values, strict=True):
                table[name].append(value)

        def names(sets: list[list[int]]) -> list[str]:
            return [", ".join(label for label, there in zip(labels, row, strict=True) if there) for row in sets]

        columns = inputs | {"label": names(gold), "prediction": names(predicted)}
        tables = {"classes": table, "worst": worst(outcomes["loss"].tolist(), columns)}
        if not pairs:
            return Findings(tables)
        truths, guesses = [truth for truth, _ in pairs], [guess for _, guess in pairs]
        return Findings(tables, {"confusion": lambda: confusion(truths, guesses, [*labels, NONE])})


def _inner_names(rows: Dataset) -> list[str] | None:
    """Names of the class labels in a column of lists of them."""
    names = getattr(getattr(rows.features["label"], "feature", None), "names", None)
    return None if names is None else list(names)
