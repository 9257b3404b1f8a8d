"""What is predicted for a trainable task: the parameters of its pipeline, as settings (``task.prediction``)."""

from __future__ import annotations

from typing import Literal

from pydantic import NonNegativeInt, PositiveInt

from xp.component import Settings

Function = Literal["softmax", "sigmoid", "none"]
"""What turns a classifier's numbers into scores."""


class ClassPrediction(Settings):
    """Classes of an image or a sound."""

    top_k: PositiveInt | None
    """How many classes are given, the likeliest first; null gives the pipeline's five."""

    function_to_apply: Function | None
    """What turns the network's numbers into scores; null: what its config says it was trained with."""


class TextPrediction(Settings):
    """Classes of a text."""

    top_k: PositiveInt | Literal["all"]
    """How many classes are given, the likeliest first."""

    function_to_apply: Function | None
    """What turns the network's numbers into scores; null: what its config says it was trained with."""


class TokenPrediction(Settings):
    """Labels of tokens, or of what they make up together."""

    aggregation_strategy: Literal["none", "simple", "first", "average", "max"]
    """How tokens become entities: none gives each token, simple joins neighbours, the others decide for whole words."""

    ignore_labels: list[str]
    """Labels that are left out."""

    stride: NonNegativeInt | None
    """Tokens that windows of a long text share; null: a text longer than the model reaches is refused."""


class MaskPrediction(Settings):
    """Words for a masked token."""

    top_k: PositiveInt
    """How many words are given, the likeliest first."""

    targets: list[str] | None
    """Choose from these words alone; null chooses from the whole vocabulary."""


class ContinuationPrediction(Settings):
    """Texts that go on from a prompt."""

    return_full_text: bool
    """Whether the prompt comes before what was written."""

    num_return_sequences: PositiveInt
    """How many continuations each prompt gets; more than one needs generation=sample or beam."""

    stop_sequence: str | None
    """Stop once this was written; null stops at the end token alone."""
