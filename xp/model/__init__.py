"""Model: the network and what turns inputs into tensors, pretrained or from scratch."""

from xp.model.base import Loaded, Model, Wish, head, nameless, positions
from xp.model.pretrained import Pretrained
from xp.model.scratch import Scratch

__all__ = ["Loaded", "Model", "Pretrained", "Scratch", "Wish", "head", "nameless", "positions"]
