"""Model: the network and what turns inputs into tensors, pretrained or from scratch."""

from xp.model.base import Loaded, Model, Wish, head, positions

__all__ = ["Loaded", "Model", "Wish", "head", "positions"]
