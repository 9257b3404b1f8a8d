"""Task: what the model is asked to do: rows → features → loss → outcomes → scores; or just a prediction."""

from xp.task.audio_classification import AudioClassification
from xp.task.base import Encoded, Task, Trainable
from xp.task.causal_lm import CausalLM
from xp.task.chat import Chat
from xp.task.image_classification import ImageClassification
from xp.task.masked_lm import MaskedLM
from xp.task.multiple_choice import MultipleChoice
from xp.task.question_answering import QuestionAnswering
from xp.task.text2text_generation import Text2TextGeneration
from xp.task.text_classification import TextClassification
from xp.task.token_classification import TokenClassification

__all__ = [
    "AudioClassification",
    "CausalLM",
    "Chat",
    "Encoded",
    "ImageClassification",
    "MaskedLM",
    "MultipleChoice",
    "QuestionAnswering",
    "Task",
    "Text2TextGeneration",
    "TextClassification",
    "TokenClassification",
    "Trainable",
]
