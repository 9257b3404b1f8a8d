"""Metrics of written text against one or several references."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from xp.error import UserError
from xp.metric.base import Metric

if TYPE_CHECKING:
    from collections.abc import Sequence


class Rouge(Metric, name="rouge"):
    """ROUGE (Lin, 2004) by rouge-score: F1 of words, pairs of words and longest common subsequences, in [0, 1].

    The mean over the rows, each against the reference it is nearest to. English words are stemmed, as published
    results are. rougeLsum takes lines for sentences. It reads a to z and digits only: for other scripts, take chrf.
    """

    def score(self, predictions: list[str], references: list[list[str]]) -> dict[str, float]:
        """``rouge1``, ``rouge2``, ``rougeL``, ``rougeLsum``.

        Raises:
            UserError: no reference has a letter or digit that rouge-score reads.
        """
        from rouge_score.rouge_scorer import RougeScorer

        texts = [text for row in references for text in row]
        if any(text.strip() for text in texts) and not any(c.isascii() and c.isalnum() for text in texts for c in text):
            raise UserError("task.metrics=rouge: it reads a to z and digits only and finds none; choose chrf")
        kinds = ["rouge1", "rouge2", "rougeL", "rougeLsum"]
        scorer = RougeScorer(kinds, use_stemmer=True)
        rows = [scorer.score_multi(right, text) for right, text in zip(references, predictions, strict=True)]
        return {kind: sum(row[kind].fmeasure for row in rows) / len(rows) for kind in kinds}


def _streams(references: list[list[str]]) -> Any:
    """References as sacrebleu takes them: all first ones, all second ones, None where a row has fewer."""
    most = max(map(len, references))
    return [[row[number] if number < len(row) else None for row in references] for number in range(most)]


class Bleu(Metric, name="bleu"):
    """BLEU of the whole set (Papineni et al., 2002) by sacrebleu (Post, 2018), tokenized by 13a, in [0, 100]."""

    def score(self, predictions: list[str], references: list[list[str]]) -> dict[str, float]:
        """``bleu``."""
        from sacrebleu import BLEU

        return {"bleu": float(BLEU().corpus_score(predictions, _streams(references)).score)}


class Chrf(Metric, name="chrf"):
    """chrF2 of the whole set: F of character n-grams (Popović, 2015) by sacrebleu, in [0, 100]."""

    def score(self, predictions: list[str], references: list[list[str]]) -> dict[str, float]:
        """``chrf``."""
        from sacrebleu import CHRF

        return {"chrf": float(CHRF().corpus_score(predictions, _streams(references)).score)}


class Ter(Metric, name="ter"):
    """Edits for each 100 words of reference, moves among them (Snover et al., 2006), by sacrebleu; 0 is best."""

    def score(self, predictions: list[str], references: list[list[str]]) -> dict[str, float]:
        """``ter``."""
        from sacrebleu import TER

        return {"ter": float(TER().corpus_score(predictions, _streams(references)).score)}


class ExactMatch(Metric, name="exact_match"):
    """Share of rows, in [0, 1], that are one of their references, blanks at the ends aside."""

    def score(self, predictions: list[str], references: list[list[str]]) -> dict[str, float]:
        """``exact_match``."""
        rows = zip(predictions, references, strict=True)
        right = [text.strip() in [each.strip() for each in texts] for text, texts in rows]
        return {"exact_match": sum(right) / len(right)}


def _only(metric: str, references: Sequence[Sequence[str]]) -> list[str]:
    """The one reference of each row."""
    for row, texts in enumerate(references):
        if len(texts) != 1:
            raise UserError(
                f"task.metrics={metric}: it takes one reference a row; row {row} of the evaluation set has {len(texts)}"
            )
    return [texts[0] for texts in references]


class WordErrorRate(Metric, name="wer"):
    """Wrong, missing and added words for each word of reference, over the whole set, by jiwer; 0 is best."""

    def score(self, predictions: list[str], references: list[list[str]]) -> dict[str, float]:
        """``wer``."""
        import jiwer

        return {"wer": float(jiwer.wer(_only("wer", references), predictions))}


class CharacterErrorRate(Metric, name="cer"):
    """Wrong, missing and added characters for each one of reference, over the whole set, by jiwer; 0 is best."""

    def score(self, predictions: list[str], references: list[list[str]]) -> dict[str, float]:
        """``cer``."""
        import jiwer

        return {"cer": float(jiwer.cer(_only("cer", references), predictions))}
