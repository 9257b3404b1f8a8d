"""Python's own standard library as a data set: real text that every user has, with no network and no download."""

from __future__ import annotations

import ast
import hashlib
import os
import platform
import sysconfig
import textwrap
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import PositiveInt

from xp.data.base import Data
from xp.error import UserError

if TYPE_CHECKING:
    from datasets import Dataset

SKIPPED = {"site-packages", "dist-packages", "test", "tests", "idle_test", "__pycache__"}
"""Folders that are not the library itself: what is installed beside it, and its tests (not everywhere installed)."""

HELD_OUT = 10
"""One file in this many is for evaluation, by a hash of its path: the same files on every machine."""


class StandardLibrary(Data, name="standard_library"):
    """Files or functions of the interpreter's standard library; a file is wholly in train or wholly in eval."""

    unit: Literal[
        "file", "function", "question", "docstring", "name", "chat", "used_modules", "branches", "tagged_words",
        "next_lines", "line_pairs",
    ]  # fmt: skip
    """What a row is: a whole file (``text``), a function with its package (``text``, ``label``), a question about one
    of several functions (``question``, ``context``, ``answers``), a function with the first sentence of its docstring
    or the words of its name (``text``, ``target``), a conversation about a function (``messages``), or what the
    function of that name in one of the files beside this one says."""

    packages: PositiveInt | None
    """For functions: keep those of the packages with the most functions, this many; null keeps all packages."""

    def read(self, train: bool) -> tuple[Dataset | None, Dataset | None, str]:
        """Rows in the order of their file's path."""
        from datasets import Dataset

        root = Path(sysconfig.get_path("stdlib"))
        rows: Sequence[dict[str, Any]] = _rows(root, self.unit)
        if not rows:
            raise UserError(f"data=standard_library: this Python has no library sources in {root}")
        if self.unit == "function" and self.packages is not None:
            kept = {label for label, _ in Counter(row["label"] for row in rows).most_common(self.packages)}
            rows = [row for row in rows if row["label"] in kept]
        sides: dict[bool, list[dict[str, Any]]] = {True: [], False: []}
        for row in rows:
            sides[held_out(row["path"])].append(row)
        source = f"standard library of Python {platform.python_version()}"
        return Dataset.from_list(sides[False]), Dataset.from_list(sides[True]), source


def _files(path: str, text: str) -> Iterator[dict[str, Any]]:
    yield {"text": text}


def _packaged_functions(path: str, text: str) -> Iterator[dict[str, Any]]:
    package, _, inside = path.partition("/")
    if not inside:  # A module of its own, not a package.
        return
    for _, source in functions(text):
        yield {"text": source, "label": package}


def _units() -> dict[str, Callable[[str, str], Iterator[dict[str, Any]]]]:
    """What makes the rows of each unit from a file's path inside the library and its text."""
    from xp.data import stdlib_chat, stdlib_labels, stdlib_lines, stdlib_questions, stdlib_summaries, stdlib_tokens

    return {
        "file": _files,
        "function": _packaged_functions,
        "question": stdlib_questions.questions,
        "docstring": stdlib_summaries.docstrings,
        "name": stdlib_summaries.names,
        "chat": stdlib_chat.conversations,
        "used_modules": stdlib_labels.used_modules,
        "branches": stdlib_labels.branches,
        "tagged_words": stdlib_tokens.tagged_words,
        "next_lines": stdlib_lines.next_lines,
        "line_pairs": stdlib_lines.line_pairs,
    }


def held_out(path: str) -> bool:
    """Whether a file of the library, by its path inside it, is for evaluation."""
    return int.from_bytes(hashlib.sha256(path.encode()).digest()[:4], "big") % HELD_OUT == 0


@cache
def _rows(root: Path, unit: str) -> tuple[dict[str, Any], ...]:
    """The rows of every file, in the order of their path."""
    read = _units()[unit]
    return tuple(row | {"path": path} for path, text in _sources(root) for row in read(path, text))


@cache
def _sources(root: Path) -> tuple[tuple[str, str], ...]:
    """Path inside the library and text of each of its files, sorted by path; files not in UTF-8 are left out."""
    found = []
    for folder, inside, names in os.walk(root):
        inside[:] = sorted(set(inside) - SKIPPED)  # Site-packages can hold many times what the library does.
        for file in (Path(folder, name) for name in names if name.endswith(".py")):
            with suppress(UnicodeDecodeError):
                if text := file.read_text("utf-8"):
                    found.append((file.relative_to(root).as_posix(), text))
    return tuple(sorted(found))


def functions(text: str) -> Iterator[tuple[ast.FunctionDef | ast.AsyncFunctionDef, str]]:
    """The functions and methods of a module in the order of their lines, with their dedented source."""
    lines = text.split("\n")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SyntaxWarning)  # The library's own, for example invalid escapes in lib2to3.
        try:
            tree = ast.parse(text)
        except SyntaxError:
            return
    found = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
    for node in sorted(found, key=lambda node: node.lineno):
        yield node, textwrap.dedent("\n".join(lines[node.lineno - 1 : node.end_lineno]))
