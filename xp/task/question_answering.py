"""Extractive question answering: the piece of a context that answers a question, if there is one."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import NonNegativeInt, PositiveInt, model_validator

from xp import metric
from xp.findings import Findings, worst
from xp.hardware import home
from xp.task.base import Encoded, Trainable, mapped, padded
from xp.task.spans import compared, found, likeliest
from xp.task.windows import Cut, golds, layout, windows

if TYPE_CHECKING:
    import numpy as np
    from datasets import Dataset
    from torch import Tensor, nn

MOST_SPECIAL = 8
"""Tokens of a window that are neither question nor context; the known layouts have two to four."""


class QuestionAnswering(Trainable, name="question_answering"):
    """Choose the piece of a context that answers a question, or none (Rajpurkar et al., 2018).

    A context that is too long becomes several windows, each a row of its own. A window without the whole answer is
    trained to answer "none here". The loss is the mean of the cross-entropies of the first and the last token.
    """

    auto_class: ClassVar[str] = "AutoModelForQuestionAnswering"
    peft_type: ClassVar[str] = "QUESTION_ANS"
    columns: ClassVar[tuple[str, ...]] = ("question", "context", "answers")
    other_columns: ClassVar[tuple[tuple[str, ...], ...]] = (("question", "context", "answer"),)
    optional_columns: ClassVar[tuple[str, ...]] = ("id",)
    answers: ClassVar[str] = "answer"
    inputs: ClassVar[tuple[str, ...]] = ("question", "context")
    takes: ClassVar[str] = "a question and a context"
    gives: ClassVar[str] = "the answer, a piece of the context, with its place and probability"

    max_length: PositiveInt
    """Longest window, in tokens, with the question and the special ones."""

    max_question_tokens: PositiveInt
    """A longer question loses its end; how many did is reported."""

    stride: NonNegativeInt
    """Tokens that two neighbouring windows of a context share, so that an answer at the end of one is in the next."""

    max_answer_tokens: PositiveInt
    """Longest answer that is predicted; what is learned from is not bounded by it."""

    no_answer_threshold: float | None
    """How much likelier than the likeliest answer, in nats, "none" must be to be predicted; null: it never is."""

    @model_validator(mode="after")
    def _windows_advance(self) -> QuestionAnswering:
        least = self.max_question_tokens + self.stride + MOST_SPECIAL
        if self.max_length <= least:
            raise ValueError(
                f"max_length={self.max_length}: max_question_tokens={self.max_question_tokens} and "
                f"stride={self.stride} leave a window no room for a context; give it more than {least}"
            )
        return self

    @property
    def splits_long(self) -> bool:
        """A context of any length is cut into windows."""
        return True

    @property
    def _cut(self) -> Cut:
        return Cut(self.max_length, self.max_question_tokens, self.stride)

    @property
    def longest(self) -> int:
        """Longest window, in tokens."""
        return self.max_length

    def config(self, labels: Sequence[str]) -> dict[str, Any]:
        """Two outputs a token: how likely the answer begins and ends there."""
        return {"num_labels": 2}

    def fault(self, row: dict[str, Any]) -> str | None:
        """Empty or no text, or an answer that is not where, or not once, in the context."""
        for column in ("question", "context"):
            if not isinstance(row[column], str):
                return f"{column}: is {type(row[column]).__name__}, not text"
            if not row[column].strip():
                return f"{column}: is empty"
        try:
            golds(row)
        except ValueError as error:
            return str(error)
        return None

    def encode(self, rows: Dataset, processor: Any, labels: Sequence[str]) -> Encoded:
        """A row for each window: its tokens, where its context's tokens are in the text, and the answer's place."""
        form = layout(processor)
        columns: dict[str, Any] = {
            "input_ids": ["int32"], "first": "int32", "starts": ["int32"], "ends": ["int32"], "none": "int32",
            "start": "int32", "end": "int32", "passage": "string", "offset": "int64", "example": "int64",
            "id": "string", "question": "string", "answers": ["string"],
            "length": "int32", "items": "int32", "cut": "bool",
        }  # fmt: skip
        if form.types is not None:
            columns["token_type_ids"] = ["int8"]

        numbered = rows.add_column("example", list(range(len(rows))))
        encoded = mapped(numbered, lambda batch: windows(batch, processor, form, self._cut), columns)
        answerable = {example for example, texts in zip(encoded["example"], encoded["answers"], strict=True) if texts}
        reached = {
            example
            for example, start, none in zip(encoded["example"], encoded["start"], encoded["none"], strict=True)
            if start != none
        }
        notes = {
            "rows": len(rows),
            "windows": len(encoded),
            "unanswerable": len(rows) - len(answerable),
            "answer_in_no_window": len(answerable - reached),
            "question_cut": len({row for row, cut in zip(encoded["example"], encoded["cut"], strict=True) if cut}),
        }
        return Encoded(encoded.remove_columns("cut"), notes)

    def collate(self, sequences: Sequence[Sequence[dict[str, Any]]], processor: Any) -> dict[str, Tensor]:
        """The network's inputs (windows, longest), and ``start``, ``end``, ``none``, ``first``, ``count`` (windows,).

        It is padded on the right, whatever side the tokenizer would choose.
        """
        import torch

        rows = [row for (row,) in sequences]
        batch = {
            "input_ids": padded([row["input_ids"] for row in rows], processor.pad_token_id),
            "attention_mask": padded([[1] * len(row["input_ids"]) for row in rows], 0),
        }
        if "token_type_ids" in rows[0]:
            batch["token_type_ids"] = padded([row["token_type_ids"] for row in rows], 0)
        places = {name: torch.tensor([row[name] for row in rows]) for name in ("start", "end", "none", "first")}
        return batch | places | {"count": torch.tensor([len(row["starts"]) for row in rows])}

    def _logits(self, network: nn.Module, batch: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        """Of the first and of the last token (windows, longest), minus infinity where a window is padding."""
        names = ("input_ids", "attention_mask", "token_type_ids")
        output = network(**{name: batch[name] for name in names if name in batch})
        # Padding is no answer: a loss that counted it, as transformers' own does, would depend on the batch.
        padding = batch["attention_mask"] == 0
        start, end = output.start_logits.float(), output.end_logits.float()
        return start.masked_fill(padding, -math.inf), end.masked_fill(padding, -math.inf)

    def _losses(self, logits: tuple[Tensor, Tensor], batch: dict[str, Tensor], label_smoothing: float) -> Tensor:
        """Of each window."""
        mask = batch["attention_mask"]
        losses = []
        for each, gold in zip(logits, (batch["start"], batch["end"]), strict=True):
            log = each.log_softmax(-1)
            loss = -log.gather(1, gold[:, None])[:, 0]
            if label_smoothing:  # Spread over the tokens that there are.
                spread = -log.masked_fill(mask == 0, 0).sum(-1) / mask.sum(-1)
                loss = (1 - label_smoothing) * loss + label_smoothing * spread
            losses.append(loss)
        return (losses[0] + losses[1]) / 2

    def loss(self, network: nn.Module, batch: dict[str, Tensor], label_smoothing: float) -> Tensor:
        """Mean of the cross-entropies of first and last token, summed over the windows."""
        return self._losses(self._logits(network, batch), batch, label_smoothing).sum()

    def outcomes(
        self, network: nn.Module, batch: dict[str, Tensor], processor: Any, generation: Any
    ) -> dict[str, np.ndarray]:
        """``loss`` of each window, and its `likeliest` answer."""
        logits = self._logits(network, batch)
        loss = self._losses(logits, batch, 0.0)
        return {"loss": loss.cpu().numpy()} | likeliest(*logits, batch, self.max_answer_tokens)

    def score(self, outcomes: dict[str, np.ndarray], rows: Dataset, labels: Sequence[str]) -> dict[str, float]:
        """The metrics over questions, and ``loss`` a window."""
        answered = found(outcomes, rows["example"][:], rows, self.no_answer_threshold)
        scores = metric.compute(self.metrics, self.answers, *compared(answered, [each["answer"] for each in answered]))
        return scores | {"loss": float(outcomes["loss"].mean())}

    def answer(
        self, inputs: Sequence[dict[str, Any]], network: Any, processor: Any, generation: Any
    ) -> list[dict[str, Any]]:
        """To each question ``answer`` (empty for none), ``score`` (a probability), ``start`` and ``end``.

        Args:
            inputs: each with ``question`` and ``context``, of any length.
            network: in evaluation mode.
            processor: its tokenizer.
            generation: not used.
        """
        import numpy as np

        batch = {name: [each[name] for each in inputs] for name in ("question", "context")}
        batch |= {"answer": [""] * len(inputs), "example": list(range(len(inputs)))}
        columns = windows(batch, processor, layout(processor), self._cut)
        encoded = [{name: columns[name][at] for name in columns} for at in range(len(columns["example"]))]
        parts = []
        for start in range(0, len(encoded), len(inputs)):  # No more windows at once than there are inputs.
            tensors = self.collate([[window] for window in encoded[start : start + len(inputs)]], processor)
            on_device = {name: value.to(home(network)) for name, value in tensors.items()}
            parts.append(self.outcomes(network, on_device, processor, generation))
        outcomes = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
        answered = found(outcomes, columns["example"], encoded, self.no_answer_threshold)
        return [{name: each[name] for name in ("answer", "score", "start", "end")} for each in answered]

    def baseline(self, rows: Dataset, labels: Sequence[str]) -> dict[str, float]:
        """Always the most frequent answer of ``rows``, which may be that there is none."""
        golds = dict(zip(rows["example"], rows["answers"], strict=True))
        counts = Counter(text for texts in golds.values() for text in set(texts) or {""})
        (most, _), *_ = counts.most_common(1)
        questions = [{"id": str(example), "answers": texts} for example, texts in golds.items()]
        return metric.compute(self.metrics, self.answers, *compared(questions, [most] * len(questions)))

    def findings(
        self, outcomes: dict[str, np.ndarray], rows: Dataset, labels: Sequence[str], processor: Any
    ) -> Findings:
        """The scores of questions with and without an answer, and the wrong answers with the highest loss."""
        answered = found(outcomes, rows["example"][:], rows, self.no_answer_threshold)
        kinds: dict[str, list[Any]] = {}
        for kind, some in (("with an answer", [each for each in answered if each["answers"]]),
                           ("without one", [each for each in answered if not each["answers"]])):  # fmt: skip
            if some:
                scores = metric.compute(self.metrics, self.answers, *compared(some, [each["answer"] for each in some]))
                for name, value in {"questions": kind, "number": len(some), **scores}.items():
                    kinds.setdefault(name, []).append(value)
        wrong = [each for each in answered if each["answer"] not in (each["answers"] or [""])]
        columns = {
            "id": [each["id"] for each in wrong],
            "question": [each["question"] for each in wrong],
            "gold": [" | ".join(each["answers"]) for each in wrong],
            "prediction": [each["answer"] for each in wrong],
            "no_answer": [each["no_answer"] for each in wrong],
        }
        return Findings(tables={"questions": kinds, "worst": worst([each["loss"] for each in wrong], columns)})

    def texts(self, rows: Dataset) -> Iterable[str]:
        """The questions and the contexts, each context once for the questions about it that follow each other."""
        last = None
        for batch in rows.select_columns(["question", "context"]).iter(1000):
            for question, context in zip(batch["question"], batch["context"], strict=True):
                yield question
                if context != last:
                    yield context
                last = context
