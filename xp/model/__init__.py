"""Model: the network and its tokenizer, pretrained or from scratch."""

from xp.model.base import Loaded, Model, Wish, positions
from xp.model.pretrained import Pretrained
from xp.model.scratch import Scratch

__all__ = ["Loaded", "Model", "Pretrained", "Scratch", "Wish", "positions"]
