"""Metrics of chosen classes: one a row (``class``), or 0 or 1 for every label (``classes``).

All of them are scikit-learn's (Pedregosa et al., 2011, JMLR 12). ``macro`` is the plain mean over the classes that
occur in references or predictions; for ``classes``, over the labels. What has no cases counts as 0. All are in
[0, 1], but for the two correlations, in [-1, 1].
"""

from __future__ import annotations

from typing import Any

from xp.metric.base import Metric


def _averaged(function: str, average: str, predictions: list[Any], references: list[Any]) -> float:
    """scikit-learn's ``<function>_score`` with this average."""
    import numpy as np
    from sklearn import metrics

    # A task with a single label would be taken for one with two classes: its F1 is that of the label.
    only = [1] if isinstance(references[0], list) and len(references[0]) == 1 else None
    score = getattr(metrics, f"{function}_score")
    gold, guess = np.asarray(references), np.asarray(predictions)  # Lists of lists cost scikit-learn a second.
    return float(score(gold, guess, average=average, labels=only, zero_division=0))


class Accuracy(Metric, name="accuracy"):
    """Share of rows whose class is right."""

    def score(self, predictions: list[int], references: list[int]) -> dict[str, float]:
        """``accuracy``."""
        from sklearn.metrics import accuracy_score

        return {"accuracy": float(accuracy_score(references, predictions))}


class BalancedAccuracy(Metric, name="balanced_accuracy"):
    """Mean over the classes of the references of the share of their rows that are right: recall, macro-averaged."""

    def score(self, predictions: list[int], references: list[int]) -> dict[str, float]:
        """``balanced_accuracy``."""
        from sklearn.metrics import recall_score

        # What balanced_accuracy_score computes; that one warns of every class that is only predicted.
        classes = sorted(set(references))
        recall = recall_score(references, predictions, labels=classes, average="macro", zero_division=0)
        return {"balanced_accuracy": float(recall)}


class F1Macro(Metric, name="f1_macro"):
    """F1 of each class, averaged over the classes: rare ones count as much as frequent ones."""

    def score(self, predictions: list[Any], references: list[Any]) -> dict[str, float]:
        """``f1_macro``."""
        return {"f1_macro": _averaged("f1", "macro", predictions, references)}


class F1Micro(Metric, name="f1_micro"):
    """F1 over all decisions together; with one class a row, the same as accuracy."""

    def score(self, predictions: list[Any], references: list[Any]) -> dict[str, float]:
        """``f1_micro``."""
        return {"f1_micro": _averaged("f1", "micro", predictions, references)}


class F1Weighted(Metric, name="f1_weighted"):
    """F1 of each class, averaged by how often the references hold it."""

    def score(self, predictions: list[Any], references: list[Any]) -> dict[str, float]:
        """``f1_weighted``."""
        return {"f1_weighted": _averaged("f1", "weighted", predictions, references)}


class PrecisionMacro(Metric, name="precision_macro"):
    """Share of each class's predictions that are right, averaged over the classes."""

    def score(self, predictions: list[Any], references: list[Any]) -> dict[str, float]:
        """``precision_macro``."""
        return {"precision_macro": _averaged("precision", "macro", predictions, references)}


class RecallMacro(Metric, name="recall_macro"):
    """Share of each class's rows that are found, averaged over the classes."""

    def score(self, predictions: list[Any], references: list[Any]) -> dict[str, float]:
        """``recall_macro``."""
        return {"recall_macro": _averaged("recall", "macro", predictions, references)}


class MatthewsCorrelation(Metric, name="matthews_correlation"):
    """Matthews' correlation, for any number of classes (Gorodkin, 2004); 0 where a side holds one class only."""

    def score(self, predictions: list[int], references: list[int]) -> dict[str, float]:
        """``matthews_correlation``."""
        from sklearn.metrics import matthews_corrcoef

        single = len({*predictions, *references}) == 1  # scikit-learn's value too, which warns.
        return {"matthews_correlation": 0.0 if single else float(matthews_corrcoef(references, predictions))}


class CohenKappa(Metric, name="cohen_kappa"):
    """Agreement beyond chance (Cohen, 1960); 0 where there is one class only and so nothing but chance."""

    def score(self, predictions: list[int], references: list[int]) -> dict[str, float]:
        """``cohen_kappa``."""
        from sklearn.metrics import cohen_kappa_score

        single = len({*predictions, *references}) == 1  # Undefined: nought by nought.
        return {"cohen_kappa": 0.0 if single else float(cohen_kappa_score(references, predictions))}


class ExactMatchRatio(Metric, name="exact_match_ratio"):
    """Share of rows with every label right (scikit-learn: subset accuracy)."""

    def score(self, predictions: list[list[int]], references: list[list[int]]) -> dict[str, float]:
        """``exact_match_ratio``."""
        import numpy as np
        from sklearn.metrics import accuracy_score

        return {"exact_match_ratio": float(accuracy_score(np.asarray(references), np.asarray(predictions)))}


class HammingLoss(Metric, name="hamming_loss"):
    """Share of all decisions, rows times labels, that are wrong."""

    def score(self, predictions: list[list[int]], references: list[list[int]]) -> dict[str, float]:
        """``hamming_loss``."""
        import numpy as np
        from sklearn.metrics import hamming_loss

        return {"hamming_loss": float(hamming_loss(np.asarray(references), np.asarray(predictions)))}
