"""Rows into other rows: a batch at a time, on all cores."""

from __future__ import annotations

import multiprocessing
import os
import secrets
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import TYPE_CHECKING, Any

from xp.process import world

if TYPE_CHECKING:
    from datasets import Dataset

PAYS = 20_000
"""Rows for each process that encodes: starting one takes about as long as to encode ten thousand texts."""

LARGE = 100_000
"""Rows that are kept on disk while they are encoded."""

THREADS = os.environ.get("TOKENIZERS_PARALLELISM", "true")
"""Whether a tokenizer may run threads of its own."""

_workplace: ContextVar[Path | None] = ContextVar("workplace", default=None)


def cores() -> int:
    """CPU cores that this process may use: its share of them in a sweep of several slots."""
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return int(os.environ.get("XP_CORES") or allowed)


@contextmanager
def workplace(folder: Path) -> Iterator[None]:
    """Where `mapped` keeps what is too large for memory, until the end of the context."""
    token = _workplace.set(folder)
    try:
        yield
    finally:
        _workplace.reset(token)
        shutil.rmtree(folder, ignore_errors=True)


def mapped(
    rows: Dataset,
    features: Callable[..., dict[str, list[Any]]],
    types: dict[str, Any],
    *,
    positions: bool = False,
    what: str = "encoding",
) -> Dataset:
    """``rows`` turned into other columns, a thousand at a time, by all cores where that pays.

    Args:
        rows: as `features` takes them.
        features: from a batch of rows (and their positions, if asked for) to a batch of features.
        types: the type of each new column.
        positions: whether `features` takes the rows' positions.
        what: the work, for the bar that a terminal shows.
    """
    import datasets
    from datasets import Features, List, Value

    def feature(kind: Any) -> Any:
        if isinstance(kind, list):
            return List(feature(kind[0]))
        return Value(kind) if isinstance(kind, str) else kind

    folder = _workplace.get()
    options: dict[str, Any] = {"keep_in_memory": True}
    if folder is not None and len(rows) >= LARGE:
        folder.mkdir(exist_ok=True)
        options = {"cache_file_name": str(folder / f"{secrets.token_hex(8)}.arrow")}
    processes = min(cores(), len(rows) // PAYS) if multiprocessing.current_process().daemon is False else 1
    if processes > 1:
        options["num_proc"] = processes
    if processes > 1 and not sys.stderr.isatty():
        print(f"{what} {len(rows):,} rows on {processes} cores", flush=True)
    shown = len(rows) >= PAYS and sys.stderr.isatty() and world.rank() == 0
    # One kind of parallelism at a time. And off at the end: a tokenizer that may run threads warns of every fork.
    os.environ["TOKENIZERS_PARALLELISM"] = "false" if processes > 1 else THREADS
    (datasets.enable_progress_bars if shown else datasets.disable_progress_bars)()
    try:
        return rows.map(
            features,
            batched=True,
            with_indices=positions,
            remove_columns=rows.column_names,
            features=Features({name: feature(kind) for name, kind in types.items()}),
            desc=what,
            # Else datasets hashes the function with all that it refers to, for a cache of its own that is not used.
            new_fingerprint=secrets.token_hex(8),
            **options,
        )
    finally:
        os.environ["TOKENIZERS_PARALLELISM"] = "false"
        datasets.disable_progress_bars()
