"""Task: what the model is asked to do: rows → features → loss → outcomes → scores; or just a prediction."""

from xp.task.audio_classification import AudioClassification
from xp.task.base import Encoded, Task, Trainable
from xp.task.causal_lm import CausalLM
from xp.task.chat import Chat
from xp.task.image_classification import ImageClassification
from xp.task.question_answering import QuestionAnswering
from xp.task.text2text_generation import Text2TextGeneration
from xp.task.text_classification import TextClassification

__all__ = [
    "AudioClassification",
    "CausalLM",
    "Chat",
    "Encoded",
    "ImageClassification",
    "QuestionAnswering",
    "Task",
    "Text2TextGeneration",
    "TextClassification",
    "Trainable",
]
