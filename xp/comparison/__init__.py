"""Comparison: what differs between runs, as they are remembered by MLflow or by their folders."""

from xp.comparison.differences import Differences, curves, differences, digits
from xp.comparison.facts import Facts
from xp.comparison.origin import Comparing, Origin

__all__ = ["Comparing", "Differences", "Facts", "Origin", "curves", "differences", "digits"]
