"""Files through the readers of datasets, and rows that no reader could make."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from xp.data.columns import FAULT, ROW
from xp.error import UserError

if TYPE_CHECKING:
    from datasets import Dataset


def loaded(kind: str, files: Sequence[str], key: str, **options: Any) -> Dataset:
    """All rows of files that datasets has a reader for.

    Args:
        kind: csv, json or parquet.
        files: at least one.
        key: the setting that names them, for messages.
        options: of the reader.

    Raises:
        UserError: they cannot be read.
    """
    from datasets import load_dataset

    logging.getLogger("datasets.packaged_modules").setLevel(logging.CRITICAL)  # What it says is in the error too.
    try:
        return load_dataset(kind, data_files=list(files), split="train", **options)
    except Exception as error:  # Whatever its readers raise on a file that may hold anything.
        if "corresponds to no data" in str(error):
            raise UserError(f"{key}={','.join(files)}: the {key.rpartition('.')[2]} split has no rows") from error
        cause = str(error.__cause__ or error).strip().splitlines()
        raise UserError(
            f"{key}={','.join(files)}: cannot be read as {kind}: {cause[-1] if cause else error!r}"
        ) from error


def with_faults(good: Dataset, numbers: Sequence[int], faults: dict[int, str]) -> Dataset:
    """Rows that could be read and rows that could not, in the order of the source.

    Args:
        good: the rows that could be read.
        numbers: their numbers in the source.
        faults: why each of the others could not, by its number.
    """
    import numpy as np
    from datasets import Dataset, Features, Value, concatenate_datasets

    own = Features({ROW: Value("int64"), FAULT: Value("string")})
    added = Dataset.from_dict({ROW: list(numbers), FAULT: [None] * len(numbers)}, features=own)
    empty: dict[str, list[Any]] = {name: [None] * len(faults) for name in good.column_names}
    bad = Dataset.from_dict(
        empty | {ROW: list(faults), FAULT: list(faults.values())}, features=Features(good.features | own)
    )
    joined = concatenate_datasets([concatenate_datasets([good, added], axis=1), bad])
    return joined.select(np.argsort(joined[ROW][:], kind="stable"))
