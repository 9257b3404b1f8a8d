"""Tracking: what the world sees of a run. The only folder that imports mlflow."""

from xp.tracking.abandoned import identified, lives
from xp.tracking.store import Tracking
from xp.tracking.tracker import Tracker, Untracked

__all__ = ["Tracker", "Tracking", "Untracked", "identified", "lives"]
