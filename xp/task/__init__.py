"""Task: what the model is asked to do: rows → features → loss → outcomes → scores; or just a prediction."""

from xp.task.base import Encoded, Trainable
from xp.task.task import Task

__all__ = ["Encoded", "Task", "Trainable"]
