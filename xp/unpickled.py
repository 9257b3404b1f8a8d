"""Unpickled: files from elsewhere are read without running what is in them, so no pickle is read at all."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

PICKLES = (".bin", ".pt", ".pth", ".pkl", ".pickle", ".ckpt", ".joblib", ".npy", ".npz")
"""Endings of files that may hold pickles."""


class Pickled(ValueError):
    """A library was about to read a pickle."""


def from_json(text: str | bytes) -> Any:
    """What a json text from anywhere says.

    Raises:
        json.JSONDecodeError: it is none; also where it is nested more deeply than Python reads, or has a longer number.
    """
    try:
        return json.loads(text)
    except RecursionError as error:
        raise json.JSONDecodeError("nested too deeply", "", 0) from error
    except json.JSONDecodeError:
        raise
    except UnicodeDecodeError as error:
        raise json.JSONDecodeError("not UTF-8", "", 0) from error
    except ValueError as error:
        raise json.JSONDecodeError(str(error), "", 0) from error


@contextmanager
def unpickled() -> Iterator[None]:
    """While the context lasts, ``torch.load`` refuses, whoever calls it and however it is told to be careful.

    ``weights_only=True`` has been got around before (CVE-2025-32434), and a list of shards, an adapter's options or a
    backbone's address can name a pickle where nobody would look for one.

    Raises:
        Pickled: from within.
    """
    import torch

    def refuse(file: Any, *arguments: Any, **named: Any) -> Any:
        name = os.path.basename(os.fspath(file)) if isinstance(file, (str, os.PathLike)) else "a file"
        raise Pickled(f"{name} is a pickle, which can hold code, so it is not read")

    before = torch.load
    torch.load = refuse  # type: ignore[assignment]
    try:
        yield
    finally:
        torch.load = before


def held(folder: Path) -> list[str]:
    """The files of a model's folder that are pickles, by their names or because a list of shards names them."""
    names = [file.name for file in folder.iterdir() if file.suffix in PICKLES and file.stem != "training_args"]
    for index in folder.glob("*.index.json"):
        try:
            listed = json.loads(index.read_text())["weight_map"].values()
        except (OSError, ValueError, KeyError, AttributeError, TypeError, RecursionError):
            continue
        names += [str(name) for name in listed if not str(name).endswith(".safetensors")]
    return sorted(set(names))


def told(path: str, auto_class: str) -> str:
    """What to do with a model whose weights are a pickle."""
    name = auto_class or "AutoModel"
    return (
        "its weights are a pickle, which can hold code, and xp reads none; where you trust it, convert it once: "
        f"python -c \"from transformers import AutoProcessor as P, {name} as M; [each.from_pretrained('{path}')"
        ".save_pretrained('converted') for each in (M, P)]\", then model.path=converted"
    )
