"""Questions about the functions of a file whose answers are pieces of their source, or which have none."""

from __future__ import annotations

import ast
import hashlib
import warnings
from collections.abc import Iterator
from typing import Any

ENOUGH = 300
"""Neighbouring functions are put together until a context has this many characters."""

TOO_MANY = 1500
"""A function of more characters is left out."""

WITHOUT = 6
"""Of the questions without an answer, one in so many stays; there are far more of them than of the others."""


def questions(path: str, text: str) -> Iterator[dict[str, Any]]:
    """Rows with ``id``, ``question``, ``context`` and ``answers``, as SQuAD 2.0 has them."""
    for number, context in enumerate(_contexts(text)):
        source = "\n\n".join(part for _, part in context)
        names = [node.name for node, _ in context]
        begin = 0
        for node, part in context:
            if names.count(node.name) == 1:
                for question, found in _about(node):
                    row = f"{path}:{number}:{question}"
                    if found is None:
                        if int.from_bytes(hashlib.sha256(row.encode()).digest()[:4], "big") % WITHOUT == 0:
                            yield _row(row, question, source, [])
                    elif (span := _span(node, part, found)) is not None:
                        yield _row(row, question, source, [(begin + span[0], begin + span[1])])
            begin += len(part) + len("\n\n")


def _row(name: str, question: str, context: str, spans: list[tuple[int, int]]) -> dict[str, Any]:
    answers = {"text": [context[start:end] for start, end in spans], "answer_start": [start for start, _ in spans]}
    return {"id": name, "question": question, "context": context, "answers": answers}


def _contexts(text: str) -> Iterator[list[tuple[Any, str]]]:
    """Functions that follow each other, without those inside of another one."""
    from xp.data.standard_library import functions  # It imports this file, to list the units.

    context: list[tuple[Any, str]] = []
    after = size = 0
    for node, source in functions(text):
        if node.lineno <= after:
            continue
        after = node.end_lineno or node.lineno
        if len(source) > TOO_MANY or not source.startswith(("def ", "async def ")):
            continue  # Dedenting fails where a text within the function begins further left than it.
        context.append((node, source))
        size += len(source)
        if size >= ENOUGH:
            yield context
            context, size = [], 0
    if context:
        yield context


def _about(node: Any) -> Iterator[tuple[str, ast.expr | None]]:
    """What can be asked about a function, with the expression that answers; None where nothing does."""
    inner = list(_own(node))
    returned = [each.value for each in inner if isinstance(each, ast.Return) and each.value is not None]
    if len(returned) <= 1 and not any(isinstance(each, ast.Yield | ast.YieldFrom) for each in inner):
        yield f"What does {node.name} return?", returned[0] if returned else None
    raised = [each.exc for each in inner if isinstance(each, ast.Raise) and each.exc is not None]
    if len(raised) <= 1:
        error = raised[0].func if raised and isinstance(raised[0], ast.Call) else next(iter(raised), None)
        yield f"What does {node.name} raise?", error
    plain = [*node.args.posonlyargs, *node.args.args]
    defaults = [None] * (len(plain) - len(node.args.defaults)) + node.args.defaults + node.args.kw_defaults
    for parameter, default in zip([*plain, *node.args.kwonlyargs], defaults, strict=True):
        if parameter.arg not in ("self", "cls"):
            yield f"What is the default of {parameter.arg} in {node.name}?", default


def _own(node: ast.AST) -> Iterator[ast.AST]:
    """All that is in a function but not in another one inside of it."""
    for child in ast.iter_child_nodes(node):
        if not isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda | ast.ClassDef):
            yield child
            yield from _own(child)


def _span(node: Any, source: str, found: ast.expr) -> tuple[int, int] | None:
    """First and one past the last character of an expression in its function's dedented source."""
    lines = source.split("\n")
    starts = [0]
    for line in lines:
        starts.append(starts[-1] + len(line) + 1)

    def place(line: int, column: int) -> int:
        inside: int = line - node.lineno
        # Columns are counted in bytes of the line as it was; what dedenting took from it are single bytes.
        kept = lines[inside].encode()[: max(0, column - node.col_offset)]
        return starts[inside] + len(kept.decode(errors="ignore"))

    assert found.end_lineno is not None
    assert found.end_col_offset is not None
    span = place(found.lineno, found.col_offset), place(found.end_lineno, found.end_col_offset)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SyntaxWarning)  # The library's own.
        try:
            same = ast.unparse(ast.parse(source[span[0] : span[1]].strip(), mode="eval").body) == ast.unparse(found)
        except SyntaxError:  # Over several lines it may need the brackets around it to be one expression.
            return None
    return span if same else None
