"""The settings of a prediction that are the same for every task."""

from __future__ import annotations

from pydantic import NonNegativeInt, PositiveInt

from xp.component import Settings


class Prediction(Settings):
    """How inputs become predictions."""

    batch_size: PositiveInt
    """Inputs that go through the network at once, of similar length."""

    output: str | None
    """One more place for the predictions, a .jsonl file; null: ``predictions.jsonl`` of the run's folder alone."""

    shown: NonNegativeInt
    """How many predictions are shown on the screen."""
