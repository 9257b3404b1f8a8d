"""Task: what the model is asked to do: rows → features → loss → outcomes → metrics."""

from xp.task.base import Encoded, Task, Trainable
from xp.task.causal_lm import CausalLM
from xp.task.masked_lm import MaskedLM
from xp.task.multiple_choice import MultipleChoice
from xp.task.text_classification import TextClassification
from xp.task.token_classification import TokenClassification

__all__ = [
    "CausalLM",
    "Encoded",
    "MaskedLM",
    "MultipleChoice",
    "Task",
    "TextClassification",
    "TokenClassification",
    "Trainable",
]
