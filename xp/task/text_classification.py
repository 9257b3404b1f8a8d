"""Text classification: one label out of several for a text."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import PositiveInt

from xp.error import UserError, nearest
from xp.task.base import Encoded, Task, padded

if TYPE_CHECKING:
    import numpy as np
    from datasets import Dataset
    from torch import Tensor, nn
    from transformers import PreTrainedTokenizerBase


class TextClassification(Task, name="text_classification"):
    """Choose one of several labels for a text, by cross-entropy over the classes."""

    auto_class: ClassVar[str] = "AutoModelForSequenceClassification"
    peft_type: ClassVar[str] = "SEQ_CLS"
    columns: ClassVar[tuple[str, ...]] = ("text", "label")
    objective: ClassVar[str] = "accuracy"

    max_length: PositiveInt
    """Longest text, in tokens with the special ones."""

    overlong: Literal["truncate", "drop", "error"]
    """What becomes of a longer text; the count is always reported."""

    def labels(self, rows: Dataset) -> list[str]:
        """The label names: those of a ``ClassLabel`` column, else the sorted distinct values."""
        feature = rows.features["label"]
        if hasattr(feature, "names"):
            return list(feature.names)
        values = rows.unique("label")
        if None in values:
            raise UserError("data: the label column has empty cells; every row needs a label")
        if any(isinstance(value, float) for value in values):
            raise UserError("data.columns.label: its values are fractions; task=text_classification needs classes")
        return [str(value) for value in sorted(values)]

    def config(self, labels: Sequence[str]) -> dict[str, Any]:
        """Number and names of the labels."""
        names = dict(enumerate(labels))
        return {"id2label": names, "label2id": {name: number for number, name in names.items()}}

    def encode(self, rows: Dataset, tokenizer: PreTrainedTokenizerBase, labels: Sequence[str]) -> Encoded:
        """``input_ids`` with the tokenizer's special tokens, and ``label`` as a class id."""
        names = getattr(rows.features["label"], "names", None)
        ids = {name: number for number, name in enumerate(labels)}
        present = {value: names[value] if names else str(value) for value in rows.unique("label")}
        for name in present.values():
            if name not in ids:
                raise UserError(f"data: the label {name!r} is not one the model has.{nearest(name, ids)}")

        def features(batch: dict[str, list[Any]]) -> dict[str, list[Any]]:
            whole = tokenizer(batch["text"], truncation=False, verbose=False)["input_ids"]
            over = [len(tokens) > self.max_length for tokens in whole]
            cut = (
                tokenizer(batch["text"], truncation=True, max_length=self.max_length)["input_ids"] if any(over) else []
            )
            tokens = [cut[row] if long else whole[row] for row, long in enumerate(over)]
            return {
                "input_ids": tokens,
                "label": [ids[present[value]] for value in batch["label"]],
                "length": [len(row) for row in tokens],
                "items": [1] * len(tokens),
                "over": over,
            }

        # The label column changes its type from names to ids, so its old feature must not be kept.
        encoded = rows.map(features, batched=True, remove_columns=rows.column_names, keep_in_memory=True)
        count = sum(encoded["over"])
        if count and self.overlong == "error":
            raise UserError(
                f"task.overlong=error: {count} of {len(encoded)} texts have more than "
                f"task.max_length={self.max_length} tokens; raise it, or choose task.overlong=truncate or drop"
            )
        notes = {"rows": len(encoded), {"truncate": "truncated", "drop": "dropped"}.get(self.overlong, "over"): count}
        if count and self.overlong == "drop":
            encoded = encoded.filter(lambda over: [not value for value in over], input_columns="over", batched=True)
        return Encoded(encoded.remove_columns("over"), notes)

    def collate(self, sequences: Sequence[Sequence[dict[str, Any]]], pad: int) -> dict[str, Tensor]:
        """``input_ids`` and ``attention_mask`` (rows, longest), ``labels`` (rows,)."""
        import torch

        tokens = [row["input_ids"] for (row,) in sequences]
        return {
            "input_ids": padded(tokens, pad),
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

    def outcomes(self, network: nn.Module, batch: dict[str, Tensor]) -> dict[str, np.ndarray]:
        """``loss`` and the predicted class id of each row."""
        from torch.nn.functional import cross_entropy

        logits = self._logits(network, batch)
        loss = cross_entropy(logits, batch["labels"], reduction="none")
        return {"loss": loss.cpu().numpy(), "prediction": logits.argmax(-1).cpu().numpy()}

    def metrics(self, outcomes: dict[str, np.ndarray], rows: Dataset, labels: Sequence[str]) -> dict[str, float]:
        """Accuracy and macro F1 over the classes that occur; ``loss`` a row."""
        return {"loss": float(outcomes["loss"].mean())} | self._scores(outcomes["prediction"], rows)

    def baseline(self, rows: Dataset, labels: Sequence[str]) -> dict[str, float]:
        """Always the most frequent class of ``rows``."""
        (majority, _), *_ = Counter(rows["label"]).most_common(1)
        return self._scores([majority] * len(rows), rows)

    def _scores(self, predictions: Sequence[int] | np.ndarray, rows: Dataset) -> dict[str, float]:
        from sklearn.metrics import accuracy_score, f1_score

        gold = list(rows["label"])
        macro = f1_score(gold, predictions, average="macro", zero_division=0)
        return {"accuracy": float(accuracy_score(gold, predictions)), "f1_macro": float(macro)}
