"""Chat: a conversation with a model in the terminal, or through a pipe."""

from xp.chat.settings import Chat

__all__ = ["Chat"]
