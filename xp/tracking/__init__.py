"""Tracking: what the world sees of a run. The only folder that imports mlflow."""

from xp.tracking.address import run_in
from xp.tracking.journal import abandon, entries, finished, identified, lives
from xp.tracking.remembered import Remembered, remember
from xp.tracking.store import Tracking
from xp.tracking.sync import sync
from xp.tracking.tracker import Tracker, Untracked

__all__ = [
    "Remembered",
    "Tracker",
    "Tracking",
    "Untracked",
    "abandon",
    "entries",
    "finished",
    "identified",
    "lives",
    "remember",
    "run_in",
    "sync",
]
