"""What makes a task trainable, and the small pieces that trainable tasks share."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Self

from xp.task.mapping import mapped
from xp.task.rows import IGNORE, Encoded, objects, padded, settled, text_fault
from xp.task.task import Task

if TYPE_CHECKING:
    import numpy as np
    from datasets import Dataset
    from torch import Tensor, nn
    from transformers import PreTrainedModel

    from xp.findings import Findings

__all__ = ["IGNORE", "Encoded", "Task", "Trainable", "mapped", "objects", "padded", "settled", "text_fault"]


class Trainable(Task):
    """A task that models are trained and evaluated on: rows → features → batches → loss, outcomes → scores."""

    auto_class: ClassVar[str]
    """Which of transformers' Auto classes has the head for this task."""

    processor_class: ClassVar[str] = "AutoTokenizer"
    """Which of transformers' Auto classes turns an input into tensors: AutoTokenizer, AutoImageProcessor, ..."""

    peft_type: ClassVar[str | None]
    """peft's name for this task (``peft.TaskType``), by which it keeps a new head trainable; None where it has none."""

    columns: ClassVar[tuple[str, ...]]
    """The columns that this task reads; ``data.columns`` says what they are called in the source."""

    other_columns: ClassVar[tuple[tuple[str, ...], ...]] = ()
    """Other sets of columns that do as well, for data in another shape; the first set that is there is taken."""

    optional_columns: ClassVar[tuple[str, ...]] = ()
    """Columns that are read where the rows have them."""

    answers: ClassVar[str] = ""
    """Form of the predictions that metrics score, see `xp.metric`; empty for a task that is scored by its loss."""

    own_scores: ClassVar[tuple[str, ...]] = ("loss",)
    """The scores that this task computes itself, beside those of its metrics."""

    label_columns: ClassVar[tuple[str, ...]] = ()
    """Columns whose values, or lists of values, are names of classes: one that training has not seen is a fault."""

    packable: ClassVar[bool] = False
    """Whether rows may share a sequence (``training.batching=packed``): a language model, which sees only the past."""

    two_sided: ClassVar[bool] = False
    """Whether the network must see what comes after a token."""

    special_tokens: ClassVar[tuple[str, ...]] = ()
    """Further special tokens that the tokenizer needs, for example ``mask_token``; a trained one gets them."""

    metrics: list[str]
    """Metrics of an evaluation, by name; the first one decides where ``training.metric`` names none."""

    @property
    def options(self) -> dict[str, Any]:
        """The settings under ``task.prediction``."""
        settings = getattr(self, "prediction", None)
        return settings.model_dump(exclude_none=True) if settings is not None else {}

    @property
    def scores(self) -> tuple[str, ...]:
        """Names of the numbers that an evaluation gives, the deciding one first."""
        from xp import metric

        return (*metric.values(self.metrics), *self.own_scores)

    @property
    def longest(self) -> int | None:
        """Longest sequence, in tokens, that the model is given; None where inputs are no sequences of tokens."""
        return None

    @classmethod
    def known_columns(cls) -> set[str]:
        """All columns that this task may read."""
        others = (column for columns in cls.other_columns for column in columns)
        return {*super().known_columns(), *cls.columns, *cls.optional_columns, *others}

    def resolved(self, rows: Dataset) -> Self:
        """This task, decided by ``rows`` what was left to them; a UserError if that does not go with the rest."""
        return self

    def label_names(self, rows: Dataset) -> list[str]:
        """Names of the classes in the order of their ids; empty for a task without classes."""
        return []

    def config(self, labels: Sequence[str]) -> dict[str, Any]:
        """What the model's own config must say for this task, for example the number of labels."""
        return {}

    def fault(self, row: dict[str, Any]) -> str | None:
        """Why a row with this task's columns cannot be used, for example ``text: is empty``; None if it can."""
        return None

    def equip(self, processor: Any, network: PreTrainedModel | None, adapted: bool) -> list[str]:
        """Make the processor and the network fit for this task, before rows are encoded.

        Args:
            processor: of `processor_class`, changed in place.
            network: changed in place; None where only the processor is wanted.
            adapted: whether the network's own weights stay as they are.

        Returns:
            What a person should know of it, a line each.
        """
        return []

    @abstractmethod
    def encode(self, rows: Dataset, processor: Any, labels: Sequence[str]) -> Encoded:
        """Rows with this task's columns, none of them at fault, as features.

        Args:
            rows: with the columns this task reads.
            processor: of `processor_class`.
            labels: names of the classes, as the model has them.

        Raises:
            UserError: a label that is not among ``labels``, or a row too long where that is an error.
        """

    def draw(self, row: dict[str, Any], generator: np.random.Generator, processor: Any) -> dict[str, Any]:
        """What is random about an encoded row, for example which of its tokens are masked.

        Args:
            row: of the encoded rows.
            generator: seeded by seed, epoch and the row's index (in evaluation: by the index alone).
            processor: of `processor_class`.
        """
        return row

    def vary(self, row: dict[str, Any], generator: np.random.Generator) -> dict[str, Any]:
        """What is random about a drawn row in training alone, for example how an image is cropped."""
        return row

    @abstractmethod
    def collate(self, sequences: Sequence[Sequence[dict[str, Any]]], processor: Any) -> dict[str, Tensor]:
        """A batch from sequences of one (or, if packed, several) encoded rows, padded to the longest.

        Args:
            sequences: the encoded, drawn rows of each sequence.
            processor: of `processor_class`.
        """

    @abstractmethod
    def loss(self, network: nn.Module, batch: dict[str, Tensor], label_smoothing: float) -> Tensor:
        """Sum of the loss over the batch's items, as a float32 scalar; the caller divides, once."""

    @abstractmethod
    def outcomes(
        self, network: nn.Module, batch: dict[str, Tensor], processor: Any, generation: Any
    ) -> dict[str, np.ndarray]:
        """What the scores need of each row, and no more: ``{name: (rows,)}``, with the row's summed ``loss``.

        Args:
            network: in evaluation mode.
            batch: on its device.
            processor: of `processor_class`.
            generation: an `xp.generation.Generation`, for tasks whose answer is a text.
        """

    @abstractmethod
    def score(self, outcomes: dict[str, np.ndarray], rows: Dataset, labels: Sequence[str]) -> dict[str, float]:
        """The `scores` of an evaluation set by name, ``loss`` (per item) among them.

        Args:
            outcomes: one value a row, in the order of ``rows``, with the ``items`` of the drawn rows.
            rows: the encoded evaluation set.
            labels: names of the classes.
        """

    def baseline(self, rows: Dataset, labels: Sequence[str]) -> dict[str, float]:
        """What the best answer that ignores the input would score on ``rows``; empty where there is no such answer."""
        return {}

    def findings(
        self, outcomes: dict[str, np.ndarray], rows: Dataset, labels: Sequence[str], processor: Any
    ) -> Findings:
        """Tables and pictures of an evaluation: which errors, in which classes, the worst of them."""
        from xp.findings import Findings

        return Findings()

    def texts(self, rows: Dataset) -> Iterable[str]:
        """The text of ``rows``, to train a tokenizer on."""
        strings = [name for name in self.columns if getattr(rows.features.get(name), "dtype", "").endswith("string")]
        columns = ["text"] if "text" in strings else strings
        for batch in rows.select_columns(columns).iter(1000):
            for column in columns:
                yield from batch[column]
