"""The standard library's functions with what can be read off their syntax tree: modules in use, branches."""

from __future__ import annotations

import ast
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


def without_docstring(node: ast.FunctionDef | ast.AsyncFunctionDef, source: str) -> str:
    """A function's source lines, less those of its docstring."""
    first = node.body[0]
    if len(node.body) == 1 or not (isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant)):
        return source
    lines = source.split("\n")
    assert first.end_lineno is not None
    return "\n".join(lines[: first.lineno - node.lineno] + lines[first.end_lineno - node.lineno + 1 :])
