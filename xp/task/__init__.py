"""Task: what the model is asked to do: rows → features → loss → outcomes → scores; or just a prediction."""

from importlib import import_module
from pkgutil import iter_modules

from xp.task.audio import AutomaticSpeechRecognition, TextToAudio, ZeroShotAudioClassification
from xp.task.audio_classification import AudioClassification
from xp.task.base import Encoded, Trainable
from xp.task.causal_lm import CausalLM
from xp.task.chat import Chat
from xp.task.image import (
    DepthEstimation,
    ImageFeatureExtraction,
    ImageSegmentation,
    ImageToImage,
    KeypointMatching,
    MaskGeneration,
    ObjectDetection,
    VideoClassification,
)
from xp.task.image_classification import ImageClassification
from xp.task.masked_lm import MaskedLM
from xp.task.multimodal import (
    AnyToAny,
    DocumentQuestionAnswering,
    ImageTextToText,
    ImageToText,
    VisualQuestionAnswering,
    ZeroShotImageClassification,
    ZeroShotObjectDetection,
)
from xp.task.multiple_choice import MultipleChoice
from xp.task.question_answering import QuestionAnswering
from xp.task.task import Task
from xp.task.text import Decision, FeatureExtraction, TableQuestionAnswering, ZeroShotClassification
from xp.task.text2text_generation import Text2TextGeneration
from xp.task.text_classification import TextClassification
from xp.task.token_classification import TokenClassification

for _module in iter_modules(__path__):  # A new task is a file here, and nothing to add.
    import_module(f"{__name__}.{_module.name}")

__all__ = [
    "AnyToAny",
    "AudioClassification",
    "AutomaticSpeechRecognition",
    "CausalLM",
    "Chat",
    "Decision",
    "DepthEstimation",
    "DocumentQuestionAnswering",
    "Encoded",
    "FeatureExtraction",
    "ImageClassification",
    "ImageFeatureExtraction",
    "ImageSegmentation",
    "ImageTextToText",
    "ImageToImage",
    "ImageToText",
    "KeypointMatching",
    "MaskGeneration",
    "MaskedLM",
    "MultipleChoice",
    "ObjectDetection",
    "QuestionAnswering",
    "TableQuestionAnswering",
    "Task",
    "Text2TextGeneration",
    "TextClassification",
    "TextToAudio",
    "TokenClassification",
    "Trainable",
    "VideoClassification",
    "VisualQuestionAnswering",
    "ZeroShotAudioClassification",
    "ZeroShotClassification",
    "ZeroShotImageClassification",
    "ZeroShotObjectDetection",
]
