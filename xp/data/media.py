"""Folders of images or audio: a subfolder for each label, or a metadata file that says what each file is."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from xp.data import delimited, json_rows
from xp.data.columns import FAULT
from xp.data.loading import with_faults
from xp.error import UserError

if TYPE_CHECKING:
    from datasets import Dataset

Kind = Literal["images", "audio"]
COLUMN = {"images": "image", "audio": "audio"}
FILES: dict[str, frozenset[str]] = {
    "images": frozenset({".jpg", ".jpeg", ".png", ".bmp", ".gif", ".tif", ".tiff", ".webp", ".ppm", ".pgm"}),
    "audio": frozenset({".wav", ".flac", ".mp3", ".ogg", ".opus", ".m4a", ".aiff", ".aif", ".au"}),
}
METADATA = ("metadata.csv", "metadata.tsv", "metadata.jsonl")


def told(folder: str, key: str) -> Kind:
    """What a folder holds, by the endings of its files.

    Raises:
        UserError: neither images nor audio, or both.
    """
    endings = {path.suffix.lower() for path in _files(folder)}
    kinds: list[Kind] = [kind for kind in ("images", "audio") if endings & FILES[kind]]
    if len(kinds) == 1:
        return kinds[0]
    if kinds:
        raise UserError(f"{key}={folder}: there are images and audio in it; say with data.format which are the rows")
    saved = any(Path(folder, name).is_file() for name in ("state.json", "dataset_dict.json"))
    hint = "data=saved data.path=<folder> reads it" if saved else "give its files, or data=hub data.path=<folder>"
    raise UserError(f"{key}={folder}: there are neither images nor audio in this folder; {hint}")


def read(folders: Sequence[str], key: str, kind: Kind, skip: bool) -> Dataset:
    """A row a file: ``image`` or ``audio`` as ``{bytes: null, path}``, and ``label`` or what the metadata say."""
    from datasets import Audio, Image, concatenate_datasets

    parts = []
    for folder in folders:
        metadata = [Path(folder, name) for name in METADATA if Path(folder, name).is_file()]
        if len(metadata) > 1:
            raise UserError(f"{key}={folder}: {metadata[0].name} and {metadata[1].name}: keep one of them")
        parts.append(_described(metadata[0], key, kind, skip) if metadata else _labelled(folder, key, kind, skip))
    feature = Image(decode=False) if kind == "images" else Audio(decode=False)
    rows = parts[0] if len(parts) == 1 else concatenate_datasets(parts)
    return rows.cast_column(COLUMN[kind], feature)


def _files(folder: str) -> list[Path]:
    """All files below a folder in the order of their paths, but for hidden ones."""
    found = []
    for at, inside, names in os.walk(folder):
        inside[:] = sorted(name for name in inside if not name.startswith("."))
        found += [Path(at, name) for name in names if not name.startswith(".")]
    return sorted(found)


def _media(paths: Sequence[Path | None]) -> dict[str, Any]:
    return {"bytes": [None] * len(paths), "path": [str(path) if path else None for path in paths]}


def _labelled(folder: str, key: str, kind: Kind, skip: bool) -> Dataset:
    """Rows by subfolder, each a label."""
    from datasets import Dataset

    good, numbers, faults = [], [], {}
    for number, path in enumerate(_files(folder)):
        inside = path.relative_to(folder)
        fault = None
        if path.suffix.lower() not in FILES[kind]:
            fault = f"{inside} is no file of {kind}"
        elif len(inside.parts) != 2:
            fault = f"{inside} is not in a subfolder of one label, and there is no metadata.csv"
        if fault and not skip:
            raise UserError(f"{key}={folder}: {fault}; move it, or set data.on_error=skip")
        if fault:
            faults[number] = fault
        else:
            good.append(path)
            numbers.append(number)
    column = [{"bytes": None, "path": str(path)} for path in good]
    rows = Dataset.from_dict(
        {COLUMN[kind]: column, "label": [path.parent.name for path in good]}, features=_plain(kind)
    )
    return with_faults(rows, numbers, faults) if faults else rows


def _plain(kind: Kind) -> Any:
    from datasets import Features, Value

    return Features({COLUMN[kind]: {"bytes": Value("binary"), "path": Value("string")}, "label": Value("string")})


def _described(metadata: Path, key: str, kind: Kind, skip: bool) -> Dataset:
    """Rows by the lines of a metadata file, whose ``file_name`` is relative to it."""
    import pyarrow as pa

    if metadata.suffix == ".jsonl":
        rows = json_rows.read([str(metadata)], key, skip)
    else:
        rows = delimited.read([str(metadata)], key, delimited.style(metadata.suffix[1:], None), None, skip)
    if "file_name" not in rows.column_names:
        raise UserError(f"{key}={metadata}: it has no column file_name. Its columns: {', '.join(rows.column_names)}")
    paths = [metadata.parent / str(name) if name else None for name in rows["file_name"]]
    known = rows[FAULT][:] if FAULT in rows.column_names else [None] * len(rows)
    faults = {}
    for number, (path, reason) in enumerate(zip(paths, known, strict=True)):
        fault = reason
        if not fault and (path is None or not path.is_file()):
            fault = f"file_name: there is no {path}" if path else "file_name: is empty"
            if not skip:
                raise UserError(f"{key}={metadata}, row {number + 1}: {fault}; mend it or set data.on_error=skip")
        if fault:
            faults[number] = fault
    struct = pa.array(
        [{"bytes": None, "path": str(path) if path else None} for path in paths],
        type=pa.struct({"bytes": pa.binary(), "path": pa.string()}),
    )
    rows = rows.remove_columns([name for name in rows.column_names if name in ("file_name", FAULT, "_row")])
    if COLUMN[kind] in rows.column_names:
        raise UserError(
            f"{key}={metadata}: its column {COLUMN[kind]} has the name of what file_name points to; rename it"
        )
    rows = rows.add_column(COLUMN[kind], struct)
    if not faults:
        return rows
    good = [number for number in range(len(rows)) if number not in faults]
    return with_faults(rows.select(good), good, faults)
