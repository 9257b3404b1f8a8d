"""Backend: who turns the crank of a training: the native loop on one device, accelerate, or transformers' Trainer."""

from xp.backend.base import Backend

__all__ = ["Backend"]
