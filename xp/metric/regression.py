"""Metrics of predicted numbers (scikit-learn, SciPy).

A correlation with what does not vary is undefined, and so is R² of a single row. Both count as 0, as scikit-learn
decides for its own where it can: nothing was explained, and no nan gets in the way of choosing the best model.
"""

from __future__ import annotations

from xp.error import UserError
from xp.metric.base import Metric


def _demand_finite(predictions: list[float], references: list[float]) -> None:
    """UserError where a number is infinite or none: no metric has a value then."""
    from math import isfinite

    if wrong := sum(not isfinite(number) for number in references):
        raise UserError(f"data: {wrong} of {len(references)} reference numbers are not finite; mend or remove them")
    if wrong := sum(not isfinite(number) for number in predictions):
        raise UserError(
            f"task.metrics: {wrong} of {len(predictions)} predicted numbers are not finite: the model has diverged; "
            "lower training.learning_rate or set training.max_grad_norm"
        )


def _vary(*columns: list[float]) -> bool:
    return all(min(column) < max(column) for column in columns)


class MeanSquaredError(Metric, name="mean_squared_error"):
    """Mean of the squared differences, in the square of the references' unit."""

    def score(self, predictions: list[float], references: list[float]) -> dict[str, float]:
        """``mean_squared_error``."""
        from sklearn.metrics import mean_squared_error

        _demand_finite(predictions, references)
        return {"mean_squared_error": float(mean_squared_error(references, predictions))}


class MeanAbsoluteError(Metric, name="mean_absolute_error"):
    """Mean of the absolute differences, in the references' unit."""

    def score(self, predictions: list[float], references: list[float]) -> dict[str, float]:
        """``mean_absolute_error``."""
        from sklearn.metrics import mean_absolute_error

        _demand_finite(predictions, references)
        return {"mean_absolute_error": float(mean_absolute_error(references, predictions))}


class Pearson(Metric, name="pearson"):
    """Pearson's linear correlation, in [-1, 1]; 0 where a side is constant."""

    def score(self, predictions: list[float], references: list[float]) -> dict[str, float]:
        """``pearson``."""
        from scipy.stats import pearsonr

        _demand_finite(predictions, references)
        if not _vary(predictions, references):
            return {"pearson": 0.0}
        return {"pearson": float(pearsonr(references, predictions).statistic)}


class Spearman(Metric, name="spearman"):
    """Spearman's correlation of ranks, in [-1, 1]; 0 where a side is constant."""

    def score(self, predictions: list[float], references: list[float]) -> dict[str, float]:
        """``spearman``."""
        from scipy.stats import spearmanr

        _demand_finite(predictions, references)
        if not _vary(predictions, references):
            return {"spearman": 0.0}
        return {"spearman": float(spearmanr(references, predictions).statistic)}


class R2(Metric, name="r2"):
    """Share of the references' variance that is explained, at most 1; 0 is what their mean would score."""

    def score(self, predictions: list[float], references: list[float]) -> dict[str, float]:
        """``r2``."""
        from sklearn.metrics import r2_score

        _demand_finite(predictions, references)
        return {"r2": float(r2_score(references, predictions)) if len(references) > 1 else 0.0}
