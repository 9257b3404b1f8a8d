"""A folder that ``Dataset.save_to_disk`` or ``DatasetDict.save_to_disk`` has written."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from xp.data.base import Data
from xp.data.splits import Side
from xp.error import UserError, check_folder, nearest

if TYPE_CHECKING:
    from datasets import Dataset


class Saved(Data, name="saved"):
    """Rows from a folder of datasets' own format, memory-mapped: one data set, or one for each split."""

    path: str
    """The folder."""

    train: str | None
    """Name of the split to train on; where the folder holds one data set and no splits, any name means that one."""

    eval: str | None
    """Name of the split to evaluate on, likewise; null with ``eval_share``."""

    def check_files(self, train: bool) -> None:
        """The folder."""
        check_folder(f"data.path={self.path}", os.path.expanduser(self.path))

    def read(self, train: bool) -> tuple[Dataset | None, Dataset | None, str]:
        """The splits of the folder."""
        from datasets import Dataset, load_from_disk

        self.check_files(train)
        try:
            found = load_from_disk(os.path.expanduser(self.path))
        except Exception as error:  # Whatever it raises on files that may hold anything.
            said = " ".join(str(error).split())
            raise UserError(f"data.path={self.path}: cannot be read as a saved data set: {said}") from error
        if isinstance(found, Dataset):
            if train and self.train and self.eval:
                raise UserError(
                    f"data.path={self.path}: it holds one data set and no splits; "
                    "set data.eval=null and data.eval_share to a share of it"
                )
            return found if train and self.train else None, found if self.eval else None, self.path
        for side in ("train", "eval"):
            name = getattr(self, side)
            if name is not None and name not in found:
                raise UserError(f"data.{side}={name}: {self.path} has no such split.{nearest(name, found)}")
        return found[self.train] if train and self.train else None, found[self.eval] if self.eval else None, self.path

    def place(self, side: Side, row: int) -> str:
        """Folder, split and row."""
        return f"{getattr(self, side)} of {self.path}, row {row + 1}"
