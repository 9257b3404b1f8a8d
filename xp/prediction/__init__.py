"""Prediction: from inputs to predictions, through transformers' pipelines or by the task itself."""

from xp.prediction.settings import Prediction

__all__ = ["Prediction"]
