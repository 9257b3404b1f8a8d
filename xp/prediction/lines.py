"""Lines of files as inputs; one that cannot be read is the `ValueError` that says why."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from xp.error import UserError
from xp.unpickled import from_json


def readable(text: str) -> Any:
    """The text itself, or what is wrong with it."""
    if text.isascii() or not any("\udc80" <= letter <= "\udcff" for letter in text):
        return text
    return ValueError("this line is not UTF-8")


def decoded(line: str) -> Any:
    """What a line of json says, or what is wrong with it."""
    if isinstance(fault := readable(line), ValueError):
        return fault
    try:
        return from_json(line)
    except json.JSONDecodeError as error:
        return ValueError(f"this line is no json: {error}")


def rows(file: str, lines: Any, delimiter: str) -> Iterator[tuple[Any, str]]:
    """The rows of a table; in a tsv file, quotes stand for themselves."""
    style: dict[str, Any] = {"delimiter": delimiter, "strict": True}
    style["quoting"] = csv.QUOTE_MINIMAL if delimiter == "," else csv.QUOTE_NONE
    csv.field_size_limit(1 << 30)
    reader = csv.reader(lines, **style)
    header = next(reader, [])
    if isinstance(fault := readable("".join(header)), ValueError):
        raise UserError(f"inputs={file}: cannot be read as {Path(file).suffix[1:]}: {fault}; save the file as UTF-8")
    for cells in reader:
        place = f"{file}:{reader.line_num}"
        if isinstance(fault := readable("".join(cells)), ValueError):
            yield fault, place
        elif len(cells) == len(header):
            yield dict(zip(header, cells, strict=True)), place
        elif cells:
            yield ValueError(f"this line has {len(cells)} fields, the header line has {len(header)}"), place
