"""The settings of a prediction that are the same for every task."""

from __future__ import annotations

from pydantic import NonNegativeInt, PositiveInt

from xp.component import Settings


class Prediction(Settings):
    """How inputs become predictions."""

    batch_size: PositiveInt
    """Inputs that command=predict has in the network at once, of similar length."""

    batch_tokens: PositiveInt
    """Tokens that command=generate has in the network at once, prompts and what may be written to them, instead of a
    number of inputs; a prompt that needs more goes alone."""

    continuous_batching: bool
    """Whether command=generate leaves batches to transformers' scheduler, which fills the place of each answer that has
    ended; for greedy decoders on a GPU."""

    output: str | None
    """One more place for the predictions, a .jsonl file; null: that of the run's folder alone."""

    shown: NonNegativeInt
    """How many predictions are shown on the screen."""
