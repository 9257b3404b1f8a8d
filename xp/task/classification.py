"""What tasks share that choose one label out of several: classes, their ids, loss, outcomes, scores, findings."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import BeforeValidator

from xp import metric
from xp.error import UserError, nearest
from xp.findings import Findings, confusion, per_class, worst

if TYPE_CHECKING:
    import numpy as np
    from datasets import Dataset
    from torch import Tensor


def _texts(labels: Any) -> Any:
    """Whole numbers as texts, which is what a column of numbers has for names."""
    whole = isinstance(labels, list)
    return [str(name) if type(name) is int else name for name in labels] if whole else labels


LabelNames = Annotated[list[str], BeforeValidator(_texts)]
"""Names of labels as a person gives them: ``[no, yes]`` or ``[0, 1]``."""


def class_names(rows: Dataset, task: str) -> list[str]:
    """The classes of the label column: the names of a ``ClassLabel``, else the sorted distinct values.

    Args:
        rows: with a column ``label``.
        task: the task's name, for messages.

    Raises:
        UserError: rows without a label, or labels that are no classes.
    """
    feature = rows.features["label"]
    if hasattr(feature, "names"):
        return list(feature.names)
    return [str(value) for value in sorted(_values(rows, task))]


def class_ids(rows: Dataset, labels: Sequence[str], task: str) -> dict[Any, int]:
    """The class id of each distinct value of the label column.

    Args:
        rows: with a column ``label``.
        labels: names of the classes in the order of their ids, as the model has them.
        task: the task's name, for messages.

    Raises:
        UserError: a label that is not among ``labels`` (says the nearest), and what `class_names` refuses.
    """
    names = getattr(rows.features["label"], "names", None)
    ids = {name: number for number, name in enumerate(labels)}
    found = {}
    for value in _values(rows, task):
        name = names[value] if names else str(value)
        if name not in ids:
            raise UserError(f"data: the label {name!r} is not one the model has.{nearest(name, ids)}")
        found[value] = ids[name]
    return found


def _values(rows: Dataset, task: str) -> list[Any]:
    """The distinct values of the label column, each of them a class."""
    feature = rows.features["label"]
    kind = getattr(feature, "dtype", None)
    if kind is None or kind.startswith(("float", "double", "list", "struct")):
        raise UserError(f"data.columns.label: it holds {kind or 'lists'}; task={task} needs one class a row")
    values = rows.unique("label")
    missing = {None, ""} | ({-1} if hasattr(feature, "names") else set())  # -1 is the hub's "no label".
    if not missing.isdisjoint(values):
        count = sum(value in missing for value in rows["label"])
        raise UserError(f"data: {count} of {len(rows)} rows have no label; remove them or choose another split")
    return list(values)


def class_config(labels: Sequence[str]) -> dict[str, Any]:
    """Number and names of the labels, as a model's config takes them."""
    names = dict(enumerate(labels))
    return {"id2label": names, "label2id": {name: number for number, name in names.items()}}


def class_fault(row: dict[str, Any]) -> str | None:
    """Why a row's label cannot be used; None if it can."""
    return "label: is missing" if row["label"] is None or row["label"] == "" else None


def class_loss(logits: Tensor, labels: Tensor, label_smoothing: float) -> Tensor:
    """Cross-entropy of ``logits`` (rows, classes), summed over the rows."""
    from torch.nn.functional import cross_entropy

    return cross_entropy(logits.float(), labels, reduction="sum", label_smoothing=label_smoothing)


def class_outcomes(logits: Tensor, labels: Tensor) -> dict[str, np.ndarray]:
    """``loss`` and ``prediction``, the likeliest class id, of each row of ``logits`` (rows, classes)."""
    from torch.nn.functional import cross_entropy

    loss = cross_entropy(logits.float(), labels, reduction="none")
    return {"loss": loss.cpu().numpy(), "prediction": logits.argmax(-1).cpu().numpy()}


def class_scores(names: Sequence[str], outcomes: dict[str, np.ndarray], rows: Dataset) -> dict[str, float]:
    """The metrics called ``names``, and ``loss`` a row, of encoded ``rows``."""
    scores = metric.compute(names, "class", outcomes["prediction"].tolist(), list(rows["label"]))
    return scores | {"loss": float(outcomes["loss"].mean())}


def class_baseline(names: Sequence[str], rows: Dataset) -> dict[str, float]:
    """What the metrics called ``names`` say of always answering the most frequent class of encoded ``rows``."""
    (majority, _), *_ = Counter(rows["label"]).most_common(1)
    return metric.compute(names, "class", [majority] * len(rows), list(rows["label"]))


def class_findings(
    outcomes: dict[str, np.ndarray],
    rows: Dataset,
    labels: Sequence[str],
    inputs: dict[str, list[Any]],
    pictures: dict[str, Callable[[], Any]] | None = None,
) -> Findings:
    """Confusion matrix, each class's scores, and the rows with the highest loss.

    Args:
        outcomes: as `class_outcomes` gives them, for all of ``rows``.
        rows: the encoded rows.
        labels: names of the classes.
        inputs: columns that show a person what each row is.
        pictures: more pictures.
    """
    gold, predicted = list(rows["label"]), outcomes["prediction"].tolist()
    columns = inputs | {
        "label": [labels[number] for number in gold],
        "prediction": [labels[number] for number in predicted],
    }
    return Findings(
        tables={"classes": per_class(gold, predicted, labels), "worst": worst(outcomes["loss"].tolist(), columns)},
        pictures={"confusion": lambda: confusion(gold, predicted, labels)} | (pictures or {}),
    )
