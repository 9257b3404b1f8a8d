"""One's own rows: files and folders in the formats that people have."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import NonNegativeInt

from xp.data import conll, delimited, json_rows, media, squad, streamed
from xp.data.base import Data
from xp.data.splits import Side
from xp.error import UserError, nearest

if TYPE_CHECKING:
    from datasets import Dataset

Format = Literal["csv", "tsv", "json", "parquet", "conll", "squad", "images", "audio"]

ENDINGS: dict[str, Format] = {
    ".csv": "csv",
    ".tsv": "tsv",
    ".json": "json",
    ".jsonl": "json",
    ".ndjson": "json",
    ".parquet": "parquet",
    ".conll": "conll",
    ".conllu": "conll",
    ".bio": "conll",
    ".iob": "conll",
    ".iob2": "conll",
}
"""The format that a file's ending tells of; a .json is looked into, for it may be SQuAD's."""


class Files(Data, name="files"):
    """Rows from local files: csv, tsv, json lines or array, parquet, conll, SQuAD, a folder of images or of audio."""

    train: str | list[str] | None
    """File, files or folder to train on."""

    eval: str | list[str] | None
    """File, files or folder to evaluate on."""

    format: Literal["auto"] | Format
    """What the files are; auto: by their ending, and for json and folders by a look at the content."""

    header: list[str] | None
    """Column names of csv and tsv files that have no header line; null where the first line is the header."""

    quoting: bool | None
    """Whether double quotes enclose a field; null: in csv they do, in tsv they stand for themselves."""

    token_column: NonNegativeInt
    """Column of a conll file that holds the tokens, counted from 0."""

    tag_column: int
    """Column of a conll file that holds the tags, counted from 0; -1 is the last one."""

    def check_files(self, train: bool) -> None:
        """The files of each split, and that they are of one kind."""
        sides: list[Side] = ["train", "eval"] if train else ["eval"]
        for side in sides:
            if paths := self._paths(getattr(self, side)):
                self._format(side, paths)

    def read(self, train: bool) -> tuple[Dataset | None, Dataset | None, str]:
        """Each split's files, read by datasets where it has a reader."""
        parts = [f"{split}={value}" for split, value in (("train", self.train), ("eval", self.eval)) if value]
        rows = self._split("train", self.train) if train else None
        return rows, self._split("eval", self.eval), ", ".join(parts)

    def stream(self) -> tuple[Any, Iterator[dict[str, Any]]]:
        """Rows of the train files, one file after the other."""
        paths = self._paths(self.train)
        if not paths:
            raise UserError("data.train is not set: give data.train=<a file>")
        kind = self._format("train", paths)
        if kind in ("csv", "tsv"):
            style = delimited.style(kind, self.quoting)
            return delimited.streamed(paths, "data.train", style, self.header, skip=self.on_error == "skip")
        if kind == "parquet":
            return streamed.parquet(paths)
        if kind == "json" and json_rows.by_line(paths[0]):
            return streamed.json_lines(paths, "data.train", skip=self.on_error == "skip")
        raise UserError(f"data.streaming=true: {paths[0]} ({kind}) is read at once; set it to false, or use json lines")

    def place(self, side: Side, row: int) -> str:
        """The file that a row is in, and its number there."""
        paths = self._paths(getattr(self, side))
        if side == "train" and self.streaming and len(paths) > 1:  # To count their rows would be to read them all.
            return f"{paths[0]} and those after it, row {row + 1}"
        for path in paths[:-1]:  # note: the files before are read again, which only a row at fault costs
            part = self._read([path], self._format(side, [path]), side)
            size = len(part)
            if row < size:
                return f"{path}, row {row + 1}"
            row -= size
        return f"{paths[-1]}, row {row + 1}"

    def _paths(self, given: str | list[str] | None) -> list[str]:
        # A shell leaves the ~ of data.train=~/rows.csv as it is.
        return [os.path.expanduser(file) for file in ([given] if isinstance(given, str) else given or [])]

    def _split(self, side: Side, given: str | list[str] | None) -> Dataset | None:
        paths = self._paths(given)
        return self._read(paths, self._format(side, paths), side) if paths else None

    def _read(self, paths: list[str], kind: Format, side: Side) -> Dataset:
        key, skip = f"data.{side}", self.on_error == "skip"
        if self.header and kind not in ("csv", "tsv"):
            raise UserError(f"data.header is for csv and tsv files; {paths[0]} names its own columns")
        match kind:
            case "csv" | "tsv":
                return delimited.read(paths, key, delimited.style(kind, self.quoting), self.header, skip)
            case "json":
                return json_rows.read(paths, key, skip)
            case "conll":
                return conll.read(paths, key, self.token_column, self.tag_column, skip)
            case "squad":
                return squad.read(paths, key)
            case "images" | "audio":
                return media.read(paths, key, kind, skip)
            case "parquet":
                from xp.data.loading import loaded

                return loaded("parquet", paths, key)

    def _format(self, side: Side, paths: list[str]) -> Format:
        formats = {self._format_of(side, path) for path in paths}
        if len(formats) > 1:
            raise UserError(f"data.{side}: files of one split need one format, these have {', '.join(sorted(formats))}")
        return formats.pop()

    def _format_of(self, side: Side, path: str) -> Format:
        folder = Path(path).is_dir()
        ending = Path(path).suffix.lower()
        if self.format == "auto" and not folder and ending not in ENDINGS:
            choices = [each for each in ENDINGS if each.startswith(".")]
            raise UserError(
                f"data.{side}={path}: no reader for {ending or 'a name without ending'}, unless data.format says "
                f"what it is.{nearest(ending, choices)}"
            )
        if not Path(path).exists():
            beside = [str(entry) for entry in Path(path).parent.glob("*")]
            raise UserError(f"data.{side}={path}: no such file.{nearest(path, beside) if beside else ''}")
        if folder != (self.format in ("images", "audio")) and self.format != "auto":
            raise UserError(f"data.{side}={path}: data.format={self.format} is for {'files' if folder else 'folders'}")
        if folder:
            return media.told(path, f"data.{side}") if self.format == "auto" else self.format
        if not Path(path).stat().st_size:
            raise UserError(f"data.{side}={path}: the file is empty")
        kind = ENDINGS[ending] if self.format == "auto" else self.format
        return "squad" if kind == "json" and self.format == "auto" and squad.told(path) else kind
