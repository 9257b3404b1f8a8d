"""Functions in a few words: the first line of their docstring, or their name."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from typing import Any

WORD = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|[0-9]+")
"""A word of an identifier: ``HTTPServer2_start`` has http, server, 2 and start."""


def docstrings(path: str, text: str) -> Iterator[dict[str, Any]]:
    """``text``: the source of a function without its docstring; ``target``: the first line of the docstring."""
    from xp.data.standard_library import functions  # It imports this file, to list the units.

    for node, source in functions(text):
        written = ast.get_docstring(node)
        lines = source.split("\n")
        first = node.body[0]
        assert first.end_lineno is not None
        rest = lines[first.end_lineno - node.lineno + 1 :]
        # On the line of its def, or with nothing below it, a docstring leaves no function to be described.
        if written and written.strip() and first.lineno > node.lineno and any(rest):
            yield {
                "text": "\n".join([*lines[: first.lineno - node.lineno], *rest]),
                "target": written.strip().split("\n")[0].strip(),
            }


def names(path: str, text: str) -> Iterator[dict[str, Any]]:
    """``text``: the source of a function, its name hidden as ``_``; ``target``: its name in words.

    As in Allamanis, Peng and Sutton, 2016 (arXiv:1602.03001).
    """
    from xp.data.standard_library import functions

    for node, source in functions(text):
        words = WORD.findall(node.name)
        if words:
            hidden = re.sub(rf"\b{re.escape(node.name)}\b", "_", source)
            yield {"text": hidden, "target": " ".join(words).lower()}
