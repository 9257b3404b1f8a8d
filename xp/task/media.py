"""What tasks on images and sounds share: rows that hold a file, or its bytes, and are decoded batch by batch."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

from xp.error import UserError

if TYPE_CHECKING:
    from datasets import Dataset


def opened(value: Any) -> str | BytesIO:
    """What a decoder reads: a path, or the bytes in memory.

    Args:
        value: ``{"bytes": ..., "path": ...}``, as datasets keeps media that it is not to decode, or a path.

    Raises:
        ValueError: there is neither, or no such file.
    """
    if isinstance(value, dict) and value.get("bytes") is not None:
        return BytesIO(value["bytes"])
    path = value.get("path") if isinstance(value, dict) else value
    if not path:
        raise ValueError("is missing")
    if not isinstance(path, str):
        raise ValueError(f"is a {type(path).__name__}, not a file")
    if not Path(path).is_file():
        raise ValueError("there is no such file")
    return path


def file_name(value: Any) -> str:
    """The file that a value of `opened` comes from; empty where there is only its content."""
    path = value.get("path") if isinstance(value, dict) else value
    return path if isinstance(path, str) else ""


def unreadable(row: dict[str, Any], column: str, reason: str) -> UserError:
    """What to say of an encoded row whose file turns out to be broken when it is needed."""
    name = file_name(row[column])
    return UserError(f"data: row {row['row']}{f' ({name})' if name else ''}: {column}: {reason}")


def beside(rows: Dataset, column: str, made: dict[str, list[Any]], types: dict[str, str]) -> Dataset:
    """The files of ``rows``, where they are, and new columns: no file is copied into memory.

    Args:
        rows: with the column.
        column: what holds the files.
        made: the new columns; ``row``, the number of each row for messages, is added to them.
        types: of the new columns.
    """
    from datasets import Dataset, Features, Value, concatenate_datasets

    features = Features({name: Value(kind) for name, kind in ({"row": "int32"} | types).items()})
    columns = Dataset.from_dict({"row": list(range(len(rows)))} | made, features=features)
    return concatenate_datasets([rows.select_columns([column]), columns], axis=1)


def file_names(rows: Dataset, column: str) -> list[str]:
    """Path of each row's file, empty where it has none; no file is read."""
    if hasattr(rows.features[column], "dtype") and rows.features[column].dtype in ("string", "large_string"):
        return list(rows[column][:])
    flat = rows.select_columns([column]).flatten()
    return [path or "" for path in flat[f"{column}.path"][:]]


def shown(rows: Dataset, column: str) -> dict[str, list[Any]]:
    """Columns by which a person finds the rows of a table of errors."""
    return {"file": file_names(rows, column)}
