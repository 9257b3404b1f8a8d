"""json: a row a line, one array of rows, or ``{"data": [rows]}``."""

from __future__ import annotations

import codecs
import json
import mmap
import re
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from xp.data.loading import loaded, with_faults
from xp.error import UserError
from xp.unpickled import from_json

if TYPE_CHECKING:
    from datasets import Dataset


def read(paths: Sequence[str], key: str, skip: bool) -> Dataset:
    """All rows; with ``skip``, those that cannot be read have the reason in ``_fault``."""
    options: dict[str, Any] = {"field": "data"} if whole(paths[0]) and "data" in from_json(text(paths[0], key)) else {}
    suspect = [path for path in paths if not options and (_holes(path) or not _decodes(path))]
    try:
        rows = loaded("json", paths, key, **options)
        if not suspect and not _odd(rows):
            return rows
        refused: UserError | None = None
    except UserError as error:
        refused = error
    if "has no rows" in str(refused):
        raise refused or AssertionError
    faults: dict[int, str] = {}
    kept: list[tuple[int, str]] = []
    number = 0
    for path in paths:
        for at, line, fault in _items(path, key) if _array(path) else _lines(path):
            if fault and not skip:
                raise UserError(
                    f"{key}={path}: cannot be read as json: {at}: {fault}; mend it or set data.on_error=skip"
                ) from refused
            if fault:
                faults[number] = f"{at}: {fault}"
            else:
                kept.append((number, line))
            number += 1
    if refused is not None and not faults:
        raise refused
    if not kept:
        raise UserError(f"{key}={','.join(paths)}: none of its {number} rows can be read, the first: {faults[0]}")
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "rows.jsonl")
        file.write_text("\n".join(line for _, line in kept))
        rows = loaded("json", [str(file)], key, cache_dir=folder, keep_in_memory=True)
    return with_faults(rows, [number for number, _ in kept], faults)


def text(path: str, key: str) -> str:
    """A whole file.

    Raises:
        UserError: it is not UTF-8.
    """
    try:
        return Path(path).read_text("utf-8-sig")
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        raise UserError(f"{key}={path}: line {line} is not UTF-8; save the file as UTF-8") from error


def whole(path: str) -> bool:
    """Whether the file is one json object, rather than one a line."""
    with open(path, "rb") as file:
        start = file.readline()
        if start[:3] == b"\xef\xbb\xbf":
            start = start[3:]
        if start.lstrip()[:1] != b"{":
            return False
        try:
            only = from_json(start)
        except ValueError:
            try:  # An object over several lines, unless the first line of several is broken.
                only = from_json(start + file.read())
            except ValueError:
                return False
            return isinstance(only, dict)
        return isinstance(only.get("data"), list) and not file.read(1 << 16).strip()


def by_line(path: str) -> bool:
    """Whether the file has a row a line, by its first bytes."""
    with open(path, "rb") as file:
        return file.readline(1 << 20).removeprefix(b"\xef\xbb\xbf").lstrip()[:1] == b"{" and not whole(path)


def _holes(path: str) -> bool:
    """Whether there is an empty line between others."""
    with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as view:
        if re.match(rb"(\xef\xbb\xbf)?\s*\[", view):
            return False
        return re.search(rb"\n[ \t\r]*\n[^\n]*[^\s]|\A[ \t\r]*\n[^\n]*[^\s]", view) is not None


def _decodes(path: str) -> bool:
    """Whether the file is UTF-8, which arrow does not look at."""
    decoder = codecs.getincrementaldecoder("utf-8")()
    with open(path, "rb") as file:
        try:
            while part := file.read(1 << 20):
                decoder.decode(part)
            decoder.decode(b"", final=True)
        except UnicodeDecodeError:
            return False
    return True


def _odd(rows: Dataset) -> bool:
    """Whether rows that are no objects have made datasets call its column after nothing."""
    return rows.column_names in (["text"], ["0"], [0]) and type(rows.features[rows.column_names[0]]).__name__ == "Json"


def _array(path: str) -> bool:
    """Whether the file is one json array."""
    with open(path, "rb") as file:
        return file.read(1 << 16).removeprefix(b"\xef\xbb\xbf").lstrip()[:1] == b"["


def _items(path: str, key: str) -> Iterator[tuple[str, str, str | None]]:
    """Place, text and fault of each item of an array."""
    try:
        found = from_json(text(path, key))
    except json.JSONDecodeError as error:
        raise UserError(f"{key}={path}: cannot be read as json: line {error.lineno}: {error.msg}") from error
    for number, item in enumerate(found, 1):
        yield f"item {number}", json.dumps(item), None if isinstance(item, dict) else "is no json object"


def _lines(path: str) -> Iterator[tuple[str, str, str | None]]:
    """Place, text and fault of each line, the empty ones at the end left out."""
    with open(path, "rb") as file:
        raw = file.read().rstrip().removeprefix(b"\xef\xbb\xbf").split(b"\n")
    for number, line in enumerate(raw, 1):
        fault = None
        decoded = line.decode("utf-8", errors="replace").strip()
        try:
            line.decode("utf-8")
            if not isinstance(from_json(decoded), dict):
                fault = "is no json object"
        except UnicodeDecodeError:
            fault = "is not UTF-8"
        except json.JSONDecodeError as error:
            fault = "is empty" if not decoded else f"{error.msg} at column {error.colno}"
        yield f"line {number}", decoded, fault
