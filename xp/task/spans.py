"""Spans: which piece of a context is the likeliest answer, over one window and over all windows of a question."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    from datasets import Dataset
    from torch import Tensor


def likeliest(start_logits: Tensor, end_logits: Tensor, batch: dict[str, Tensor], most: int) -> dict[str, np.ndarray]:
    """Of each window the likeliest answer: ``start``, ``end`` (tokens of its context) and ``score``.

    The score is in nats over "none here", so that scores of windows can be compared; minus infinity, with ``start``
    -1, where there is no context. All answers up to the longest are looked at. ``none`` is the logarithm of the
    probability of "none here" among all places of the context and itself.

    Args:
        start_logits: of the first token (windows, longest).
        end_logits: of the last token.
        batch: with ``input_ids``, ``none``, ``first``, ``count``.
        most: tokens of the longest answer.
    """
    import torch

    place = torch.arange(batch["input_ids"].shape[1], device=batch["none"].device)[None]
    outside = (place < batch["first"][:, None]) | (place >= (batch["first"] + batch["count"])[:, None])
    start, end = (
        (each - each.gather(1, batch["none"][:, None])).masked_fill(outside, -math.inf)
        for each in (start_logits, end_logits)
    )
    zero = start.new_zeros((len(start), 1))  # How likely "none here" is, beside itself.
    none = -torch.cat([start, zero], 1).logsumexp(-1) - torch.cat([end, zero], 1).logsumexp(-1)
    rows, longest = start.shape
    best = start.new_full((rows,), -math.inf)
    where = torch.full((rows, 2), -1, device=start.device)
    for more in range(min(most, longest)):
        value, at = (start[:, : longest - more] + end[:, more:]).max(-1)
        better = value > best
        best = torch.where(better, value, best)
        found = torch.stack([at, at + more], -1) - batch["first"][:, None]
        where = torch.where(better[:, None], found, where)
    return {
        "score": best.cpu().double().numpy(),
        "none": none.cpu().double().numpy(),
        "start": where[:, 0].cpu().numpy(),
        "end": where[:, 1].cpu().numpy(),
    }


def found(
    outcomes: dict[str, np.ndarray],
    examples: Sequence[int],
    windows: Dataset | list[dict[str, Any]],
    threshold: float | None,
) -> list[dict[str, Any]]:
    """The answer to each question: the likeliest of all its windows, or the empty text.

    Args:
        outcomes: one value a window.
        examples: which question each window is of.
        windows: encoded rows.
        threshold: how much likelier, in nats, none must be; None if there always is an answer.

    Returns:
        Of each question ``id``, ``question``, ``answers`` (those that are right), ``answer``, ``start`` and ``end``
        (in the characters of its context, 0 and 0 for none), ``score`` (probability of the answer in its window,
        likeliest first and last token each), ``no_answer`` (of none against the likeliest answer) and the largest
        ``loss`` of its windows.
    """
    scores, losses = outcomes["score"], outcomes["loss"]
    mine: dict[int, list[int]] = {}
    for place, example in enumerate(examples):
        mine.setdefault(example, []).append(place)
    answers = []
    for places in mine.values():
        best = max(places, key=lambda place: (scores[place], -place))
        window: dict[str, Any] = windows[best]
        score, none = float(scores[best]), float(outcomes["none"][best])
        answered = score > -math.inf and (threshold is None or -score <= threshold)
        text, start = "", 0
        if answered:
            first, last = window["starts"][outcomes["start"][best]], window["ends"][outcomes["end"][best]]
            raw = window["passage"][first:last]
            text, start = raw.strip(), window["offset"] + first + len(raw) - len(raw.lstrip())
        answers.append(
            {name: window[name] for name in ("id", "question", "answers")}
            | {"answer": text, "start": start, "end": start + len(text)}
            | {
                "score": math.exp(none + score if answered else none),
                "no_answer": 1 / (1 + math.exp(min(score, 700))),
            }
            | {"loss": max(float(losses[place]) for place in places)}
        )
    return answers


def compared(questions: list[dict[str, Any]], given: list[str]) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
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
