"""Caching: what keeps the network's work on earlier tokens needs of the machine."""

from __future__ import annotations

from typing import TYPE_CHECKING

from xp.error import UserError, nearest

if TYPE_CHECKING:
    import torch

    from xp.generation.base import Generation

PACKAGES = {"quanto": "optimum-quanto", "hqq": "hqq", "fp8": ""}
"""Backends of the quantized cache, and the package that each needs beside torch."""


def check(generation: Generation, device: torch.device) -> None:
    """Refuse a cache that this machine cannot have, before anything is loaded.

    Raises:
        UserError: layers that move to a GPU and back, and there is none; or a package that is not installed.
    """
    kind = generation.cache_implementation
    if kind in ("offloaded", "offloaded_static") and device.type != "cuda":
        raise UserError(
            f"generation.cache_implementation={kind}: it spares a GPU's memory, and this run is on {device}; use "
            f"{'static' if kind == 'offloaded_static' else 'dynamic'}"
        )
    if kind != "quantized":
        return
    from transformers.utils import is_hqq_available, is_optimum_quanto_available

    backend = str((generation.cache_config or {}).get("backend", "quanto"))
    if backend not in PACKAGES:
        raise UserError(f"generation.cache_config.backend={backend}: there is no such one.{nearest(backend, PACKAGES)}")
    there = {"quanto": is_optimum_quanto_available, "hqq": is_hqq_available}
    if backend in there and not there[backend]():
        raise UserError(
            f"generation.cache_implementation=quantized: its backend {backend} needs a package that is not installed; "
            f"pip install {PACKAGES[backend]}"
        )
