"""What a label column asks for, and the loss and scores that go with it: here, one label out of several."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

from xp.task.classification import (
    class_baseline,
    class_config,
    class_fault,
    class_findings,
    class_ids,
    class_loss,
    class_names,
    class_outcomes,
    class_scores,
)

if TYPE_CHECKING:
    import numpy as np
    from datasets import Dataset
    from torch import Tensor

    from xp.findings import Findings


class Problem(Protocol):
    """What differs between the kinds of label columns."""

    form: ClassVar[str]
    """Form of the answers, as `xp.metric` knows it."""

    kind: ClassVar[str]
    """The ``problem_type`` of a model's config: by it transformers picks the loss, and its pipeline the function."""

    yaml: ClassVar[str]
    """The choice of ``conf/task/`` whose metrics fit."""

    type: ClassVar[Any]
    """Type of the encoded label column, as `xp.task.base.mapped` takes it."""

    def names(self, rows: Dataset) -> list[str]:
        """Names of the labels in the order of their ids."""

    def config(self, labels: Sequence[str]) -> dict[str, Any]:
        """What the model's config must say."""

    def fault(self, row: dict[str, Any]) -> str | None:
        """Why a raw row's label cannot be used; None if it can."""

    def targets(self, rows: Dataset, labels: Sequence[str]) -> Callable[[Any], Any]:
        """From a raw label to an encoded one. Raises a UserError for labels that the model does not have."""

    def tensor(self, targets: Sequence[Any]) -> Tensor:
        """Encoded labels as the loss takes them, (rows, ...)."""

    def loss(self, logits: Tensor, targets: Tensor, label_smoothing: float) -> Tensor:
        """Summed over the rows of ``logits`` (rows, labels)."""

    def outcomes(self, logits: Tensor, targets: Tensor) -> dict[str, np.ndarray]:
        """``loss`` and ``prediction`` of each row."""

    def scores(self, names: Sequence[str], outcomes: dict[str, np.ndarray], rows: Dataset) -> dict[str, float]:
        """The metrics called ``names``, and ``loss`` a row."""

    def baseline(self, names: Sequence[str], rows: Dataset) -> dict[str, float]:
        """The same metrics for the best answer that ignores the input."""

    def findings(
        self, outcomes: dict[str, np.ndarray], rows: Dataset, labels: Sequence[str], inputs: dict[str, list[Any]]
    ) -> Findings:
        """Which errors, in which classes, the worst of them; ``inputs`` shows a person what each row is."""


class OneLabel:
    """One label out of several, by cross-entropy."""

    form: ClassVar[str] = "class"
    kind: ClassVar[str] = "single_label_classification"
    yaml: ClassVar[str] = "text_classification"
    type: ClassVar[Any] = "int64"

    def names(self, rows: Dataset) -> list[str]:
        """The names of a ``ClassLabel``, else the sorted distinct values."""
        return class_names(rows, self.yaml)

    def config(self, labels: Sequence[str]) -> dict[str, Any]:
        """Number and names of the labels."""
        return class_config(labels) | {"problem_type": self.kind}

    def fault(self, row: dict[str, Any]) -> str | None:
        """A label that is missing, or no class."""
        if isinstance(row["label"], list | dict):
            return f"label: {row['label']!r} is not one label; task=multi_label_classification takes lists"
        return class_fault(row)

    def targets(self, rows: Dataset, labels: Sequence[str]) -> Callable[[Any], int]:
        """The class id."""
        return class_ids(rows, labels, self.yaml).__getitem__

    def tensor(self, targets: Sequence[Any]) -> Tensor:
        """Class ids, (rows,)."""
        import torch

        return torch.tensor(targets)

    def loss(self, logits: Tensor, targets: Tensor, label_smoothing: float) -> Tensor:
        """Cross-entropy."""
        return class_loss(logits, targets, label_smoothing)

    def outcomes(self, logits: Tensor, targets: Tensor) -> dict[str, np.ndarray]:
        """The likeliest class id."""
        return class_outcomes(logits, targets)

    def scores(self, names: Sequence[str], outcomes: dict[str, np.ndarray], rows: Dataset) -> dict[str, float]:
        """Metrics of classes."""
        return class_scores(names, outcomes, rows)

    def baseline(self, names: Sequence[str], rows: Dataset) -> dict[str, float]:
        """Always the most frequent class."""
        return class_baseline(names, rows)

    def findings(
        self, outcomes: dict[str, np.ndarray], rows: Dataset, labels: Sequence[str], inputs: dict[str, list[Any]]
    ) -> Findings:
        """Confusion matrix, each class's scores, and the rows with the highest loss."""
        return class_findings(outcomes, rows, labels, inputs)
