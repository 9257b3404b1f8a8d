"""Watermark: a mark in what was written."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, PositiveInt

from xp.component import Settings


class Watermark(Settings):
    """A mark that a program finds in what was written (Kirchenbauer et al., 2023, arXiv:2301.10226)."""

    greenlist_ratio: Annotated[float, Field(gt=0, lt=1)]
    """Share of the vocabulary that is preferred at each token; transformers takes 0.25."""

    bias: float
    """How much it is preferred; transformers takes 2."""

    hashing_key: PositiveInt
    """What decides which tokens these are; who knows it can find the mark. transformers takes 15485863."""

    seeding_scheme: Literal["lefthash", "selfhash"]
    """What else decides: the tokens before, or the token itself too, which is slower."""

    context_width: PositiveInt
    """How many tokens before; transformers takes 1."""
