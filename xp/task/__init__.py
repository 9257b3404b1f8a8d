"""Task: what the model is asked to do: rows → features → loss → outcomes → metrics."""

from xp.task.audio_classification import AudioClassification
from xp.task.base import Encoded, Task, Trainable
from xp.task.causal_lm import CausalLM
from xp.task.image_classification import ImageClassification
from xp.task.text_classification import TextClassification

__all__ = [
    "AudioClassification",
    "CausalLM",
    "Encoded",
    "ImageClassification",
    "Task",
    "TextClassification",
    "Trainable",
]
