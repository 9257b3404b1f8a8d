"""Console: rich's, which prints what it is given; by itself it takes ``[a,b]`` for a style, ``:x:`` for a picture."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console


def console(**options: Any) -> Console:
    """A console without markup, emoji and colours of numbers; ``options`` are rich's others."""
    from rich.console import Console

    return Console(markup=False, emoji=False, highlight=False, **options)
