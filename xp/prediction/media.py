"""Images and sounds, read as networks take them."""

from __future__ import annotations

import math
from contextlib import suppress
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from xp.error import UserError
from xp.prediction.inputs import KINDS
from xp.task.media import decoded_image, decoded_sound, opened_image, opened_sound

if TYPE_CHECKING:
    import numpy as np
    from PIL.Image import Image

EXTRAS = {
    "torchvision": "image", "timm": "image", "av": "video",
    "pyav": "video", "pytesseract": "document", "tesseract": "document",
}  # fmt: skip
"""Packages that some models need, and the extra of xp that brings them."""


def load(row: dict[str, Any], rate: int | None) -> dict[str, Any]:
    """The parts of an input, images and sounds read; a video stays a path.

    Args:
        row: the parts, files as paths or web addresses.
        rate: samples a second that sounds are to have.

    Raises:
        ValueError: a file that cannot be read.
    """
    loaded = dict(row)
    for part, value in row.items():
        if KINDS.get(part) == "image":
            loaded[part] = image(value)
        elif KINDS.get(part) == "audio":
            loaded[part] = audio(value, rate or 16000)
    return loaded


def size(row: dict[str, Any], rate: int | None) -> int:
    """How large the image or how long the sound of an input is, from its file's first bytes; 0 where unknown."""
    for part, path in row.items():
        kind = KINDS.get(part)
        if kind is None or "://" in path:
            continue
        if kind == "image":
            with suppress(ValueError, OSError), opened_image(path) as opened:  # To read it will say why.
                return int(opened.width * 100_000 + opened.height)
        if kind == "audio":
            with suppress(ValueError, OSError), opened_sound(path) as file:
                return math.ceil(int(file.frames) * (rate or file.samplerate) / int(file.samplerate))
    return 0


def image(path: str) -> Image:
    """An image the right way up, in red, green and blue."""
    try:
        return decoded_image(_fetched(path))
    except (ValueError, OSError) as error:
        raise ValueError(f"image: {path} {_said(error)}") from error


def audio(path: str, rate: int) -> np.ndarray:
    """A sound's samples (samples,), float32 between -1 and 1, its channels averaged, at ``rate`` samples a second."""
    try:
        return decoded_sound(_fetched(path), rate)
    except (ValueError, OSError) as error:
        raise ValueError(f"audio: {path} {_said(error)}") from error


def _said(error: Exception) -> str:
    """The end of a sentence that begins with the file."""
    return str(error) if isinstance(error, ValueError) else f"cannot be read: {error}"


def _fetched(path: str) -> Any:
    """A path as it is; what a web address gives, as its bytes."""
    if "://" not in path:
        return path
    from urllib.request import urlopen

    if not path.startswith(("http://", "https://")):
        raise ValueError("is at an address that is not read: only http and https")
    with urlopen(path, timeout=60) as answer:
        return {"bytes": answer.read()}


def lacking(error: ImportError) -> UserError:
    """One line about a package that is not installed, with the extra that brings it."""
    said = " ".join(str(error).split())
    words = {word.strip("`'\".,:()").lower() for word in said.split()} & set(EXTRAS)
    words = {word for word in words if find_spec(word) is None} or words  # Others may be named as what was tried.
    extras = sorted({EXTRAS[word] for word in words})
    names = ", ".join(sorted(words)) or (error.name or "a package")
    install = f"; pip install 'xp[{','.join(extras)}]'" if extras else f"; pip install {error.name or 'it'}"
    return UserError(f"{names} is needed for this and is not installed{install} ({said[:120]})")
