"""Data sets of the Hugging Face hub, or a local folder laid out like one."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from xp import hub
from xp.data.base import Data
from xp.data.splits import Side
from xp.error import UserError, nearest
from xp.unpickled import unpickled

if TYPE_CHECKING:
    from datasets import Dataset


class Hub(Data, name="hub"):
    """Rows from a data set repository, through ``datasets.load_dataset``; no code of the repository is run."""

    path: str
    """Repository id on the hub, for example ``stanfordnlp/sst2``, or a local folder of data files."""

    subset: str | None
    """Which of the repository's configurations, where it has several."""

    revision: str | None
    """Branch, tag or commit; null takes the newest."""

    train: str | None
    """Name of the split to train on, slices allowed: ``train[:90%]``."""

    eval: str | None
    """Name of the split to evaluate on."""

    def check_files(self, train: bool) -> None:
        """The folder, where the path is one and no repository's id."""
        if self._is_reader:  # It would read what lies in the current folder, pickles as well.
            raise UserError(
                f"data.path={self.path}: this is no repository; use data=files, or ./{self.path} for a folder"
            )
        if not os.path.isdir(self.path) and self._is_folder:
            raise UserError(f"data.path={self.path}: there is no such folder")

    @property
    def _is_reader(self) -> bool:
        """Whether it is the name of one of the readers that datasets itself brings."""
        places = getattr(find_spec("datasets"), "submodule_search_locations", None) or []
        known = any(Path(place, "packaged_modules", self.path).is_dir() for place in places)
        return known and re.fullmatch(r"[a-z]\w*", self.path) is not None

    @property
    def _is_folder(self) -> bool:
        """Whether the path can be no repository's id."""
        path = self.path
        return "://" not in path and (path.startswith((".", "/", "~")) or path.count("/") > 1)

    def read(self, train: bool) -> tuple[Dataset | None, Dataset | None, str]:
        """Each split, from the hub or its cache on this machine."""
        source = f"{self.path}{f'/{self.subset}' if self.subset else ''}{f'@{self.revision}' if self.revision else ''}"
        rows = self._split("train", self.train) if train else None
        held_out = self._split("eval", self.eval, self.streaming)
        if self.streaming and held_out is not None:  # So that the train split is not downloaded along with it.
            from datasets import Dataset

            held_out = Dataset.from_list(list(held_out), features=held_out.features)
        return rows, held_out, source

    def stream(self) -> tuple[Any, Iterator[dict[str, Any]]]:
        """Rows of the train split, each fetched when it is asked for."""
        from xp.data.streamed import undecoded_stream

        rows = self._split("train", self.train, streaming=True)
        if rows is None:
            raise UserError("data.train is not set: give data.train=<a split>")
        rows = undecoded_stream(rows)
        return rows.features, iter(rows)

    def place(self, side: Side, row: int) -> str:
        """Split, repository and row."""
        return f"{getattr(self, side)} of {self.path}, row {row + 1}"

    def _split(self, split: str, wanted: str | None, streaming: bool = False) -> Any:
        from datasets import load_dataset

        if wanted is None:
            return None
        self.check_files(split == "train")
        if not os.path.isdir(self.path):
            hub.settle()
        logging.getLogger("datasets.packaged_modules").setLevel(logging.CRITICAL)  # What it says is in the error too.
        try:
            with unpickled():
                rows = load_dataset(self.path, self.subset, split=wanted, revision=self.revision, streaming=streaming)
        except Exception as error:  # Whatever its readers raise on files that may hold anything.
            raise UserError(self._told(split, wanted, error)) from error
        self._check_revision(rows)
        return rows

    def _told(self, split: str, wanted: str, error: Exception) -> str:
        """What the error means for the one who wrote the config, with the nearest valid word."""
        said = " ".join(str(error).split())
        if wrong := self._wrong_name(split, wanted, said):
            return wrong
        path = f"data.path={self.path}"
        if "scripts are no longer supported" in said:
            return (
                f"{path}: it holds a script, which datasets no longer runs; the hub's own copy in parquet may be there "
                "as data.revision=refs/convert/parquet"
            )
        if type(error).__name__ in ("DataFilesNotFoundError", "EmptyDatasetError"):
            return f"{path}: there are no files in it that datasets can read"
        if not os.path.isdir(self.path) and (fault := hub.fault("dataset", self.path, self.revision, error)):
            return f"data.{fault[0]}={getattr(self, fault[0])}: {fault[1]}"
        cause = str(error.__cause__ or error).strip().splitlines()
        return f"{path}: its {wanted} split cannot be read: {cause[-1] if cause else repr(error)}"

    def _wrong_name(self, split: str, wanted: str, said: str) -> str:
        """What is wrong with the split or the subset, by what datasets says and lists; nothing if it is neither."""

        def listed(pattern: str) -> list[str]:
            found = re.search(pattern + r" \[(.*?)\]", said)
            return [each.strip(" '\"") for each in found[1].split(",")] if found else []

        name = re.split(r"[\[+]", wanted)[0]
        if there := listed("(?:Should be one of|Available splits:)"):
            if name in there and "[" in wanted:
                return f"data.{split}={wanted}: a stream has no slices; use data.{split}={name} and data.{split}_rows"
            return f"data.{split}={wanted}: {self.path} has no such split.{nearest(name, there)}"
        if there := listed("BuilderConfig '.*' not found. Available:"):
            return f"data.subset={self.subset}: {self.path} has no such subset.{nearest(str(self.subset), there)}"
        if there := listed("Config name is missing.*?available configs:"):
            return f"data.subset is not set, and {self.path} has several: {', '.join(there)}"
        return ""

    def _check_revision(self, rows: Any) -> None:
        """Refuse rows of another revision: what datasets takes from its cache where the hub gives it none.

        Raises:
            UserError: they are of another commit than the one that this revision last stood for.
        """
        from huggingface_hub import constants

        files = getattr(rows, "cache_files", None)  # A stream has none.
        if os.path.isdir(self.path) or not files:
            return
        held = Path(files[0]["filename"]).parent.name
        refs = Path(constants.HF_HUB_CACHE, f"datasets--{self.path.replace('/', '--')}", "refs")
        known = refs / (self.revision or "main")
        wanted = known.read_text().strip() if known.is_file() else self.revision
        if wanted is not None and held != wanted:
            why = "cannot be reached" if constants.is_offline_mode() else "gives nothing that can be read at this one"
            raise UserError(
                f"data.revision={self.revision or 'null'}: the cache has {self.path} at another revision, {held[:12]}, "
                f"and the hub {why}"
            )
