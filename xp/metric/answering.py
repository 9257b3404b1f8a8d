"""Metrics of answers that are taken from a text."""

from __future__ import annotations

import re
import string
from collections import Counter
from typing import Any

from xp.metric.base import Metric

ARTICLES = re.compile(r"\b(a|an|the)\b")
PUNCTUATION = str.maketrans("", "", string.punctuation)


def words(text: str) -> list[str]:
    """The words that SQuAD compares: lower case, without punctuation and without a, an, the."""
    return ARTICLES.sub(" ", text.lower().translate(PUNCTUATION)).split()


def overlap(answer: list[str], right: list[str]) -> float:
    """F1 of the words that two texts share; two empty ones agree."""
    if not answer or not right:
        return float(answer == right)
    return 2 * (Counter(answer) & Counter(right)).total() / (len(answer) + len(right))


class Squad(Metric, name="squad"):
    """Exact match and F1 of words, in [0, 100], by the rules of SQuAD 2.0 (Rajpurkar et al., 2018).

    Each row against the answer that is nearest. The empty string answers that there is no answer, which is right
    where the row has none; ``no_answer_probability`` is not read.
    """

    def score(self, predictions: list[dict[str, Any]], references: list[dict[str, Any]]) -> dict[str, float]:
        """``exact_match``, ``f1``."""
        exact = shared = 0.0
        for given, reference in zip(predictions, references, strict=True):
            if given["id"] != reference["id"]:
                raise ValueError(f"the answer to {given['id']} stands beside the question {reference['id']}")
            answer = words(given["prediction_text"])
            # An answer of nothing but articles and punctuation does not count, unless there is no other.
            right = [each for each in map(words, reference["answers"]["text"]) if each] or [[]]
            exact += float(answer in right)
            shared += max(overlap(answer, each) for each in right)
        return {"exact_match": 100 * exact / len(references), "f1": 100 * shared / len(references)}
