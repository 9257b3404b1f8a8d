"""Images and sounds, read as networks take them."""

from __future__ import annotations

import math
from io import BytesIO
from typing import TYPE_CHECKING, Any

from xp.error import UserError
from xp.prediction.inputs import KINDS

if TYPE_CHECKING:
    import numpy as np
    from PIL.Image import Image

EXTRAS = {
    "torchvision": "image", "timm": "image", "av": "video",
    "pyav": "video", "pytesseract": "document", "tesseract": "document", "torchcodec": "video",
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
            from PIL import Image, UnidentifiedImageError

            try:
                with Image.open(path) as opened:
                    return int(opened.width * 100_000 + opened.height)
            except (UnidentifiedImageError, OSError, ValueError, Image.DecompressionBombError):
                return 0  # To read it will say why.
        if kind == "audio":
            try:
                about = _soundfile().info(path)
            except RuntimeError:
                return 0
            frames, own = int(about.frames), int(about.samplerate)
            return math.ceil(frames * (rate or own) / own)
    return 0


def image(path: str) -> Image:
    """An image the right way up, in red, green and blue."""
    from PIL import Image, ImageOps, UnidentifiedImageError

    try:
        with Image.open(_opened(path)) as opened:
            if opened.mode.startswith(("I", "F")):
                raise ValueError(
                    f"image: {path} has pixels of more than 8 bits, which would be cut off; convert it first"
                )
            return ImageOps.exif_transpose(opened).convert("RGB")
    except (UnidentifiedImageError, OSError, SyntaxError, Image.DecompressionBombError) as error:
        raise ValueError(f"image: {path} cannot be read: {str(error) or type(error).__name__}") from error


def audio(path: str, rate: int) -> np.ndarray:
    """A sound's samples (samples,), float32 between -1 and 1, its channels averaged, at ``rate`` samples a second."""
    soundfile = _soundfile()
    try:
        samples, own = soundfile.read(_opened(path), dtype="float32", always_2d=True)
    except (RuntimeError, OSError) as error:
        raise ValueError(f"audio: {path} cannot be read: {' '.join(str(error).split())}") from error
    if not len(samples):
        raise ValueError(f"audio: {path} has no samples")
    mono = samples.mean(1)
    if own != rate:
        from scipy.signal import resample_poly

        common = math.gcd(own, rate)
        mono = resample_poly(mono, rate // common, own // common).astype("float32")
    found: np.ndarray = mono
    return found


def _opened(path: str) -> Any:
    """A path as it is; what a web address gives, as a file."""
    if "://" not in path:
        return path
    from urllib.request import urlopen

    if not path.startswith(("http://", "https://")):
        raise ValueError(f"{path}: only http and https addresses are read")
    with urlopen(path, timeout=60) as answer:
        return BytesIO(answer.read())


def _soundfile() -> Any:
    try:
        import soundfile
    except ImportError as error:
        raise lacking(error) from error
    return soundfile


def lacking(error: ImportError) -> UserError:
    """One line about a package that is not installed, with the extra that brings it."""
    said = " ".join(str(error).split())
    words = {word.strip("`'\".,:()").lower() for word in said.split()}
    extras = sorted({EXTRAS[word] for word in words & set(EXTRAS)})
    names = ", ".join(sorted(words & set(EXTRAS))) or (error.name or "a package")
    install = f"; pip install 'xp[{','.join(extras)}]'" if extras else f"; pip install {error.name or 'it'}"
    return UserError(f"{names} is needed for this and is not installed{install} ({said[:120]})")
