"""One's own rows: csv, tsv, json lines or parquet files."""

from __future__ import annotations

import csv
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from xp.data.base import Data
from xp.error import UserError, nearest

if TYPE_CHECKING:
    from datasets import Dataset

FORMATS = {".csv": "csv", ".tsv": "tsv", ".json": "json", ".jsonl": "json", ".parquet": "parquet"}


class Files(Data, name="files"):
    """Rows from local files, their format told by their ending: .csv .tsv .jsonl .json .parquet."""

    train: str | list[str] | None
    """File or files to train on."""

    eval: str | list[str] | None
    """File or files to evaluate on."""

    header: list[str] | None
    """Column names of csv and tsv files that have no header line; null where the first line is the header."""

    quoting: bool | None
    """Whether double quotes enclose a field; null: in csv they do, in tsv they stand for themselves."""

    def read(self, train: bool) -> tuple[Dataset | None, Dataset | None, str]:
        """Each split's files, read by datasets."""
        parts = [f"{split}={value}" for split, value in (("train", self.train), ("eval", self.eval)) if value]
        rows = self._split("train", self.train) if train else None
        return rows, self._split("eval", self.eval), ", ".join(parts)

    def _split(self, split: str, files: str | list[str] | None) -> Dataset | None:
        if not files:
            return None
        # A shell leaves the ~ of data.train=~/rows.csv as it is.
        files = [os.path.expanduser(file) for file in ([files] if isinstance(files, str) else files)]
        formats = {self._format(split, file) for file in files}
        if len(formats) > 1:
            raise UserError(
                f"data.{split}: files of one split need one format, these have {', '.join(sorted(formats))}"
            )
        kind = formats.pop()
        if kind in ("csv", "tsv"):
            return self._table(split, files, kind)
        if self.header:
            raise UserError(f"data.header is for csv and tsv files; {files[0]} names its own columns")
        return _read(kind, files, split, {})

    def _table(self, split: str, files: list[str], kind: str) -> Dataset:
        quoting = kind == "csv" if self.quoting is None else self.quoting
        style: dict[str, Any] = {"delimiter": "\t" if kind == "tsv" else ",", "strict": True}
        style["quoting"] = csv.QUOTE_MINIMAL if quoting else csv.QUOTE_NONE
        for file in files:  # pandas takes a row that is too long for an index, without a word.
            with open(file, encoding="utf-8", newline="") as lines:
                reader = csv.reader(lines, **style)
                try:
                    width = len(self.header or next(reader))
                    odd = next((row for row in reader if row and len(row) != width), None)
                except (csv.Error, UnicodeDecodeError, StopIteration) as error:
                    raise UserError(f"data.{split}={file}: line {reader.line_num}: {error}") from error
                if odd is not None:
                    raise UserError(
                        f"data.{split}={file}: line {reader.line_num} has {len(odd)} fields, "
                        f"{'data.header' if self.header else 'the header line'} has {width}; "
                        "mend the line, or set data.header or data.quoting"
                    )
        options = {"sep": style["delimiter"], "quoting": style["quoting"], "keep_default_na": False, "index_col": False}
        return _read("csv", files, split, options | ({"names": self.header} if self.header else {}))

    def _format(self, split: str, file: str) -> str:
        ending = Path(file).suffix.lower()
        if ending not in FORMATS:
            raise UserError(
                f"data.{split}={file}: no reader for {ending or 'a name without ending'}.{nearest(ending, FORMATS)}"
            )
        if not Path(file).is_file():
            folder = Path(file).parent
            beside = [str(folder / entry.name) for entry in folder.iterdir()] if folder.is_dir() else []
            raise UserError(f"data.{split}={file}: no such file.{nearest(file, beside) if beside else ''}")
        if not Path(file).stat().st_size:
            raise UserError(f"data.{split}={file}: the file is empty")
        return FORMATS[ending]


def _read(kind: str, files: list[str], split: str, options: dict[str, Any]) -> Dataset:
    from datasets import load_dataset
    from datasets.exceptions import DatasetGenerationError

    try:
        return load_dataset(kind, data_files=files, split="train", **options)
    except (DatasetGenerationError, ValueError, OSError) as error:
        if "corresponds to no data" in str(error):
            raise UserError(f"data.{split}={','.join(files)}: the {split} split has no rows") from error
        cause = str(error.__cause__ or error).strip().splitlines()
        raise UserError(
            f"data.{split}={','.join(files)}: cannot be read as {kind}: {cause[-1] if cause else error!r}"
        ) from error
