"""Text classification: one label out of several for a text."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import PositiveInt

from xp import metric
from xp.error import UserError, nearest
from xp.findings import Findings, confusion, per_class, worst
from xp.task.base import Encoded, Trainable, mapped, padded, settled, text_fault

if TYPE_CHECKING:
    import numpy as np
    from datasets import Dataset
    from torch import Tensor, nn


class TextClassification(Trainable, name="text_classification"):
    """Choose one of several labels for a text, by cross-entropy over the classes."""

    auto_class: ClassVar[str] = "AutoModelForSequenceClassification"
    peft_type: ClassVar[str] = "SEQ_CLS"
    columns: ClassVar[tuple[str, ...]] = ("text", "label")
    label_columns: ClassVar[tuple[str, ...]] = ("label",)
    answers: ClassVar[str] = "class"
    pipeline: ClassVar[str] = "text-classification"
    takes: ClassVar[str] = "a text"
    gives: ClassVar[str] = "labels with their probabilities"

    max_length: PositiveInt
    """Longest text, in tokens with the special ones."""

    overlong: Literal["truncate", "drop", "error"]
    """What becomes of a longer text; the count is always reported."""

    @property
    def longest(self) -> int:
        """Longest text, in tokens."""
        return self.max_length

    def label_names(self, rows: Dataset) -> list[str]:
        """The label names: those of a ``ClassLabel`` column, else the sorted distinct values."""
        feature = rows.features["label"]
        if hasattr(feature, "names"):
            return list(feature.names)
        return [str(value) for value in sorted(self._values(rows))]

    def _values(self, rows: Dataset) -> list[Any]:
        """The distinct values of the label column, each of them a class."""
        feature = rows.features["label"]
        kind = getattr(feature, "dtype", None)
        if kind is None or kind.startswith(("float", "double", "list", "struct")):
            raise UserError(
                f"data.columns.label: it holds {kind or 'lists'}; task=text_classification needs one class a row"
            )
        values = rows.unique("label")
        missing = {None, ""} | ({-1} if hasattr(feature, "names") else set())  # -1 is the hub's "no label".
        if not missing.isdisjoint(values):
            count = sum(value in missing for value in rows["label"])
            raise UserError(f"data: {count} of {len(rows)} rows have no label; remove them or choose another split")
        return list(values)

    def config(self, labels: Sequence[str]) -> dict[str, Any]:
        """Number and names of the labels."""
        names = dict(enumerate(labels))
        return {"id2label": names, "label2id": {name: number for number, name in names.items()}}

    def fault(self, row: dict[str, Any]) -> str | None:
        """A text or a label that is missing, or is none."""
        return text_fault(row, "text") or ("label: is empty" if row["label"] in (None, "") else None)

    def encode(self, rows: Dataset, processor: Any, labels: Sequence[str]) -> Encoded:
        """``input_ids`` with the tokenizer's special tokens, and ``label`` as a class id."""
        names = getattr(rows.features["label"], "names", None)
        ids = {name: number for number, name in enumerate(labels)}
        present = {value: names[value] if names else str(value) for value in self._values(rows)}
        for name in present.values():
            if name not in ids:
                raise UserError(f"data: the label {name!r} is not one the model has.{nearest(name, ids)}")

        def features(batch: dict[str, list[Any]]) -> dict[str, list[Any]]:
            whole = processor(batch["text"], truncation=False, verbose=False)["input_ids"]
            # An empty text without special tokens would be no sequence at all: it is its end alone.
            whole = [tokens or [processor.eos_token_id or processor.pad_token_id] for tokens in whole]
            over = [len(tokens) > self.max_length for tokens in whole]
            cut = (
                processor(batch["text"], truncation=True, max_length=self.max_length)["input_ids"] if any(over) else []
            )
            tokens = [cut[row] if long else whole[row] for row, long in enumerate(over)]
            return {
                "input_ids": tokens,
                "label": [ids[present[value]] for value in batch["label"]],
                "length": [len(row) for row in tokens],
                "items": [1] * len(tokens),
                "over": over,
            }

        # Stated, because the label changes from a name to an id and datasets would keep the old column's type.
        types = {"input_ids": ["int32"], "label": "int64", "length": "int32", "items": "int32", "over": "bool"}
        return settled(mapped(rows, features, types), self.overlong, self.max_length, "texts")

    def collate(self, sequences: Sequence[Sequence[dict[str, Any]]], processor: Any) -> dict[str, Tensor]:
        """``input_ids`` and ``attention_mask`` (rows, longest), ``labels`` (rows,)."""
        import torch

        tokens = [row["input_ids"] for (row,) in sequences]
        return {
            "input_ids": padded(tokens, processor.pad_token_id),
            "attention_mask": padded([[1] * len(row) for row in tokens], 0),
            "labels": torch.tensor([row["label"] for (row,) in sequences]),
        }

    def _logits(self, network: nn.Module, batch: dict[str, Tensor]) -> Tensor:
        logits: Tensor = network(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits
        return logits.float()

    def loss(self, network: nn.Module, batch: dict[str, Tensor], label_smoothing: float) -> Tensor:
        """Cross-entropy, summed over the rows."""
        from torch.nn.functional import cross_entropy

        logits = self._logits(network, batch)
        return cross_entropy(logits, batch["labels"], reduction="sum", label_smoothing=label_smoothing)

    def outcomes(
        self, network: nn.Module, batch: dict[str, Tensor], processor: Any, generation: Any
    ) -> dict[str, np.ndarray]:
        """``loss`` and the predicted class id of each row."""
        from torch.nn.functional import cross_entropy

        logits = self._logits(network, batch)
        loss = cross_entropy(logits, batch["labels"], reduction="none")
        return {"loss": loss.cpu().numpy(), "prediction": logits.argmax(-1).cpu().numpy()}

    def score(self, outcomes: dict[str, np.ndarray], rows: Dataset, labels: Sequence[str]) -> dict[str, float]:
        """The metrics, and ``loss`` a row."""
        scores = metric.compute(self.metrics, self.answers, outcomes["prediction"].tolist(), list(rows["label"]))
        return scores | {"loss": float(outcomes["loss"].mean())}

    def baseline(self, rows: Dataset, labels: Sequence[str]) -> dict[str, float]:
        """Always the most frequent class of ``rows``."""
        (majority, _), *_ = Counter(rows["label"]).most_common(1)
        return metric.compute(self.metrics, self.answers, [majority] * len(rows), list(rows["label"]))

    def findings(
        self, outcomes: dict[str, np.ndarray], rows: Dataset, labels: Sequence[str], processor: Any
    ) -> Findings:
        """Confusion matrix, each class's scores, and the texts with the highest loss."""
        gold, predicted = list(rows["label"]), outcomes["prediction"].tolist()
        columns = {
            "text": processor.batch_decode(rows["input_ids"][:], skip_special_tokens=True),
            "label": [labels[number] for number in gold],
            "prediction": [labels[number] for number in predicted],
        }
        return Findings(
            tables={"classes": per_class(gold, predicted, labels), "worst": worst(outcomes["loss"].tolist(), columns)},
            pictures={"confusion": lambda: confusion(gold, predicted, labels)},
        )
