"""Task: what the model is asked to do: rows → features → loss → outcomes → metrics."""

from xp.task.base import Encoded, Task, Trainable
from xp.task.causal_lm import CausalLM
from xp.task.chat import Chat
from xp.task.text_classification import TextClassification

__all__ = ["CausalLM", "Chat", "Encoded", "Task", "TextClassification", "Trainable"]
