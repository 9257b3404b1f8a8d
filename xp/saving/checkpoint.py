"""Checkpoint: folders that are whole, on disk and checksummed, or not there; and the newest of them that is whole."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from xp.error import UserError

if TYPE_CHECKING:
    from torch import Tensor

FOLDER = "checkpoints"
"""Of a run's folder."""

MANIFEST = "manifest.json"
STATE = "state.json"
STEP, BEST = "step", "best"
"""Kinds of checkpoints: all that a training needs to go on, and the weights of its best evaluation alone."""

Tensors = dict[str, dict[str, "Tensor"]]
"""What goes to each ``.safetensors`` file, by its name without the ending; on the CPU."""


@dataclass(frozen=True)
class Checkpoint:
    """One that was found whole."""

    folder: Path
    step: int
    state: dict[str, Any]

    def tensors(self, file: str) -> dict[str, Tensor]:
        """What `write` was given for this file.

        Raises:
            ValueError: it holds no tensors.
        """
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        try:
            found: dict[str, Tensor] = load_file(self.folder / f"{file}.safetensors")
        except SafetensorError as error:
            raise ValueError(f"{file}.safetensors: {error}") from error
        return found


def path(parent: Path, kind: str, step: int) -> Path:
    """Where the checkpoint of a step lies."""
    return parent / f"{kind}-{step:08d}"


def write(folder: Path, tensors: Tensors, state: dict[str, Any]) -> None:
    """Write a checkpoint: into a folder of another name, to the disk, its checksums last, then renamed.

    Raises:
        OSError: the disk is full or refuses; what was there before is untouched.
    """
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    part = folder.with_name(f"{folder.name}.part")
    shutil.rmtree(part, ignore_errors=True)  # Of a process that was killed.
    part.mkdir(parents=True)
    try:
        for name, content in tensors.items():
            save_file(content, part / f"{name}.safetensors")
        (part / STATE).write_text(json.dumps(state))
        manifest = {}
        for file in sorted(part.iterdir()):
            manifest[file.name] = {"bytes": file.stat().st_size, "sha256": _digest(file)}
            _flush(file)
        (part / MANIFEST).write_text(json.dumps(manifest, indent=1))
        _flush(part / MANIFEST)
        _flush(part)
        if folder.exists():  # A damaged one, or the same step once more after a resume from before it.
            discard(folder)
        os.replace(part, folder)
        _flush(folder.parent)
    except SafetensorError as error:
        raise OSError(_reason(error)) from error
    finally:
        shutil.rmtree(part, ignore_errors=True)


def discard(folder: Path) -> None:
    """Remove a checkpoint; killed in between, it leaves no half of one behind that looks whole."""
    rest = folder.with_name(f"{folder.name}.old")
    shutil.rmtree(rest, ignore_errors=True)
    os.replace(folder, rest)
    shutil.rmtree(rest, ignore_errors=True)


def fault(folder: Path) -> str | None:
    """What is wrong with a checkpoint: a file that is missing, shorter, changed; None where it is whole."""
    try:
        manifest = json.loads((folder / MANIFEST).read_text())
        for name, known in manifest.items():
            file = folder / name
            if Path(name).name != name or not file.is_file():
                return f"{name} is missing"
            if file.stat().st_size != known["bytes"]:
                return f"{name} has {file.stat().st_size:,} of {known['bytes']:,} bytes"
            if _digest(file) != known["sha256"]:
                return f"{name} is not what was written"
        state = read(folder).state if STATE in manifest else {"step": None, "needs_best": None}
        right = state["step"] == read(folder).step and type(state["needs_best"]) in (int, type(None))
        return None if right else f"{STATE} is missing, or of another checkpoint"
    except FileNotFoundError:
        return f"{MANIFEST} is missing"
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        return f"{MANIFEST} or {STATE} cannot be read: {' '.join(str(error).split())[:200]}"


def steps(parent: Path, kind: str) -> list[int]:
    """The steps of which there are checkpoints of a kind, the newest first."""
    found = (folder.name.rpartition("-") for folder in parent.glob(f"{kind}-*"))
    return sorted((int(number) for _, _, number in found if number.isdigit()), reverse=True)


def read(folder: Path) -> Checkpoint:
    """A checkpoint that has no `fault`."""
    return Checkpoint(folder, int(folder.name.rpartition("-")[2]), json.loads((folder / STATE).read_text()))


def newest(parent: Path, say: Callable[[str], None]) -> Checkpoint | None:
    """The newest checkpoint that is whole, with the best weights it speaks of; None where there never was one.

    Args:
        parent: the folder of a run's checkpoints.
        say: is told of each that is damaged.

    Raises:
        UserError: there are checkpoints, but none is whole.
    """
    numbers = steps(parent, STEP)
    for number in numbers:
        folder = path(parent, STEP, number)
        wrong = fault(folder)
        if wrong is None:
            found = read(folder)
            best = found.state["needs_best"]
            if best is None or (wrong := fault(path(parent, BEST, best))) is None:
                return found
            wrong = f"the weights of step {best}, its best, are damaged: {wrong}"
        say(f"the checkpoint of step {number} is damaged ({wrong}); looking for the one before")
    if numbers:
        raise UserError(
            f"{parent}: none of its {len(numbers)} checkpoints is whole; train anew with the run's own command"
        )
    return None


def prune(parent: Path, keep: int) -> None:
    """Remove all but the newest checkpoints and the best weights that they speak of; all of it for 0."""
    numbers = steps(parent, STEP)
    for number in numbers[keep:]:
        discard(path(parent, STEP, number))
    try:
        needed = {read(path(parent, STEP, number)).state["needs_best"] for number in numbers[:keep]}
    except (OSError, ValueError, KeyError):
        return  # One of them is damaged; which best weights it needs is not known.
    for number in steps(parent, BEST)[1 if keep else 0 :]:  # The newest of them is the best by now.
        if number not in needed:
            discard(path(parent, BEST, number))


def _reason(error: Exception) -> str:
    """What the system has said, without the words around it: ``No space left on device``."""
    found = re.search(r"(?:I/O error: )?([^:]*?)(?: \(os error \d+\))", str(error))
    return found[1].strip() if found else str(error)


def _digest(file: Path) -> str:
    with file.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()


def _flush(path: Path) -> None:
    """Have a file, or what a folder lists, on the disk itself."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
