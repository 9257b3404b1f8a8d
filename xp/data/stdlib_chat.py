"""Conversations about the standard library: a function's source is asked about, its docstring is the answer."""

from __future__ import annotations

import ast
import textwrap
from collections.abc import Iterator
from typing import Any

LONGEST = 1200
"""Characters of a function's source: what the bundled model has positions for, with the answer."""

SYSTEM = "You are a Python programmer. Answer in one sentence."
QUESTION = "What does this function do?"


def conversations(path: str, text: str) -> Iterator[dict[str, Any]]:
    """A conversation for each documented function of a module: ``{"messages": [system, user, assistant]}``."""
    from xp.data.standard_library import functions

    for node, source in functions(text):
        answer = sentence(ast.get_docstring(node) or "")
        body = undocumented(node, source)
        if len(answer.split()) > 2 and body and len(body) <= LONGEST:
            said = {"system": SYSTEM, "user": f"{QUESTION}\n\n{body}", "assistant": answer}
            yield {"messages": [{"role": role, "content": content} for role, content in said.items()]}


def sentence(docstring: str) -> str:
    """A docstring's first paragraph on one line."""
    return " ".join(docstring.strip().partition("\n\n")[0].split())


def undocumented(node: ast.FunctionDef | ast.AsyncFunctionDef, source: str) -> str:
    """A function's source without its docstring; empty if nothing else is in it.

    Args:
        node: the function, with the lines of its module.
        source: its dedented lines.
    """
    if len(node.body) < 2:
        return ""
    string = node.body[0]
    lines = source.split("\n")
    first, last = string.lineno - node.lineno, (string.end_lineno or string.lineno) - node.lineno
    if first == 0 or node.body[1].lineno - node.lineno <= last:  # All on one line; there are no lines to take out.
        return ""
    return textwrap.dedent("\n".join(lines[:first] + lines[last + 1 :])).rstrip()
