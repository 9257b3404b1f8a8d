"""The standard library's functions word by word: Python's own tokenizer and parser say what each word is."""

from __future__ import annotations

import ast
import io
import keyword
import tokenize
from collections.abc import Iterator
from typing import Any

MOST_WORDS, LONGEST_WORD = 100, 40
"""Functions of more words, or with a longer one, are left out: rows stay short, so a first run is quick."""

KINDS = {tokenize.OP: "operator", tokenize.NUMBER: "number", tokenize.STRING: "string", tokenize.COMMENT: "comment"}
LAYOUT = {tokenize.NEWLINE, tokenize.NL, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER}


def tagged_words(path: str, text: str) -> Iterator[dict[str, Any]]:
    """Functions as ``tokens``, Python's own, and ``tags``, what each is there; layout and docstrings are left out."""
    from xp.data.standard_library import functions
    from xp.data.stdlib_labels import without_docstring

    for node, source in functions(text):
        if node.end_lineno is None or node.end_lineno - node.lineno > MOST_WORDS:
            continue
        short = without_docstring(node, source)
        # Columns of the syntax tree count bytes; f-strings are one word to some versions of Python, many to others.
        if not short.isascii() or any(isinstance(each, ast.JoinedStr) for each in ast.walk(node)):
            continue
        try:
            names = dict(_names(ast.parse(short)))
            words = [word for word in tokenize.generate_tokens(io.StringIO(short).readline) if word.type not in LAYOUT]
        except (SyntaxError, tokenize.TokenError):  # A string whose lines dedenting has changed.
            continue
        if len(words) > MOST_WORDS or max(len(word.string) for word in words) > LONGEST_WORD:
            continue
        tags = [
            KINDS.get(word.type) or ("keyword" if keyword.iskeyword(word.string) else names.get(word.start, "name"))
            for word in words
        ]
        yield {"tokens": [word.string for word in words], "tags": tags}


def _names(tree: ast.AST) -> Iterator[tuple[tuple[int, int], str]]:
    """Line and column of each name whose place in the syntax tree says what it is; the last word on a place holds."""
    for node in ast.walk(tree):  # Breadth first: a call comes before the name that it calls.
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield (node.lineno, node.col_offset + (4 if isinstance(node, ast.FunctionDef) else 10)), "function"
        elif isinstance(node, ast.ClassDef):
            yield (node.lineno, node.col_offset + 6), "class"
        elif isinstance(node, ast.arg):
            yield (node.lineno, node.col_offset), "parameter"
        elif isinstance(node, ast.keyword) and node.arg:
            yield (node.lineno, node.col_offset), "argument"
        elif isinstance(node, ast.Attribute):
            assert node.end_lineno is not None
            assert node.end_col_offset is not None
            called = getattr(node, "called", False)
            yield (node.end_lineno, node.end_col_offset - len(node.attr)), "method" if called else "attribute"
        elif isinstance(node, ast.Name):
            called = getattr(node, "called", False)
            stored = isinstance(node.ctx, ast.Store)
            yield (node.lineno, node.col_offset), "call" if called else "assigned" if stored else "name"
        if isinstance(node, ast.Call):
            node.func.called = True  # type: ignore[attr-defined]
