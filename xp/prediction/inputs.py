"""Inputs: what is to be predicted, from the command line or from files, as rows with the parts that the task takes."""

from __future__ import annotations

import csv
import glob
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from xp.error import UserError, nearest
from xp.prediction.lines import decoded, readable, rows
from xp.task import Task
from xp.unpickled import from_json

TABLES = (".txt", ".csv", ".tsv", ".json", ".jsonl")
MEDIA = {
    "image": (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff"),
    "audio": (".wav", ".flac", ".mp3", ".ogg", ".opus", ".aiff", ".aif"),
    "video": (".mp4", ".avi", ".mov", ".mkv", ".webm", ".m4v"),
}
KINDS = {"image": "image", "other_image": "image", "audio": "audio", "video": "video"}
"""The parts of an input that are files, and of which kind."""

FREE = ("table", "questions", "state", "assets", "word_boxes")
"""Parts that are no text; what is in them, the task itself sees."""

AS_TEXT = " A text that looks like a file is given in a list: inputs='[\"{}\"]'"


@dataclass
class Item:
    """One input."""

    position: int
    """Its number among the inputs, from 0."""

    given: Any
    """As it was given: a text, a path, or the columns of a row."""

    row: dict[str, Any] = field(default_factory=dict)
    """The parts that the task takes, images and sounds as paths."""

    place: str = ""
    """File and line that it comes from."""

    error: str = ""
    """Why there can be no prediction."""


def read(inputs: Any, task: Task, columns: dict[str, str]) -> list[Item]:
    """The inputs that ``inputs`` names, in their order; one that cannot be used says why.

    Args:
        inputs: a text, a list, a file, a folder, or a pattern such as ``photos/*.png``.
        task: says which parts an input has; what an input lacks is taken from the task's setting of that name.
        columns: what the parts are called in files, as ``data.columns``.

    Raises:
        UserError: nothing to predict, or a file that is not there or cannot be read.
    """
    found = list(_values(inputs, task))
    if not found:
        raise UserError(f"inputs={inputs}: there is nothing in it; give a text, a list, or a file")
    return [_item(number, value, place, task, columns) for number, (value, place) in enumerate(found)]


def check_files(inputs: Any, task: Task, columns: dict[str, str]) -> None:
    """See whether the files that ``inputs`` names are there, or anything of it can be used; a `UserError` where not."""
    if isinstance(inputs, str) and is_path(inputs):
        _files(inputs, task, tell=False)
        return
    items = read(inputs, task, columns)
    if all(item.error for item in items):
        step = "" if ";" in (error := items[0].error) or error.endswith("?") else f"; give {task.takes}"
        raise UserError(f"inputs={json.dumps(inputs, default=str)[:80]}: {error}{step}")


def _values(inputs: Any, task: Task) -> Iterator[tuple[Any, str]]:
    """Each input with the place that it comes from."""
    if inputs is None:
        raise UserError("inputs has no value; give inputs=<a text, a list, or a file>")
    if isinstance(inputs, list):
        yield from [(inputs, "")] if _chat(inputs) else [(each, "") for each in inputs]
    elif not isinstance(inputs, str) or not is_path(inputs):
        yield inputs, ""
    else:
        for file in _files(inputs, task, tell=True):
            yield from _contents(file, task)


def _chat(values: list[Any]) -> bool:
    """Whether a list is one conversation."""
    return bool(values) and all(isinstance(each, dict) and {"role", "content"} <= set(each) for each in values)


def is_path(text: str) -> bool:
    """Whether a text is to be a file: it is one, or it looks like nothing else."""
    if "\n" in text or len(text) > 4096:
        return False
    path = os.path.expanduser(text)
    known = path.lower().endswith((*TABLES, *(ending for endings in MEDIA.values() for ending in endings)))
    if "://" in text:
        return known and " " not in text
    if text.strip() and os.path.exists(path):
        return known or os.sep in text or os.path.isdir(path)
    return (known or os.sep in text) and (" " not in text or (known and os.sep in text and Path(path).parent.is_dir()))


def _files(text: str, task: Task, tell: bool) -> list[str]:
    """The files that a path, a folder or a pattern stands for.

    Args:
        text: the path.
        task: what is in the files is for it.
        tell: whether to say what is left alone.

    Raises:
        UserError: there are none.
    """
    path = os.path.expanduser(text)
    if os.path.isdir(path):
        kinds = {KINDS[part] for part in task.inputs if part in KINDS}
        endings = tuple(ending for kind in kinds for ending in MEDIA[kind]) or TABLES
        inside = sorted(str(each) for each in Path(path).iterdir() if each.is_file() and each.name[0] != ".")
        files = [each for each in inside if each.lower().endswith(endings)]
        if not files:
            raise UserError(
                f"inputs={text}: the folder has no file that ends in {' '.join(endings)}.{AS_TEXT.format(text)}"
            )
        for each in sorted(Path(path).iterdir()) if tell else ():
            if each.is_symlink() and not each.exists() and each.suffix.lower() in endings:
                print(f"inputs={text}: {each.name} is a link to nothing, and left alone", flush=True)
        if tell and len(files) < len(inside):
            print(f"inputs={text}: {len(inside) - len(files)} files of other kinds are left alone", flush=True)
        return files
    if "://" in text or os.path.isfile(path):
        return [path]
    if glob.has_magic(path):
        files = sorted(each for each in glob.glob(path, recursive=True) if os.path.isfile(each))
        if files:
            return files
        raise UserError(f"inputs={text}: no file has such a name")
    folder = Path(path).parent
    beside = [str(folder / each.name) for each in folder.iterdir()] if folder.is_dir() else []
    raise UserError(
        f"inputs={text}: no such file.{nearest(path, beside) if beside else f' There is no folder {folder} either.'}"
        + AS_TEXT.format(text)
    )


def _contents(file: str, task: Task) -> Iterator[tuple[Any, str]]:
    """The values in a table or json file, a line or row each; an image, a sound or a video is its own path."""
    ending = Path(file).suffix.lower()
    if ending not in TABLES or "://" in file:
        if not any(part in KINDS for part in task.inputs):
            raise UserError(f"inputs={file}: task={task.name} takes {task.takes}, from {' '.join(TABLES)} files")
        yield file, ""
        return
    try:
        newline = "" if ending in (".csv", ".tsv") else None
        # What is not UTF-8 comes in all the same, marked, so that one line of it does not lose the others.
        with open(file, encoding="utf-8-sig", errors="surrogateescape", newline=newline) as lines:
            if ending == ".txt":
                yield from ((readable(line.rstrip("\n")), f"{file}:{at}") for at, line in enumerate(lines, 1))
            elif ending == ".jsonl":
                yield from ((decoded(line), f"{file}:{at}") for at, line in enumerate(lines, 1) if line.strip())
            elif ending == ".json":
                whole = from_json(lines.read())
                values = whole if isinstance(whole, list) and not _chat(whole) else [whole]
                yield from ((value, f"{file}[{at}]") for at, value in enumerate(values))
            else:
                yield from rows(file, lines, "\t" if ending == ".tsv" else ",")
    except (json.JSONDecodeError, csv.Error) as error:
        raise UserError(f"inputs={file}: cannot be read as {ending[1:]}: {error}") from error
    except OSError as error:
        raise UserError(f"inputs={file}: {error.strerror}") from error


def _item(position: int, value: Any, place: str, task: Task, columns: dict[str, str]) -> Item:
    if isinstance(value, ValueError):
        return Item(position, None, place=place, error=str(value))
    try:
        if (understood := task.understood(value, columns)) is not None:
            return Item(position, value, understood, place)
    except UserError as error:
        return Item(position, value, place=place, error=str(error))
    parts = (*task.inputs, *task.optional_inputs)
    settings = {part: setting for part in task.inputs if (setting := getattr(task, part, None)) is not None}
    missing = [part for part in task.inputs if part not in settings]
    if isinstance(value, dict) and (set(value) & {columns.get(part, part) for part in parts} or len(value) == 1):
        row = {part: value[name] for part in parts if (name := columns.get(part, part)) in value}
        if not row:  # A table of one column needs no name.
            row = {missing[0] if missing else task.inputs[0]: next(iter(value.values()))}
    elif isinstance(value, dict) and task.inputs[0] not in FREE:
        called = {part: columns.get(part, part) for part in missing}
        return Item(position, value, place=place, error=_no_column(called, value))
    else:
        row = {missing[0] if missing else task.inputs[0]: value}
    row = settings | {part: found for part, found in row.items() if found is not None}
    if isinstance(row.get("text"), list):  # A chat has its images within it.
        row.pop("image", None)
    else:
        absent = [part for part in task.inputs if part not in row]
        if absent:
            return Item(position, value, place=place, error=_absent(absent[0], value, task, columns))
    item = Item(position, value, row, place)
    for part, found in row.items():
        item.error = item.error or _settle(item.row, part, found, Path(place.rpartition(":")[0] or ".").parent)
    return item


def _no_column(called: dict[str, str], value: dict[str, Any]) -> str:
    part, name = next(iter(called.items()))
    return f"{part}: there is no {name!r}, only {', '.join(map(str, value))}; set data.columns.{part}=<its name>"


def _absent(part: str, value: Any, task: Task, columns: dict[str, str]) -> str:
    if part in type(task).model_fields:
        return f"{part}: is missing; set task.{part}, or give each input its own"
    if isinstance(value, dict):
        name = columns.get(part, part)
        only = len(value) == 1 and next(iter(value.values())) is None  # A table of one column needs no name.
        return f"{part}: is empty" if name in value or only else _no_column({part: name}, value)
    return (
        f"{part}: is missing; an input of task={task.name} is {{{', '.join(f'{each}: ...' for each in task.inputs)}}}"
    )


def _settle(row: dict[str, Any], part: str, value: Any, folder: Path) -> str:
    """Check a part, and put it as the task takes it; gives what is wrong with it."""
    if part == "candidate_labels":
        labels = [label.strip() for label in value.split(",")] if isinstance(value, str) else value
        row[part] = [label for label in labels if label] if isinstance(labels, list) else []
        if not row[part] or not all(isinstance(label, str) for label in row[part]):
            return "candidate_labels: it must be a list of words, or words with commas between them"
    elif part in KINDS:
        if not isinstance(value, str):
            return f"{part}: {json.dumps(value, default=str)[:40]} is no path"
        path = os.path.expanduser(value)
        beside = str(folder / path)  # A path in a file may be seen from where that file is.
        row[part] = path if "://" in path or os.path.exists(path) or not os.path.exists(beside) else beside
        if "://" not in path and not os.path.isfile(row[part]):
            return f"{part}: there is no file {value}"
    elif part not in FREE and not isinstance(value, list):
        if not isinstance(value, str):
            return f"{part}: {json.dumps(value, default=str)[:40]} is no text"
        if not value.strip():
            return f"{part}: is empty"
    return ""
