"""Sample: the next token drawn at random."""

from __future__ import annotations

from xp.generation.drafts import Drafted
from xp.generation.randomness import Random


class Sample(Random, Drafted, name="sample"):
    """Draw the next token at random from the model's distribution, or from the likely part of it."""
