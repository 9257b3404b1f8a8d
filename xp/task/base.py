"""Task: the kind, and the small pieces every task shares."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

from xp.component import Component

if TYPE_CHECKING:
    import numpy as np
    from datasets import Dataset
    from torch import Tensor, nn
    from transformers import PreTrainedTokenizerBase

IGNORE = -100
"""Label of a token that is not to be predicted (PyTorch's ``ignore_index``)."""


@dataclass(frozen=True)
class Encoded:
    """Rows as the model takes them, and what became of those that were too long."""

    rows: Dataset
    """Columns: ``input_ids``, ``length`` (tokens), ``items`` (what the loss is divided by), and the task's own."""

    notes: dict[str, int] = field(default_factory=dict)
    """Counts for the log and MLflow, for example ``{"rows": 10, "truncated": 3}``."""


class Task(Component):
    """What the model is asked to do. One object serves training, evaluation and inference."""

    auto_class: ClassVar[str]
    """Which of transformers' Auto classes has the head for this task."""

    peft_type: ClassVar[str]
    """peft's name for this task (``peft.TaskType``), by which it keeps a new head trainable."""

    columns: ClassVar[tuple[str, ...]]
    """The columns that this task reads; ``data.columns`` says what they are called in the source."""

    scores: ClassVar[tuple[str, ...]]
    """Its metrics; the first one decides which of two models is better, where ``training.metric`` names none."""

    packable: ClassVar[bool] = False
    """Whether rows may share a sequence (``training.batching=packed``)."""

    max_length: int
    """Longest sequence, in tokens, that the model is given."""

    def labels(self, rows: Dataset) -> list[str]:
        """Names of the classes in the order of their ids; empty for a task without classes."""
        return []

    def config(self, labels: Sequence[str]) -> dict[str, Any]:
        """What the model's own config must say for this task, for example the number of labels."""
        return {}

    @abstractmethod
    def encode(self, rows: Dataset, tokenizer: PreTrainedTokenizerBase, labels: Sequence[str]) -> Encoded:
        """Rows with this task's columns, as features.

        Raises:
            UserError: a label that is not among ``labels``, or a row too long where that is an error.
        """

    @abstractmethod
    def collate(self, sequences: Sequence[Sequence[dict[str, Any]]], pad: int) -> dict[str, Tensor]:
        """A batch from sequences of one (or, if packed, several) encoded rows, padded to the longest.

        Args:
            sequences: the encoded rows of each sequence.
            pad: token id to fill up with.
        """

    @abstractmethod
    def loss(self, network: nn.Module, batch: dict[str, Tensor], label_smoothing: float) -> Tensor:
        """Sum of the loss over the batch's items, as a float32 scalar; the caller divides, once."""

    @abstractmethod
    def outcomes(self, network: nn.Module, batch: dict[str, Tensor]) -> dict[str, np.ndarray]:
        """What the metrics need of each row, and no more: ``{name: (rows,)}``, with the row's summed ``loss``."""

    @abstractmethod
    def metrics(self, outcomes: dict[str, np.ndarray], rows: Dataset, labels: Sequence[str]) -> dict[str, float]:
        """Metrics of an evaluation set by name, ``loss`` (per item) among them.

        Args:
            outcomes: one value a row, in the order of ``rows``.
            rows: the encoded evaluation set.
        """

    def baseline(self, rows: Dataset, labels: Sequence[str]) -> dict[str, float]:
        """What the best answer that ignores the input would score on ``rows``; empty where there is no such answer."""
        return {}

    def texts(self, rows: Dataset) -> Iterable[str]:
        """The text of ``rows``, to train a tokenizer on."""
        for batch in rows.select_columns(["text"]).iter(1000):
            yield from batch["text"]


def mapped(
    rows: Dataset, features: Callable[[dict[str, list[Any]]], dict[str, list[Any]]], types: dict[str, Any]
) -> Dataset:
    """``rows`` turned into other columns, a thousand at a time; ``types`` names the type of each new column."""
    from datasets import Features, List, Value

    made = {name: List(Value(kind[0])) if isinstance(kind, list) else Value(kind) for name, kind in types.items()}
    return rows.map(
        features, batched=True, remove_columns=rows.column_names, features=Features(made), keep_in_memory=True
    )


def padded(rows: Sequence[Sequence[int]], value: int) -> Tensor:
    """Rows of unequal length as an int64 tensor (rows, longest), filled up on the right with ``value``."""
    import torch

    longest = max(map(len, rows))
    return torch.tensor([[*row, *[value] * (longest - len(row))] for row in rows], dtype=torch.long)
