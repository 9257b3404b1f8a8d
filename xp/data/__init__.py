"""Data: where the rows are, which columns they have, and which splits."""

from xp.data.base import Data
from xp.data.digits import Digits
from xp.data.files import Files
from xp.data.hub import Hub
from xp.data.mixture import Mixture
from xp.data.saved import Saved
from xp.data.splits import Side, Splits
from xp.data.standard_library import StandardLibrary
from xp.data.tones import Tones

__all__ = [
    "Data",
    "Digits",
    "Files",
    "Hub",
    "Mixture",
    "Saved",
    "Side",
    "Splits",
    "StandardLibrary",
    "Tones",
]
