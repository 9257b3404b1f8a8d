"""Peft: which of a network's weights are trained: all of them, or a small adapter by any method of peft."""

from xp.peft.base import Peft, Purpose, count

__all__ = ["Peft", "Purpose", "count"]
