"""Text classification: one label out of several for a text."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import PositiveInt

from xp.task.base import Encoded, Trainable, mapped, padded, settled
from xp.task.classification import (
    class_baseline,
    class_config,
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
    from torch import Tensor, nn

    from xp.findings import Findings


class TextClassification(Trainable, name="text_classification"):
    """Choose one of several labels for a text, by cross-entropy over the classes."""

    auto_class: ClassVar[str] = "AutoModelForSequenceClassification"
    peft_type: ClassVar[str] = "SEQ_CLS"
    columns: ClassVar[tuple[str, ...]] = ("text", "label")
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
        return class_names(rows, self.name)

    def config(self, labels: Sequence[str]) -> dict[str, Any]:
        """Number and names of the labels."""
        return class_config(labels)

    def encode(self, rows: Dataset, processor: Any, labels: Sequence[str]) -> Encoded:
        """``input_ids`` with the tokenizer's special tokens, and ``label`` as a class id."""
        ids = class_ids(rows, labels, self.name)

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
                "label": [ids[value] for value in batch["label"]],
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
        return logits

    def loss(self, network: nn.Module, batch: dict[str, Tensor], label_smoothing: float) -> Tensor:
        """Cross-entropy, summed over the rows."""
        return class_loss(self._logits(network, batch), batch["labels"], label_smoothing)

    def outcomes(
        self, network: nn.Module, batch: dict[str, Tensor], processor: Any, generation: Any
    ) -> dict[str, np.ndarray]:
        """``loss`` and the predicted class id of each row."""
        return class_outcomes(self._logits(network, batch), batch["labels"])

    def score(self, outcomes: dict[str, np.ndarray], rows: Dataset, labels: Sequence[str]) -> dict[str, float]:
        """The metrics, and ``loss`` a row."""
        return class_scores(self.metrics, outcomes, rows)

    def baseline(self, rows: Dataset, labels: Sequence[str]) -> dict[str, float]:
        """Always the most frequent class of ``rows``."""
        return class_baseline(self.metrics, rows)

    def findings(
        self, outcomes: dict[str, np.ndarray], rows: Dataset, labels: Sequence[str], processor: Any
    ) -> Findings:
        """Confusion matrix, each class's scores, and the texts with the highest loss."""
        texts = processor.batch_decode(rows["input_ids"][:], skip_special_tokens=True)
        return class_findings(outcomes, rows, labels, {"text": texts})
