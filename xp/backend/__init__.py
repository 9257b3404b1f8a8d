"""Backend: who turns the crank of a training: the native loop on one device, accelerate, or transformers' Trainer."""

from xp.backend.accelerate import Accelerate
from xp.backend.base import Backend
from xp.backend.hf import HuggingFace
from xp.backend.torch import Torch

__all__ = ["Accelerate", "Backend", "HuggingFace", "Torch"]
