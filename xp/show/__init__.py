"""Show: rows as the model sees them, token by token, and how long they are; nothing is trained."""

from xp.show.draw import draw_legend, draw_lengths, draw_rows
from xp.show.look import Example, Shown, Token, look

__all__ = ["Example", "Shown", "Token", "draw_legend", "draw_lengths", "draw_rows", "look"]
