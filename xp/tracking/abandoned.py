"""Abandoned runs: those whose process is gone without a word, found by the next one and closed."""

from __future__ import annotations

import json
import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mlflow import MlflowClient

KNOWN_AS = "mlflow.json"
"""File in a run's folder that says which run of MLflow it is, and which process tracks it."""

JOURNAL = "journal.jsonl"


def identify(folder: Path, run_id: str, uri: str) -> None:
    """Write down that this process tracks the run of a folder."""
    import psutil

    about = {"run_id": run_id, "uri": uri, "host": socket.gethostname(), "process": os.getpid()}
    part = folder / f"{KNOWN_AS}.part"
    part.write_text(json.dumps(about | {"since": psutil.Process().create_time()}) + "\n")
    os.replace(part, folder / KNOWN_AS)


def identified(folder: Path) -> dict[str, Any]:
    """What `identify` has written; nothing where it has not."""
    try:
        found: dict[str, Any] = json.loads((folder / KNOWN_AS).read_text())
    except FileNotFoundError:
        return {}
    return found


def close(runs: Path, client: MlflowClient, uri: str) -> list[str]:
    """Close as KILLED what nobody tracks any more; gives the names of those folders.

    Args:
        runs: the folder of all runs.
        client: of the store or server at ``uri``.
        uri: runs that are elsewhere are left alone, and so are those of other machines.
    """
    closed = []
    for folder, about in _open(runs):
        if about["uri"] != uri or about["host"] != socket.gethostname() or lives(about):
            continue
        error = "its process is gone; nothing was heard from it"
        client.set_tag(about["run_id"], "xp.error", error)
        client.set_terminated(about["run_id"], "KILLED")
        cut = not (folder / JOURNAL).read_bytes().endswith(b"\n")  # In the middle of its last line.
        with (folder / JOURNAL).open("a") as journal:
            entry = {"time": int(time.time() * 1000), "status": "KILLED", "error": error}
            journal.write("\n" * cut + json.dumps(entry) + "\n")
        closed.append(folder.name)
    return closed


def _open(runs: Path) -> Iterator[tuple[Path, dict[str, Any]]]:
    """The folders whose journal does not end with a status."""
    for file in sorted(runs.glob(f"*/{KNOWN_AS}")):
        journal = file.with_name(JOURNAL)
        if journal.is_file():
            with journal.open("rb") as content:
                content.seek(max(0, journal.stat().st_size - 10_000))
                last = (content.read().strip().splitlines() or [b""])[-1]
            if b'"status": ' not in last:
                yield file.parent, identified(file.parent)


def lives(about: dict[str, Any]) -> bool:
    """Whether the process that `identify` names is there."""
    import psutil

    try:
        return bool(abs(psutil.Process(about["process"]).create_time() - about["since"]) < 1)
    except psutil.NoSuchProcess:
        return False
