"""Compilation: how the network of a static cache is compiled."""

from __future__ import annotations

from typing import Any

from pydantic import model_validator

from xp.component import Settings
from xp.error import nearest

MODES = ("default", "lite", "reduce-overhead", "max-autotune", "max-autotune-no-cudagraphs")
"""Those of inductor; other backends may have others."""


class Compile(Settings):
    """How torch compiles the network."""

    fullgraph: bool
    """Whether what cannot be one graph is an error; transformers takes false."""

    dynamic: bool | None
    """Whether graphs take any shape; null lets torch decide."""

    backend: str
    """Who compiles: inductor, eager, aot_eager, ..."""

    mode: str | None
    """default, reduce-overhead, max-autotune; transformers takes reduce-overhead. null: as the options say."""

    options: dict[str, Any] | None
    """Of the backend, instead of a mode."""

    @model_validator(mode="after")
    def _mode_is_one(self) -> Compile:
        if self.backend == "inductor" and self.mode is not None and self.mode not in MODES:
            raise ValueError(f"mode={self.mode}: inductor has no such mode.{nearest(self.mode, MODES)}")
        if self.mode is not None and self.options is not None:
            raise ValueError(f"mode={self.mode}: torch takes a mode or options; set one of them to null")
        return self
