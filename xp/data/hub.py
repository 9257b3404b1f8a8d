"""Data sets of the Hugging Face hub, or a local folder laid out like one."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from xp.data.base import Data
from xp.data.splits import Side
from xp.error import UserError, nearest

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
        from datasets.exceptions import DatasetNotFoundError

        if wanted is None:
            return None
        try:
            return load_dataset(self.path, self.subset, split=wanted, revision=self.revision, streaming=streaming)
        except DatasetNotFoundError as error:
            raise UserError(f"data.path={self.path}: no such data set on the hub, or no right to read it") from error
        except ConnectionError as error:
            raise UserError(
                f"data.path={self.path}: the hub cannot be reached and the data set is not in the local cache; "
                "go online, or use data=files"
            ) from error
        except (ValueError, OSError) as error:
            said = " ".join(str(error).split())
            names = said.partition("Should be one of [")[2].partition("]")[0].replace("'", "").split(", ")
            hint = nearest(wanted, names) if names != [""] else ""
            raise UserError(f"data.{split}={wanted} of data.path={self.path}: {said}{hint}") from error
