"""Rows that are read one after the other, when they are asked for."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from itertools import islice
from typing import TYPE_CHECKING, Any

from xp.data.columns import FAULT, ROW
from xp.data.loading import loaded
from xp.error import UserError
from xp.unpickled import from_json

if TYPE_CHECKING:
    from datasets import Dataset, IterableDataset

BLOCK = 1000
"""Rows that are read, checked and encoded together; the first ones tell types where the source states none."""


def blocks(features: Any, rows: Iterator[dict[str, Any]]) -> Iterator[Dataset]:
    """Rows, `BLOCK` at a time, with ``_row`` and ``_fault``.

    Args:
        features: the types of their columns, which a row that does not fit is at fault for.
        rows: may have a ``_fault`` of their own.
    """
    from datasets import Dataset, Features, Value

    texts = [name for name, feature in features.items() if getattr(feature, "dtype", None) == "string"]
    types = Features(features | {ROW: Value("int64"), FAULT: Value("string")})
    start = 0
    while chunk := list(islice(rows, BLOCK)):
        whole = [{FAULT: None} | row | {ROW: start + at} for at, row in enumerate(chunk)]
        start += len(chunk)
        for row in whole:
            for name in texts:  # datasets would write anything as text.
                if row[FAULT] is None and not isinstance(row[name], str | None):
                    row[FAULT], row[name] = f"{name}: is {row[name]!r:.40}, and text in the first rows", None
        try:
            yield Dataset.from_list(whole, features=types)
        except (ValueError, TypeError, OverflowError):  # Arrow's own errors are among these.
            yield Dataset.from_list([_fitting(row, types) for row in whole], features=types)


def _fitting(row: dict[str, Any], types: Any) -> dict[str, Any]:
    from datasets import Dataset

    try:
        Dataset.from_list([row], features=types)
    except (ValueError, TypeError, OverflowError) as error:
        reason = f"is of other types than the first rows: {str(error).splitlines()[0]}"
        return dict.fromkeys(types) | {ROW: row[ROW], FAULT: row[FAULT] or reason}
    return row


def undecoded_stream(rows: IterableDataset) -> IterableDataset:
    """Media as they are stored, and types told by the first rows where the source states none."""
    rows = rows if rows.features is not None else rows._resolve_features()
    for name, feature in rows.features.items():
        if type(feature).__name__ in ("Image", "Audio") and feature.decode:
            rows = rows.cast_column(name, replace(feature, decode=False))
    return rows


def parquet(files: Sequence[str]) -> tuple[Any, Iterator[dict[str, Any]]]:
    """Types and rows of parquet files."""
    rows = undecoded_stream(loaded("parquet", files, "data.train", streaming=True))
    return rows.features, iter(rows)


def json_lines(files: Sequence[str], key: str, skip: bool) -> tuple[Any, Iterator[dict[str, Any]]]:
    """Types and rows of json lines; the types are those of the first block.

    Raises:
        UserError: a line that is no json object, unless ``skip`` leaves that to the row's ``_fault``.
    """
    from datasets import Dataset

    def rows() -> Iterator[dict[str, Any]]:
        for file in files:
            with open(file, "rb") as lines:
                for number, line in enumerate(lines, 1):
                    row, fault = _object(line.removeprefix(b"\xef\xbb\xbf") if number == 1 else line)
                    if fault and not skip:
                        raise UserError(
                            f"{key}={file}: cannot be read as json: line {number}: {fault}; "
                            "mend it or set data.on_error=skip"
                        )
                    yield row | {FAULT: f"line {number}: {fault}" if fault else None}

    first = [row for row in islice(rows(), BLOCK) if not row[FAULT]]
    if not first:
        raise UserError(f"{key}={','.join(files)}: none of its first {BLOCK} rows can be read")
    features = Dataset.from_list([{name: row[name] for name in row if name != FAULT} for row in first]).features
    names = set(features)
    return features, ({name: row.get(name) for name in (*names, FAULT)} for row in rows())


def _object(line: bytes) -> tuple[dict[str, Any], str | None]:
    try:
        row = from_json(line.decode("utf-8"))
    except UnicodeDecodeError:
        return {}, "is not UTF-8"
    except json.JSONDecodeError as error:
        return {}, "is empty" if not line.strip() else f"{error.msg} at column {error.colno}"
    return (row, None) if isinstance(row, dict) else ({}, "is no json object")


def typed(names: Sequence[str], rows: Callable[[], Iterator[dict[str, Any]]]) -> tuple[Any, Iterator[dict[str, Any]]]:
    """Rows of text as rows of numbers where those of the first block are numbers; one that is none is at fault."""
    from datasets import Features, Value

    first = [row for row in islice(rows(), BLOCK) if row[FAULT] is None]
    kinds = {name: _kind([row[name] for row in first]) for name in names}
    words = {int: "int64", float: "float64", str: "string"}

    def converted() -> Iterator[dict[str, Any]]:
        for row in rows():
            made = dict(row)
            for name, kind in kinds.items():
                if kind is not str and row[FAULT] is None:
                    try:
                        made[name] = _number(row[name], kind)
                    except ValueError:
                        made[name] = None
                        made[FAULT] = f"{name}: {row[name]!r} is no number, as it is in other rows"
            yield made

    return Features({name: Value(words[kind]) for name, kind in kinds.items()}), converted()


def _number(text: str, kind: type) -> Any:
    if re.search("[A-DF-Za-df-z_]", text):  # Python would take nan, inf, infinity and 1_0.
        raise ValueError(text)
    return kind(text)


def _kind(values: Sequence[str]) -> type:
    """int, float or str: what all of the values are."""
    for kind in (int, float):
        try:
            for value in values:
                _number(value, kind)
        except ValueError:
            continue
        if values:
            return kind
    return str
