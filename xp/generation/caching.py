"""Caching: what keeps the network's work on earlier tokens, and what that needs of other settings and the machine."""

from __future__ import annotations

from typing import TYPE_CHECKING

from xp.error import UserError, nearest

if TYPE_CHECKING:
    import torch

    from xp.generation.base import Generation

STATIC = ("static", "offloaded_static")
"""Caches of a fixed size, which compiled networks need."""

PACKAGES = {"quanto": "optimum-quanto", "hqq": "hqq", "fp8": ""}
"""Backends of the quantized cache, and the package that each needs beside torch."""


def fit(generation: Generation) -> None:
    """Refuse settings that are for another cache.

    Raises:
        ValueError: names the setting.
    """
    for name in ("cache_implementation", "cache_config", "max_cache_len"):
        if not generation.use_cache and getattr(generation, name) is not None:
            raise ValueError(f"{name}: there is no cache with use_cache=false; use true")
    if generation.cache_config is not None and generation.cache_implementation != "quantized":
        raise ValueError("cache_config: only a quantized cache has options; give cache_implementation=quantized")
    static = generation.cache_implementation in STATIC
    if generation.max_cache_len is not None and not static:
        raise ValueError("max_cache_len: other caches grow; give cache_implementation=static")
    if generation.compile_config is not None and (not static or generation.disable_compile):
        wrong = "disable_compile=true" if static else "other caches are not compiled"
        raise ValueError(f"compile_config: {wrong}; give cache_implementation=static disable_compile=false")


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
