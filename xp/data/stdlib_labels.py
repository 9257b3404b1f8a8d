"""The standard library's functions with what can be read off their syntax tree: modules in use, branches, the rest."""

from __future__ import annotations

import ast
import hashlib
import math
import re
from collections.abc import Iterator
from typing import Any

MODULES = ("errno", "functools", "itertools", "logging", "os", "re", "socket", "sys", "threading", "time", "types")
"""The modules that the library's functions use most, that are modules wherever the name is seen."""

BRANCHES = (ast.If, ast.IfExp, ast.For, ast.AsyncFor, ast.While, ast.ExceptHandler, ast.comprehension, ast.match_case)


def used_modules(path: str, text: str) -> Iterator[dict[str, Any]]:
    """Functions that use some of `MODULES`, their names taken out: ``text``, and ``label``, a list of which."""
    from xp.data.standard_library import functions

    for node, source in functions(text):
        owners = [each.value for each in ast.walk(node) if isinstance(each, ast.Attribute)]
        if used := sorted({owner.id for owner in owners if isinstance(owner, ast.Name)} & {*MODULES}):
            hidden = re.sub(rf"(?<![\w.])({'|'.join(used)})(?=\.)", "module", source)
            hidden = re.sub(rf"import ({'|'.join(used)})\b", "import module", hidden)
            yield {"text": hidden, "label": used}


def branches(path: str, text: str) -> Iterator[dict[str, Any]]:
    """Functions without their docstring: ``text``, and ``label``, log₂ of their cyclomatic complexity (McCabe, 1976).

    Both operands of ``and`` and ``or`` count, as they do for the measures in use.
    """
    from xp.data.standard_library import functions

    for node, source in functions(text):
        count = 1
        for each in ast.walk(node):
            count += isinstance(each, BRANCHES) + (len(each.values) - 1 if isinstance(each, ast.BoolOp) else 0)
        yield {"text": without_docstring(node, source), "label": math.log2(count)}


def halves(path: str, text: str) -> Iterator[dict[str, Any]]:
    """Beginnings of functions (``text``), each with a rest (``text_pair``): its own, or another's of the same file."""
    from xp.data.standard_library import functions

    parts = []
    for node, source in functions(text):
        lines = without_docstring(node, source).split("\n")
        if 6 <= len(lines) <= 24:
            middle = len(lines) // 2
            parts.append(("\n".join(lines[:middle]), "\n".join(lines[middle:])))
    if len(parts) < 2:
        return
    for number, (begin, rest) in enumerate(parts):
        if chance(path, number) < 0.5:
            yield {"text": begin, "text_pair": rest, "label": "own"}
        else:
            at = int(chance(path, number, "other") * (len(parts) - 1))
            yield {"text": begin, "text_pair": parts[at + (at >= number)][1], "label": "other"}


def chance(*of: Any) -> float:
    """A number in [0, 1) that is always the same of the same: not Python's ``hash``, which differs by process."""
    return int.from_bytes(hashlib.sha256(repr(of).encode()).digest()[:6], "big") / (1 << 48)


def without_docstring(node: ast.FunctionDef | ast.AsyncFunctionDef, source: str) -> str:
    """A function's source lines, less those of its docstring."""
    first = node.body[0]
    if len(node.body) == 1 or not (isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant)):
        return source
    lines = source.split("\n")
    assert first.end_lineno is not None
    return "\n".join(lines[: first.lineno - node.lineno] + lines[first.end_lineno - node.lineno + 1 :])
