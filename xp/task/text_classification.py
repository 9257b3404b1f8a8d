"""Text classification: labels or a number for a text, or for a pair of texts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self

from pydantic import PositiveInt, model_validator

from xp import metric
from xp.error import UserError
from xp.task.base import Encoded, Trainable, mapped, padded, settled, text_fault
from xp.task.classification import LabelNames
from xp.task.encoding import check_pair, encode_texts, settle_pair
from xp.task.many_labels import ManyLabels
from xp.task.number import Number
from xp.task.prediction import TextPrediction
from xp.task.problem import OneLabel, Problem

if TYPE_CHECKING:
    import numpy as np
    from datasets import Dataset
    from torch import Tensor, nn
    from transformers import PreTrainedModel

    from xp.findings import Findings

Name = Literal["single_label", "multi_label", "regression"]


class TextClassification(Trainable, name="text_classification"):
    """Choose one label or several for a text or a pair of texts, or give it a number."""

    auto_class: ClassVar[str] = "AutoModelForSequenceClassification"
    peft_type: ClassVar[str] = "SEQ_CLS"
    columns: ClassVar[tuple[str, ...]] = ("text", "label")
    optional_columns: ClassVar[tuple[str, ...]] = ("text_pair",)
    pipeline: ClassVar[str] = "text-classification"
    takes: ClassVar[str] = "a text, or a pair of texts"
    gives: ClassVar[str] = "labels with their probabilities, or a number"
    optional_inputs: ClassVar[tuple[str, ...]] = ("text_pair",)

    problem: Literal["auto", "single_label", "multi_label", "regression"]
    """What the label column asks for. auto: lists are several labels, numbers with a fraction part regression."""

    labels: LabelNames | None
    """Names of the labels in the order of their ids; null takes those of the training rows."""

    max_length: PositiveInt
    """Longest text or pair, in tokens with the special ones."""

    overlong: Literal["truncate", "drop", "error"]
    """What becomes of a longer text; of a pair, the longer text is cut first. The count is always reported."""

    truncation_side: Literal["right", "left"]
    """Where a text is cut that is too long."""

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if self.labels is not None and len({*self.labels}) != len(self.labels):
            raise ValueError("labels: two of them are the same; give each one once")
        if self.labels is not None and (not self.labels or self.problem == "regression"):
            raise ValueError("labels: a number has no labels, and no labels are none to choose from; set it to null")
        return self

    prediction: TextPrediction
    """What command=predict gives."""

    @property
    def longest(self) -> int:
        """Longest text, in tokens."""
        return self.max_length

    def arguments(self, row: dict[str, Any]) -> dict[str, Any]:
        """The pipeline's own way of saying "the best alone" and "all"."""
        top_k: dict[str, Any] = {1: {}, "all": {"top_k": None}}.get(self.prediction.top_k, self.options)
        return {name: value for name, value in self.options.items() if name != "top_k"} | top_k

    def truncating(self, limit: int) -> dict[str, Any]:
        """To the tokenizer."""
        return {"truncation": True, "max_length": limit}

    def measured(self, row: dict[str, Any]) -> tuple[str, ...]:
        """The text, or the pair of texts."""
        return (row["text"], row["text_pair"]) if row.get("text_pair") else (row["text"],)

    @property
    def answers(self) -> str:  # type: ignore[override]
        """Form of the predictions; while the rows are to decide on the problem, the one that the metrics score."""
        if self.problem != "auto":
            return self._problem.form
        forms = ("class", "classes", "number")
        return next((form for form in forms if _scored(self.metrics, form)), "class")

    @property
    def label_columns(self) -> tuple[str, ...]:  # type: ignore[override]
        """The label column, where its values are names of labels and not numbers."""
        return ("label",) if self.problem in ("single_label", "multi_label") else ()

    @property
    def _problem(self) -> Problem:
        assert self.problem != "auto"
        if self.problem == "multi_label":
            return ManyLabels(self.labels)
        return OneLabel() if self.problem == "single_label" else Number()

    def resolved(self, rows: Dataset) -> Self:
        """With the problem that the label column poses."""
        if self.problem != "auto":
            return self
        feature = rows.features["label"]
        kind = getattr(feature, "dtype", "list")
        name: Name = "single_label"
        if kind.startswith("list") or hasattr(feature, "feature"):
            name = "multi_label"
        elif kind.startswith(("float", "double")):
            name = "regression"
        made = self.model_copy(update={"problem": name})
        if not _scored(self.metrics, made._problem.form):
            what = {"single_label": "one label a row", "multi_label": "lists", "regression": "fractional numbers"}[name]
            raise UserError(
                f"task.metrics=[{','.join(self.metrics)}]: data.columns.label holds {what}, "
                f"which these do not score; use task={made._problem.yaml}, or say otherwise with task.problem"
            )
        if name == "regression" and self.labels is not None:
            raise UserError("task.labels: data.columns.label holds numbers, which have no labels; set it to null")
        return made

    def label_names(self, rows: Dataset) -> list[str]:
        """``labels``, else the names of the classes, else the sorted distinct values; none of a number."""
        return list(self.labels) if self.labels is not None else self._problem.names(rows)

    def config(self, labels: Sequence[str]) -> dict[str, Any]:
        """Number and names of the labels, and which problem it is."""
        return self._problem.config(labels)

    def fault(self, row: dict[str, Any]) -> str | None:
        """A text that is no text, or a label that does not go with the problem."""
        for column in ("text", "text_pair"):
            if column in row and (reason := text_fault(row, column)):
                return reason
        if self.problem != "auto":
            return self._problem.fault(row)
        lists, number = isinstance(row["label"], list), isinstance(row["label"], float)
        problem = ManyLabels(None) if lists else Number() if number else OneLabel()
        return problem.fault(row)

    def equip(self, processor: Any, network: PreTrainedModel | None, adapted: bool) -> list[str]:
        """Say in the tokenizer how pairs are put together and where they are cut; it is saved with the model."""
        processor.truncation_side = self.truncation_side
        settle_pair(processor)
        return []

    def encode(self, rows: Dataset, processor: Any, labels: Sequence[str]) -> Encoded:
        """``input_ids`` with the tokenizer's special tokens, its ``token_type_ids`` of pairs, and ``label``."""
        problem = self._problem
        target = problem.targets(rows, labels)
        pairs = "text_pair" in rows.column_names
        types = {"input_ids": ["int32"], "length": "int32", "items": "int32", "over": "bool"}
        if pairs:
            check_pair(processor)
            if "token_type_ids" in processor.model_input_names:
                types["token_type_ids"] = ["int8"]

        def features(batch: dict[str, list[Any]]) -> dict[str, list[Any]]:
            made, over = encode_texts(processor, batch["text"], batch.get("text_pair"), self.max_length)
            return {name: made[name] for name in made if name in types} | {
                "label": [target(value) for value in batch["label"]],
                "length": [len(row) for row in made["input_ids"]],
                "items": [1] * len(over),
                "over": over,
            }

        # Stated, because the label changes from a name to an id and datasets would keep the old column's type.
        kind = [*problem.type] if isinstance(problem.type, tuple) else problem.type
        encoded = mapped(rows, features, types | {"label": kind})
        return settled(encoded, self.overlong, self.max_length, "pairs" if pairs else "texts")

    def collate(self, sequences: Sequence[Sequence[dict[str, Any]]], processor: Any) -> dict[str, Tensor]:
        """``input_ids``, ``attention_mask`` and ``token_type_ids`` (rows, longest), ``labels`` (rows, ...)."""
        rows = [row for (row,) in sequences]
        tokens = [row["input_ids"] for row in rows]
        batch = {
            "input_ids": padded(tokens, processor.pad_token_id),
            "attention_mask": padded([[1] * len(row) for row in tokens], 0),
            "labels": self._problem.tensor([row["label"] for row in rows]),
        }
        if "token_type_ids" in rows[0]:
            batch["token_type_ids"] = padded([row["token_type_ids"] for row in rows], 0)
        return batch

    def _logits(self, network: nn.Module, batch: dict[str, Tensor]) -> Tensor:
        logits: Tensor = network(**{name: value for name, value in batch.items() if name != "labels"}).logits
        return logits

    def loss(self, network: nn.Module, batch: dict[str, Tensor], label_smoothing: float) -> Tensor:
        """Cross-entropy, binary cross-entropy or squared error, summed over the rows."""
        return self._problem.loss(self._logits(network, batch), batch["labels"], label_smoothing)

    def outcomes(
        self, network: nn.Module, batch: dict[str, Tensor], processor: Any, generation: Any
    ) -> dict[str, np.ndarray]:
        """``loss`` and ``prediction`` of each row: a class id, a 0 or 1 for each label, or a number."""
        return self._problem.outcomes(self._logits(network, batch), batch["labels"])

    def score(self, outcomes: dict[str, np.ndarray], rows: Dataset, labels: Sequence[str]) -> dict[str, float]:
        """The metrics, and ``loss`` a row."""
        return self._problem.scores(self.metrics, outcomes, rows)

    def baseline(self, rows: Dataset, labels: Sequence[str]) -> dict[str, float]:
        """Always the most frequent label, the most frequent set of labels, or the mean of ``rows``."""
        return self._problem.baseline(self.metrics, rows)

    def findings(
        self, outcomes: dict[str, np.ndarray], rows: Dataset, labels: Sequence[str], processor: Any
    ) -> Findings:
        """Confusion matrix and each class's scores, or numbers against predictions; the texts with the highest loss."""
        texts = processor.batch_decode(rows["input_ids"][:], skip_special_tokens="text_pair" not in rows.column_names)
        return self._problem.findings(outcomes, rows, labels, {"text": texts})

    def texts(self, rows: Dataset) -> Any:
        """Both texts of a pair."""
        for column in ("text", "text_pair"):
            if column in rows.column_names:
                for batch in rows.select_columns([column]).iter(1000):
                    yield from batch[column]


def _scored(metrics: Sequence[str], form: str) -> bool:
    """Whether all of the metrics score answers of this form."""
    try:
        metric.check(metrics, form)
    except UserError:
        return False
    return True
