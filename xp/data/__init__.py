"""Data: where the rows are, which columns they have, and which splits."""

from xp.data.base import Data
from xp.data.splits import Side, Splits

__all__ = ["Data", "Side", "Splits"]
