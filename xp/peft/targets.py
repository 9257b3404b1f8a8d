"""Which layers an adapter is to be on, as a config says it."""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import AfterValidator


def _checked(wanted: str | list[str] | None) -> str | list[str] | None:
    """Names, or a regular expression that is one.

    Raises:
        ValueError: it is none, or there are no names.
    """
    if isinstance(wanted, str):
        try:
            re.compile(wanted)
        except re.error as error:
            raise ValueError(f"this is no regular expression: {error}; a list takes names") from error
    if wanted is not None and not wanted:
        raise ValueError("give names of layers, a regular expression, or all-linear")
    return wanted


Targets = Annotated[str | list[str], AfterValidator(_checked)]
"""``all-linear``, a regular expression over full names, or a list of name endings."""

TargetsOrUsual = Annotated[str | list[str] | None, AfterValidator(_checked)]
"""The same, or nothing: then the layers that peft takes of an architecture."""
