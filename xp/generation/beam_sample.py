"""Beam sample: beams whose continuations are drawn at random."""

from __future__ import annotations

from xp.generation.beams import Beams
from xp.generation.randomness import Random


class BeamSample(Random, Beams, name="beam_sample"):
    """Follow several beginnings at once, each continued at random, and end with the likeliest whole."""

    @property
    def alone(self) -> bool:
        """Always: beams of several inputs would draw from one stream."""
        return True
