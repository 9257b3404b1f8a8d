"""Beam: the likeliest of several wholes."""

from __future__ import annotations

from xp.generation.beams import Beams


class Beam(Beams, name="beam"):
    """Follow the likeliest few beginnings at once and end with the likeliest whole."""
