"""conll files: a token and its tags a line, an empty line after each sentence (Tjong Kim Sang and De Meulder, 2003)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from xp.data.loading import with_faults
from xp.error import UserError

if TYPE_CHECKING:
    from datasets import Dataset


def read(paths: Sequence[str], key: str, token_column: int, tag_column: int, skip: bool) -> Dataset:
    """A row a sentence: ``tokens`` and ``tags``; with ``skip``, those at fault have the reason in ``_fault``."""
    from datasets import Dataset, Features, List, Value

    features = Features({"tokens": List(Value("string")), "tags": List(Value("string"))})
    good: dict[str, list[list[str]]] = {"tokens": [], "tags": []}
    numbers, faults = [], {}
    number = 0
    for path in paths:
        for tokens, tags, fault in _sentences(path, token_column, tag_column):
            if fault and not skip:
                raise UserError(f"{key}={path}: {fault}; mend it, or set data.tag_column, or data.on_error=skip")
            if fault:
                faults[number] = fault
            else:
                good["tokens"].append(tokens)
                good["tags"].append(tags)
                numbers.append(number)
            number += 1
    rows = Dataset.from_dict(good, features=features)
    return with_faults(rows, numbers, faults) if faults else rows


def _sentences(path: str, token_column: int, tag_column: int) -> Iterator[tuple[list[str], list[str], str | None]]:
    """Tokens and tags of each sentence, and what is wrong with it; comments and -DOCSTART- are no tokens."""
    tokens: list[str] = []
    tags: list[str] = []
    fault: str | None = None
    tabs: bool | None = None
    width = 0
    with open(path, encoding="utf-8-sig", errors="surrogateescape") as lines:
        for number, line in enumerate(lines, 1):
            bare = line.strip()
            if not bare or bare.startswith("-DOCSTART-"):
                if tokens or fault:
                    yield tokens, tags, fault
                tokens, tags, fault = [], [], None
                continue
            if path.endswith(".conllu") and (bare.startswith("#") or not bare.split("\t")[0].isdigit()):
                continue
            tabs = "\t" in line if tabs is None else tabs
            fields = line.rstrip("\n").split("\t") if tabs else bare.split()
            width = width or len(fields)
            fault = fault or _fault(fields, number, width, token_column, tag_column)
            if not fault:
                tokens.append(fields[token_column].strip())
                tags.append(fields[tag_column].strip())
    if tokens or fault:
        yield tokens, tags, fault


def _fault(fields: list[str], number: int, width: int, token_column: int, tag_column: int) -> str | None:
    if any("\udc80" <= letter <= "\udcff" for field in fields for letter in field):
        return f"line {number} is not UTF-8"
    if len(fields) != width:
        return f"line {number} has {len(fields)} columns, the first line has {width}"
    if width < 2 or not (token_column < width and -width <= tag_column < width):
        chosen = f"data.token_column={token_column} or data.tag_column={tag_column}"
        return f"line {number} has {width} columns, none at {chosen}"
    if not fields[token_column].strip() or not fields[tag_column].strip():
        return f"line {number} has no {'tag' if fields[token_column].strip() else 'token'}"
    return None
