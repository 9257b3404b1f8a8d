"""Model: the network and what turns inputs into tensors, pretrained or from scratch."""

from xp.model.base import Loaded, Model, Wish, head, nameless, positions
from xp.model.quantization import check_trainable

__all__ = ["Loaded", "Model", "Wish", "check_trainable", "head", "nameless", "positions"]
