"""Extractive question answering: the piece of a context that answers a question, if there is one."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import NonNegativeInt, PositiveInt, model_validator

from xp import metric
from xp.findings import Findings, worst
from xp.task.base import Encoded, Trainable, mapped, padded
from xp.task.windows import covered, golds, layout, pieces

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
            "id": "string", "question": "string", "answers": ["string"], "length": "int32", "items": "int32", "cut": "bool",
        }  # fmt: skip
        if form.types is not None:
            columns["token_type_ids"] = ["int8"]

        def features(batch: dict[str, list[Any]]) -> dict[str, list[Any]]:
            made: dict[str, list[Any]] = {name: [] for name in columns}
            questions = processor(batch["question"], add_special_tokens=False, verbose=False)["input_ids"]
            contexts = processor(batch["context"], add_special_tokens=False, return_offsets_mapping=True, verbose=False)
            for at, whole in enumerate(questions):
                row = {name: batch[name][at] for name in batch}
                question = whole[: self.max_question_tokens]
                tokens, offsets = contexts["input_ids"][at], contexts["offset_mapping"][at]
                gold = golds(row)
                spans = [covered(offsets, start, start + len(text)) for text, start in gold]
                room = self.max_length - form.size - len(question)
                for begin, end in pieces(len(tokens), room, self.stride):
                    inside = [span for span in spans if span and begin <= span[0] and span[1] < end]
                    sequence = form.joined(question, tokens[begin:end])
                    first = len(form.before) + len(question) + len(form.between)
                    none = form.no_answer % len(sequence)
                    start, stop = (first + place - begin for place in inside[0]) if inside else (none, none)
                    shift = offsets[begin][0] if end > begin else 0
                    window = {
                        "input_ids": sequence,
                        "first": first,
                        "starts": [place[0] - shift for place in offsets[begin:end]],
                        "ends": [place[1] - shift for place in offsets[begin:end]],
                        "none": none,
                        "start": start,
                        "end": stop,
                        "passage": row["context"][shift : offsets[end - 1][1]] if end > begin else "",
                        "offset": shift,
                        "example": row["example"],
                        "id": str(row.get("id", row["example"])),
                        "question": row["question"],
                        "answers": [text for text, _ in gold],
                        "length": len(sequence),
                        "items": 1,
                        "cut": len(whole) > len(question),
                    }
                    if form.types is not None:
                        window["token_type_ids"] = form.type_ids(len(question), end - begin)
                    for name, value in window.items():
                        made[name].append(value)
            return made

        encoded = mapped(rows.add_column("example", list(range(len(rows)))), features, columns)
        answered = {example for example, texts in zip(encoded["example"], encoded["answers"], strict=True) if texts}
        found = {
            example
            for example, start, none in zip(encoded["example"], encoded["start"], encoded["none"], strict=True)
            if start != none
        }
        notes = {
            "rows": len(rows),
            "windows": len(encoded),
            "unanswerable": len(rows) - len(answered),
            "answer_in_no_window": len(answered - found),
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
        """``loss``, and of the likeliest answer in each window: ``start``, ``end`` (tokens of its context), ``score``.

        The score is in nats over "none here", so that scores of windows can be compared; minus infinity, with
        ``start`` -1, where there is no context. All answers up to the longest are looked at.
        """
        import torch

        logits = self._logits(network, batch)
        place = torch.arange(batch["input_ids"].shape[1], device=batch["none"].device)[None]
        outside = (place < batch["first"][:, None]) | (place >= (batch["first"] + batch["count"])[:, None])
        start, end = (
            (each - each.gather(1, batch["none"][:, None])).masked_fill(outside, -math.inf) for each in logits
        )
        rows, longest = start.shape
        best = start.new_full((rows,), -math.inf)
        where = torch.full((rows, 2), -1, device=start.device)
        for more in range(min(self.max_answer_tokens, longest)):
            value, at = (start[:, : longest - more] + end[:, more:]).max(-1)
            better = value > best
            best = torch.where(better, value, best)
            found = torch.stack([at, at + more], -1) - batch["first"][:, None]
            where = torch.where(better[:, None], found, where)
        return {
            "loss": self._losses(logits, batch, 0.0).cpu().numpy(),
            "score": best.cpu().double().numpy(),
            "start": where[:, 0].cpu().numpy(),
            "end": where[:, 1].cpu().numpy(),
        }

    def score(self, outcomes: dict[str, np.ndarray], rows: Dataset, labels: Sequence[str]) -> dict[str, float]:
        """The metrics over questions, and ``loss`` a window."""
        found = self.found(outcomes, rows)
        scores = metric.compute(self.metrics, self.answers, *_compared(found, [each["answer"] for each in found]))
        return scores | {"loss": float(outcomes["loss"].mean())}

    def found(self, outcomes: dict[str, np.ndarray], rows: Dataset) -> list[dict[str, Any]]:
        """The answer to each question: the likeliest of all its windows, or the empty text.

        Each with ``id``, ``question``, ``answers`` (those that are right), ``answer``, ``start`` and ``end`` (in the
        characters of its context), ``no_answer`` (probability that there is none) and its windows' largest ``loss``.
        """
        examples, scores, losses = rows["example"][:], outcomes["score"], outcomes["loss"]
        windows: dict[int, list[int]] = {}
        for window, example in enumerate(examples):
            windows.setdefault(example, []).append(window)
        answers = []
        for mine in windows.values():
            window = max(mine, key=lambda each: (scores[each], -each))
            row, score = rows[window], float(scores[window])
            none = score == -math.inf or (self.no_answer_threshold is not None and -score > self.no_answer_threshold)
            start = end = row["offset"]
            text = ""
            if not none:
                first, last = row["starts"][outcomes["start"][window]], row["ends"][outcomes["end"][window]]
                text = row["passage"][first:last].strip()
                start += first + len(row["passage"][first:last]) - len(row["passage"][first:last].lstrip())
                end = start + len(text)
            answers.append(
                {name: row[name] for name in ("id", "question", "answers")}
                | {"answer": text, "start": start, "end": end, "loss": max(float(losses[each]) for each in mine)}
                | {"no_answer": 1 / (1 + math.exp(min(score, 700)))}
            )
        return answers

    def baseline(self, rows: Dataset, labels: Sequence[str]) -> dict[str, float]:
        """Always the most frequent answer of ``rows``, which may be that there is none."""
        golds = dict(zip(rows["example"], rows["answers"], strict=True))
        counts = Counter(text for texts in golds.values() for text in set(texts) or {""})
        (most, _), *_ = counts.most_common(1)
        questions = [{"id": str(example), "answers": texts} for example, texts in golds.items()]
        return metric.compute(self.metrics, self.answers, *_compared(questions, [most] * len(questions)))

    def findings(
        self, outcomes: dict[str, np.ndarray], rows: Dataset, labels: Sequence[str], processor: Any
    ) -> Findings:
        """The scores of questions with and without an answer, and the wrong answers with the highest loss."""
        found = self.found(outcomes, rows)
        kinds: dict[str, list[Any]] = {}
        for kind, some in (("with an answer", [each for each in found if each["answers"]]),
                           ("without one", [each for each in found if not each["answers"]])):  # fmt: skip
            if some:
                scores = metric.compute(self.metrics, self.answers, *_compared(some, [each["answer"] for each in some]))
                for name, value in {"questions": kind, "number": len(some), **scores}.items():
                    kinds.setdefault(name, []).append(value)
        wrong = [each for each in found if each["answer"] not in (each["answers"] or [""])]
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


def _compared(questions: list[dict[str, Any]], given: list[str]) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Predictions and references as metrics take them, of ``questions`` with ``id``, ``answers``, ``no_answer``."""
    predictions = [
        {"id": each["id"], "prediction_text": text, "no_answer_probability": each.get("no_answer", float(not text))}
        for each, text in zip(questions, given, strict=True)
    ]
    references = [
        # Where in the context they are is not kept; no metric reads it.
        {"id": each["id"], "answers": {"text": each["answers"], "answer_start": [0] * len(each["answers"])}}
        for each in questions
    ]
    return predictions, references
