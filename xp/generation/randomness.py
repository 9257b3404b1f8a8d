"""Randomness: from which part of the model's distribution tokens are drawn."""

from __future__ import annotations

from typing import Annotated, ClassVar

from pydantic import Field, NonNegativeInt, PositiveFloat

from xp.generation.base import Generation

Share = Annotated[float, Field(gt=0, le=1)]
Below1 = Annotated[float, Field(ge=0, lt=1)]


class Random(Generation):
    """A way to write that draws tokens at random. What leaves tokens out applies in this order."""

    do_sample: ClassVar[bool] = True

    temperature: PositiveFloat
    """Below 1 the likely tokens become more likely still, above 1 less."""

    top_h: Annotated[float, Field(gt=0, lt=1)] | None
    """Draw from the most likely tokens that together have this share of the entropy; null draws from all."""

    top_k: NonNegativeInt
    """Draw from this many most likely tokens (Fan et al., 2018); 0 draws from all."""

    top_p: Share
    """Draw from the most likely tokens that together have this probability (Holtzman et al., 2020)."""

    min_p: Annotated[float, Field(ge=0, le=1)] | None
    """Draw from tokens of at least this share of the likeliest one's probability (Nguyen et al., 2024); null: all."""

    typical_p: Share
    """Draw from the tokens of most ordinary surprise that together have this probability (Meister et al., 2022)."""

    epsilon_cutoff: Below1
    """Draw from tokens of at least this probability (Hewitt et al., 2022); 0 draws from all."""

    eta_cutoff: Below1
    """Draw from tokens of at least this probability, or less where the model is unsure (likewise); 0: all."""
