"""Comparison: what differs between runs, as they are remembered by MLflow or by their folders."""

from xp.comparison.differences import Differences, curves, differences, written
from xp.comparison.facts import Facts
from xp.comparison.origin import Comparing, Origin
from xp.comparison.table import show

__all__ = ["Comparing", "Differences", "Facts", "Origin", "curves", "differences", "show", "written"]
