"""Cache: folders by key, whole or not there, for several processes at once."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

KEPT = 10 << 30
"""Bytes that a cache may take; beyond, the entries go that were not used for the longest time."""

MANIFEST = "manifest.json"


def digest(value: Any) -> str:
    """SHA-256 of plain values (what json can hold), whatever the order of their keys."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def entry(folder: Path, key: str, make: Callable[[Path], None]) -> tuple[Path, Literal["hit", "made", "mended"]]:
    """The folder that belongs to ``key``, made if it is not there, made anew (``mended``) if it is damaged.

    Args:
        folder: the cache; removing it, or anything in it, costs no more than the time to make it again.
        key: of what decides the content.
        make: fills a folder.
    """
    from filelock import FileLock

    folder.mkdir(parents=True, exist_ok=True)
    path, part = folder / key, folder / f"{key}.part"
    with FileLock(folder / f"{key}.lock"):  # Another process may be making the same: then wait, and take its.
        there = path.exists()
        if there and _whole(path):
            os.utime(path)
            return path, "hit"
        shutil.rmtree(path, ignore_errors=True)
        shutil.rmtree(part, ignore_errors=True)  # Of a process that was killed.
        part.mkdir()
        try:
            make(part)
            (part / MANIFEST).write_text(json.dumps(_content(part)))
            part.replace(path)
        finally:
            shutil.rmtree(part, ignore_errors=True)
        _prune(folder, path)
        return path, "mended" if there else "made"


def _content(path: Path) -> dict[str, str]:
    """SHA-256 of every file of an entry; a gigabyte takes about a second."""
    found = {}
    for file in sorted(path.rglob("*")):
        if file.is_file() and file.name != MANIFEST:
            with file.open("rb") as content:
                found[file.relative_to(path).as_posix()] = hashlib.file_digest(content, "sha256").hexdigest()
    return found


def _whole(path: Path) -> bool:
    try:
        return bool(json.loads((path / MANIFEST).read_text()) == _content(path))
    except (OSError, ValueError):
        return False


def _prune(folder: Path, newest: Path) -> None:
    """Remove the entries that were not used for the longest time, until the rest fits into `KEPT`."""
    entries = [path for path in folder.iterdir() if path.is_dir() and path.suffix != ".part"]
    entries.sort(key=lambda path: path.stat().st_mtime, reverse=True)
    size = 0
    for path in entries:
        size += sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
        if size > KEPT and path != newest:
            shutil.rmtree(path, ignore_errors=True)
