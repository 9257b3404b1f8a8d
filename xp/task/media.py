"""What tasks on images and sounds share: rows that hold a file, or its bytes, and are decoded batch by batch."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

from xp.error import UserError

if TYPE_CHECKING:
    import numpy as np
    from datasets import Dataset
    from PIL.Image import Image
    from soundfile import SoundFile


def opened(value: Any) -> str | BytesIO:
    """What a decoder reads: a path, or the bytes in memory.

    Args:
        value: ``{"bytes": ..., "path": ...}``, as datasets keeps media that it is not to decode, or a path.

    Raises:
        ValueError: there is neither, or no such file.
    """
    if isinstance(value, dict) and value.get("bytes") is not None:
        return BytesIO(value["bytes"])
    path = value.get("path") if isinstance(value, dict) else value
    if not path:
        raise ValueError("is missing")
    if not isinstance(path, str):
        raise ValueError(f"is a {type(path).__name__}, not a file")
    if not Path(path).is_file():
        raise ValueError("there is no such file")
    return path


@contextmanager
def opened_image(value: Any) -> Iterator[Image]:
    """An image, its header read; what goes wrong with its decoder inside is a ValueError too.

    Raises:
        ValueError: it cannot be read, or has pixels of more than 8 bits, which eight would cut off.
    """
    import PIL.Image

    source = opened(value)
    try:
        with PIL.Image.open(source) as image:
            if image.mode.startswith(("I", "F")):
                raise ValueError(f"has pixels of more than 8 bits (mode {image.mode}); convert it first")
            yield image
    except ValueError:
        raise
    except Exception as error:  # Decoders raise whatever they like: SyntaxError, struct.error, EOFError, ...
        said = " ".join(str(error).split())[:300] or type(error).__name__
        raise ValueError(f"cannot be read: {said}") from error


def decoded_image(value: Any) -> Image:
    """An image, upright, in 8-bit red, green and blue; raises as `opened_image`."""
    from PIL import ImageOps

    with opened_image(value) as image:
        upright = ImageOps.exif_transpose(image)
        if upright.mode == "P":  # A palette's transparency makes Pillow warn, unless it goes by way of RGBA.
            upright = upright.convert("RGBA")
        return upright.convert("RGB")


@contextmanager
def opened_sound(value: Any) -> Iterator[SoundFile]:
    """A sound file, its header read.

    Raises:
        ValueError: it cannot be read, or holds no sound.
    """
    import soundfile

    source = opened(value)
    try:
        with soundfile.SoundFile(source) as file:
            if not file.frames:
                raise ValueError("is empty")
            yield file
    except soundfile.SoundFileError as error:
        said = getattr(error, "error_string", str(error))
        raise ValueError(f"cannot be read: {said} (wav, flac, ogg and mp3 can)") from error


def decoded_sound(value: Any, rate: int, max_seconds: float = math.inf) -> np.ndarray:
    """The beginning of a sound (samples,): float32, the mean of its channels, ``rate`` samples a second.

    Raises:
        ValueError: as `opened_sound`, or its samples are no numbers.
    """
    import numpy as np
    from scipy.signal import resample_poly

    with opened_sound(value) as file:
        there = file.samplerate
        frames = min(file.frames, math.ceil(max_seconds * there)) if max_seconds < math.inf else -1
        samples = file.read(frames=frames, dtype="float32", always_2d=True)
    if not len(samples) or not np.isfinite(samples).all():
        raise ValueError("has samples that are no numbers" if len(samples) else "cannot be decoded")
    wave: np.ndarray = samples.mean(axis=1)
    if there != rate:
        common = math.gcd(rate, there)
        wave = resample_poly(wave, rate // common, there // common)
    if max_seconds < math.inf:
        wave = wave[: max(1, round(max_seconds * rate))]
    return np.asarray(wave, dtype=np.float32)


def file_name(value: Any) -> str:
    """The file that a value of `opened` comes from; empty where there is only its content."""
    path = value.get("path") if isinstance(value, dict) else value
    return path if isinstance(path, str) else ""


def unreadable(row: dict[str, Any], column: str, reason: str) -> UserError:
    """What to say of an encoded row whose file turns out to be broken when it is needed."""
    name = file_name(row[column])
    return UserError(f"data: row {row['row']}{f' ({name})' if name else ''}: {column}: {reason}")


def beside(rows: Dataset, column: str, made: dict[str, list[Any]], types: dict[str, str]) -> Dataset:
    """The files of ``rows``, where they are, and new columns: no file is copied into memory.

    Args:
        rows: with the column.
        column: what holds the files.
        made: the new columns; ``row``, the number of each row for messages, is added to them.
        types: of the new columns.
    """
    from datasets import Dataset, Features, Value, concatenate_datasets

    features = Features({name: Value(kind) for name, kind in ({"row": "int32"} | types).items()})
    columns = Dataset.from_dict({"row": list(range(len(rows)))} | made, features=features)
    return concatenate_datasets([rows.select_columns([column]), columns], axis=1)


def file_names(rows: Dataset, column: str) -> list[str]:
    """Path of each row's file, empty where it has none; no file is read."""
    if hasattr(rows.features[column], "dtype") and rows.features[column].dtype in ("string", "large_string"):
        return list(rows[column][:])
    flat = rows.select_columns([column]).flatten()
    return [path or "" for path in flat[f"{column}.path"][:]]


def shown(rows: Dataset, column: str) -> dict[str, list[Any]]:
    """Columns by which a person finds the rows of a table of errors."""
    return {"file": file_names(rows, column)}
