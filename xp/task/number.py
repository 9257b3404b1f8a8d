"""A number for a row."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from xp import metric
from xp.error import UserError
from xp.findings import Findings, worst

if TYPE_CHECKING:
    import numpy as np
    from datasets import Dataset
    from torch import Tensor


class Number:
    """A number, by its squared error."""

    form: ClassVar[str] = "number"
    kind: ClassVar[str] = "regression"
    yaml: ClassVar[str] = "text_regression"
    type: ClassVar[Any] = "float32"

    def names(self, rows: Dataset) -> list[str]:
        """None: a number has no names."""
        return []

    def config(self, labels: Sequence[str]) -> dict[str, Any]:
        """One output."""
        return {"num_labels": 1, "problem_type": self.kind}

    def fault(self, row: dict[str, Any]) -> str | None:
        """What is not a finite number, nor the text of one: a csv column with one ``n/a`` in it is all text."""
        value = row["label"]
        if value is None or value == "":
            return "label: is missing"
        text = isinstance(value, str) and re.fullmatch(r"\s*[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?\s*", value)
        number = text or (isinstance(value, int | float) and not isinstance(value, bool))
        return None if number and math.isfinite(float(value)) else f"label: {value!r} is not a finite number"

    def targets(self, rows: Dataset, labels: Sequence[str]) -> Callable[[Any], float]:
        """The number itself."""
        kind = str(getattr(rows.features["label"], "dtype", "lists"))
        if not kind.startswith(("float", "double", "int", "uint", "string", "large_string")):
            raise UserError(f"data.columns.label: it holds {kind}; task.problem=regression needs a number a row")
        return float

    def tensor(self, targets: Sequence[Any]) -> Tensor:
        """(rows,)."""
        import torch

        return torch.tensor(targets, dtype=torch.float32)

    def loss(self, logits: Tensor, targets: Tensor, label_smoothing: float) -> Tensor:
        """Squared error."""
        if label_smoothing:
            raise UserError(
                f"training.label_smoothing={label_smoothing:g}: a number has no classes to spread over; set it to 0"
            )
        return (logits.float().squeeze(-1) - targets).square().sum()

    def outcomes(self, logits: Tensor, targets: Tensor) -> dict[str, np.ndarray]:
        """The number, and its squared error as loss."""
        prediction = logits.float().squeeze(-1)
        return {"loss": (prediction - targets).square().cpu().numpy(), "prediction": prediction.cpu().numpy()}

    def scores(self, names: Sequence[str], outcomes: dict[str, np.ndarray], rows: Dataset) -> dict[str, float]:
        """Metrics of numbers."""
        scores = metric.compute(names, self.form, outcomes["prediction"].tolist(), list(rows["label"]))
        return scores | {"loss": float(outcomes["loss"].mean())}

    def baseline(self, names: Sequence[str], rows: Dataset) -> dict[str, float]:
        """Always the mean."""
        gold = list(rows["label"])
        return metric.compute(names, self.form, [math.fsum(gold) / len(gold)] * len(gold), gold)

    def findings(
        self, outcomes: dict[str, np.ndarray], rows: Dataset, labels: Sequence[str], inputs: dict[str, list[Any]]
    ) -> Findings:
        """Numbers against predictions, and the rows with the largest error."""
        gold, predicted = list(rows["label"]), outcomes["prediction"].tolist()
        columns = inputs | {"label": gold, "prediction": predicted}

        def scatter() -> Any:
            from matplotlib.figure import Figure

            figure = Figure(figsize=(6, 6), layout="constrained")
            axes = figure.subplots()
            axes.scatter(gold, predicted, s=8, alpha=0.4)
            ends = [min(gold), max(gold)]
            axes.plot(ends, ends, linewidth=1, color="grey")
            axes.set(xlabel="label", ylabel="prediction")
            return figure

        return Findings(tables={"worst": worst(outcomes["loss"].tolist(), columns)}, pictures={"scatter": scatter})
