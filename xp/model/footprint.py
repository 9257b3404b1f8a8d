"""Footprint: what a quantized network takes in memory, and what it would take."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from xp.model.quantization import linear, nothing_quantized, quantized, settle

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel


@dataclass(frozen=True)
class Footprint:
    """What a network's weights take in memory, and what they would take without quantization."""

    how: str
    """int8, nf4 or fp4."""

    before: int
    """Bytes of the same weights in the type that those which were not quantized have."""

    after: int
    """Bytes of the weights with their scales."""

    layers: int
    """How many were quantized."""

    left: list[str]
    """Names of the linear layers that were not."""

    def __str__(self) -> str:
        """One line for a person."""
        names = ", ".join(self.left[:4]) + (f" and {len(self.left) - 4} more" if len(self.left) > 4 else "")
        rest = f"; as they were: {names}" if self.left else ""
        return f"{self.how}: {_size(self.before)} to {_size(self.after)}, {self.layers} linear layers{rest}"


def settled(network: PreTrainedModel, wanted: str | None, computes_in: torch.dtype) -> Footprint | None:
    """Have a network's quantized layers settled, and measure it; None where it has none.

    Args:
        network: just loaded.
        wanted: ``model.quantization``.
        computes_in: what ``precision`` says.

    Raises:
        UserError: some were asked for, and there are none.
    """
    if not quantized(network):
        if wanted:
            raise nothing_quantized(wanted)
        return None
    settle(network, computes_in)
    return measure(network)


def measure(network: PreTrainedModel) -> Footprint:
    """Count the bytes of a network that was quantized; tied weights once."""
    dtype: torch.dtype = network.dtype if network.config.dtype is None else network.config.dtype
    before = after = 0
    layers = quantized(network)
    held = {id(layer.weight) for layer in layers}
    for layer in layers:
        before += layer.in_features * layer.out_features * dtype.itemsize
        after += sum(tensor.numel() * tensor.element_size() for tensor in _parts(layer))
    for tensor in [*network.parameters(), *network.buffers()]:
        if id(tensor) not in held:
            size = tensor.numel() * tensor.element_size()
            before, after = before + size, after + size
    how = str(getattr(layers[0].weight, "quant_type", "int8"))
    return Footprint(how, before, after, len(layers), linear(network))


def _parts(layer: Any) -> list[torch.Tensor]:
    """A quantized layer's weight and its scales."""
    state = getattr(layer.weight, "quant_state", None)
    if state is not None:
        return [layer.weight, *(value for value in state.as_dict().values() if hasattr(value, "element_size"))]
    if not hasattr(layer.weight, "SCB"):
        raise ValueError("its config says that its weights are quantized, and they are stored as plain numbers")
    scales = layer.weight.SCB if layer.weight.SCB is not None else layer.state.SCB
    return [layer.weight, *([] if scales is None else [scales])]


def _size(number: int) -> str:
    """Bytes as a person reads them."""
    for unit, scale in (("GB", 1e9), ("MB", 1e6)):
        if number >= scale:
            return f"{number / scale:.1f} {unit}"
    return f"{number / 1e3:.1f} kB"
