"""Generation: how a model that writes text chooses the next token, and when it stops."""

from xp.generation.base import Generation

__all__ = ["Generation"]
