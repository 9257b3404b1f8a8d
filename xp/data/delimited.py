"""csv and tsv files: read by pandas, after each line was checked, because pandas says nothing of odd ones."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from xp.data.columns import FAULT
from xp.data.loading import loaded, with_faults
from xp.error import UserError

if TYPE_CHECKING:
    from datasets import Dataset


@dataclass(frozen=True)
class Line:
    """A row of a file."""

    number: int
    """Of the last of its lines, counted from 1."""

    fields: list[str]
    fault: str | None


def style(kind: str, quoting: bool | None) -> dict[str, Any]:
    """How csv's reader is to take the file."""
    quoted = kind == "csv" if quoting is None else quoting
    return {
        "delimiter": "\t" if kind == "tsv" else ",",
        "strict": True,
        "quoting": csv.QUOTE_MINIMAL if quoted else csv.QUOTE_NONE,
    }


def lines(file: str, key: str, style: dict[str, Any], header: list[str] | None) -> Iterator[Line]:
    """The header (where the file has one) and every row, with what is wrong with it.

    Raises:
        UserError: quotes that do not close, or nothing to read.
    """
    csv.field_size_limit(1 << 30)
    blank: list[int] = []
    with open(file, encoding="utf-8-sig", errors="surrogateescape", newline="") as text:
        reader = csv.reader(text, **style)
        width = len(header or ())
        begun = 1
        try:
            for fields in reader:
                begun = reader.line_num + 1
                if not fields:
                    blank.append(reader.line_num)
                    continue
                # Blank lines at the end of a file are usual, those in between are rows without anything.
                yield from (Line(number, [], f"line {number} is empty") for number in blank if width)
                blank = []
                whole = "".join(fields)
                fault = None
                if not whole.isascii() and any("\udc80" <= letter <= "\udcff" for letter in whole):
                    fault = f"line {reader.line_num} is not UTF-8"
                elif width and len(fields) != width:
                    fault = (
                        f"line {reader.line_num} has {len(fields)} fields, "
                        f"{'data.header' if header else 'the header line'} has {width}"
                    )
                if not width and fault:
                    raise UserError(f"{key}={file}: {fault}; save the file as UTF-8")
                width = width or len(fields)
                yield Line(reader.line_num, fields, fault)
        except csv.Error as error:
            raise UserError(f"{key}={file}: {_broken(error, begun, reader.line_num)}") from error


def _broken(error: csv.Error, begun: int, number: int) -> str:
    """What is wrong with quotes: nobody knows where the next row begins, so no row is to be skipped."""
    if "unexpected end" in str(error):
        said = f"line {begun}: in this row a quote opens that never closes, so it would swallow all lines after it"
    else:
        said = f"line {number}: {error}"
    return f"{said}; mend it, or set data.quoting=false if quotes stand for themselves (data.on_error cannot skip this)"


def read(paths: list[str], key: str, style: dict[str, Any], header: list[str] | None, skip: bool) -> Dataset:
    """All rows; with ``skip``, those that cannot be read have the reason in ``_fault``."""
    options = {
        "sep": style["delimiter"],
        "quoting": style["quoting"],
        "keep_default_na": False,
        "index_col": False,
    } | ({"names": header} if header else {})
    faults: dict[int, str] = {}
    number = 0
    for file in paths:
        for line in _rows(file, key, style, header):
            if line.fault and not skip:
                raise UserError(f"{key}={file}: {line.fault}; {_advice(line.fault)}, or set data.on_error=skip")
            if line.fault:
                faults[number] = line.fault
            number += 1
    if not faults:
        return _numbered(loaded("csv", paths, key, **options))
    return _numbered(_without(faults, paths, key, style, header, options))


def _numbered(rows: Dataset) -> Dataset:
    """Columns of numbers with empty cells among them as numbers, the empty ones null; pandas takes them for texts."""
    import pyarrow as pa
    import pyarrow.compute as pc

    for name, feature in rows.features.items():
        if getattr(feature, "dtype", "") not in ("string", "large_string", "string_view"):
            continue
        column = rows.data.column(name).cast(pa.large_string())
        empty = pc.equal(pc.utf8_trim_whitespace(column), "")
        holes = pc.sum(empty).as_py() or 0
        if not 0 < holes < len(rows):
            continue
        if pc.any(pc.match_substring_regex(column, "(?i)nan|inf")).as_py():
            continue  # Words, which arrow would take for numbers.
        filled = pc.if_else(empty, pa.scalar(None, pa.large_string()), column)
        for kind in (pa.int64(), pa.float64()):
            try:
                numbers = filled.cast(kind)
            except pa.ArrowInvalid:
                continue
            at = rows.column_names.index(name)
            order = [*rows.column_names]
            rows = rows.remove_columns(name).add_column(name, numbers.to_pylist())
            rows = rows.select_columns([*order[:at], name, *order[at + 1 :]])
            break
    return rows


def _advice(fault: str) -> str:
    return "save the file as UTF-8" if "UTF-8" in fault else "mend the line, or set data.header or data.quoting"


def _rows(file: str, key: str, style: dict[str, Any], header: list[str] | None) -> Iterator[Line]:
    found = lines(file, key, style, header)
    if not header:
        next(found, None)
    yield from found


def _without(
    faults: dict[int, str],
    paths: Sequence[str],
    key: str,
    style: dict[str, Any],
    header: list[str] | None,
    options: dict[str, Any],
) -> Dataset:
    """The rows, those at fault left out before pandas sees them."""
    import pandas as pd
    from datasets import Dataset

    good = io.StringIO()
    write = csv.writer(good)
    names = header or next(lines(paths[0], key, style, header)).fields
    write.writerow(names)
    numbers = []
    number = 0
    for file in paths:
        for line in _rows(file, key, style, header):
            if not line.fault:
                write.writerow(line.fields)
                numbers.append(number)
            number += 1
    good.seek(0)
    frame = pd.read_csv(good, keep_default_na=False, index_col=False)
    if not len(frame):
        raise UserError(f"{key}={','.join(paths)}: none of its {number} rows can be read, the first: {faults[0]}")
    return with_faults(Dataset.from_pandas(frame, preserve_index=False), numbers, faults)


def streamed(
    paths: list[str], key: str, style: dict[str, Any], header: list[str] | None, skip: bool
) -> tuple[Any, Iterator[dict[str, Any]]]:
    """The columns' types, told by the first thousand rows, and each row when it is asked for."""
    from xp.data.streamed import typed

    names = header or next(lines(paths[0], key, style, header)).fields

    def rows() -> Iterator[dict[str, Any]]:
        for file in paths:
            for line in _rows(file, key, style, header):
                if line.fault and not skip:
                    raise UserError(f"{key}={file}: {line.fault}; {_advice(line.fault)}, or set data.on_error=skip")
                fields = [None] * len(names) if line.fault else line.fields
                yield dict(zip(names, fields, strict=True)) | {FAULT: line.fault}

    return typed(names, rows)
