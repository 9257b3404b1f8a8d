"""Functions in a few words: the first sentence of their docstring, or their name."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from typing import Any

from xp.data.stdlib_chat import sentence, undocumented

WORD = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|[0-9]+")
"""A word of an identifier: ``HTTPServer2_start`` has http, server, 2 and start."""

SENTENCE_END = re.compile(r"(?<=[.!?]) (?=[A-Z])|[:;] ")
"""Where a docstring's first sentence ends, on one line; also at what introduces a list or an example."""

FEWEST, MOST = 3, 16
"""Words of a sentence that describes; longer ones, one in fifteen, would mostly teach how long they are."""

SHOWN = 14
"""Words of a function that are shown: its name, its parameters and how it begins, so that a step is short."""


def docstrings(path: str, text: str) -> Iterator[dict[str, Any]]:
    """``text``: the first words of a function without its docstring; ``target``: the docstring's first sentence.

    Both in lower case and without punctuation, identifiers split into their words, as LeClair and McMillan, 2019
    (arXiv:1904.02660), write functions and summaries; docstrings of fewer or more words than allowed are left out.
    """
    from xp.data.standard_library import functions  # It imports this file, to list the units.

    for node, source in functions(text):
        written = ast.get_docstring(node) or ""
        said = words(SENTENCE_END.split(sentence(written))[0])
        # Not the examples, bullets and rules that some begin with.
        if written[:1].isalpha() and FEWEST <= len(said) <= MOST and (rest := undocumented(node, source)):
            yield {"text": " ".join(words(rest)[:SHOWN]), "target": " ".join(said)}


def words(text: str) -> list[str]:
    """The words of a text and of the identifiers in it, in lower case."""
    return [word.lower() for word in WORD.findall(text)]


def names(path: str, text: str) -> Iterator[dict[str, Any]]:
    """``text``: the source of a function, its name hidden as ``_``; ``target``: its name in words.

    As in Allamanis, Peng and Sutton, 2016 (arXiv:1602.03001).
    """
    from xp.data.standard_library import functions

    for node, source in functions(text):
        if name := words(node.name):
            hidden = re.sub(rf"\b{re.escape(node.name)}\b", "_", source)
            yield {"text": hidden, "target": " ".join(name)}
