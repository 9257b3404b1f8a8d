"""Weights put aside during a training, and taken up again."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import nn


def save_weights(network: nn.Module, file: Path) -> None:
    """Write the trainable weights; the file is there whole or not at all."""
    from safetensors.torch import save_file

    trained = {name: value.detach().contiguous() for name, value in network.named_parameters() if value.requires_grad}
    part = file.with_suffix(".part")
    save_file(trained, part)
    os.replace(part, file)


def load_weights(network: nn.Module, file: Path) -> None:
    """Take up again what `save_weights` has written for this network."""
    import torch
    from safetensors.torch import load_file

    saved = load_file(file)
    with torch.no_grad():
        for name, value in network.named_parameters():
            if value.requires_grad:
                value.copy_(saved[name])
