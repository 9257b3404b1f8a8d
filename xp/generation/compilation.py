"""Compilation: how the network of a static cache is compiled."""

from __future__ import annotations

from typing import Any

from xp.component import Settings


class Compile(Settings):
    """How torch compiles the network."""

    fullgraph: bool
    """Whether what cannot be one graph is an error; transformers takes false."""

    dynamic: bool | None
    """Whether graphs take any shape; null lets torch decide."""

    backend: str
    """Who compiles: inductor, eager, aot_eager, ..."""

    mode: str
    """default, reduce-overhead, max-autotune; transformers takes reduce-overhead."""

    options: dict[str, Any] | None
    """Of the backend."""
