"""Generated tones: sounds to learn from with no network and no download."""

from __future__ import annotations

import io
import wave
from collections.abc import Callable
from functools import cache, partial
from typing import TYPE_CHECKING, Any

from xp.data.base import Data

if TYPE_CHECKING:
    import numpy as np
    from datasets import Dataset

RATE = 16_000
"""Samples a second."""

CLIPS = 1500
"""Sounds in all; every fifth is for evaluation."""


class Tones(Data, name="tones"):
    """Tones of six kinds, of random pitch, loudness, phase and length, with noise: which kind is each?

    Its number alone decides what a sound is like: they are the same ones every time.
    """

    def read(self, train: bool) -> tuple[Dataset | None, Dataset | None, str]:
        """Rows of ``audio``, as wav, and ``label``."""
        from datasets import ClassLabel, Dataset, Features, Value

        audio = {"bytes": Value("binary"), "path": Value("string")}
        features = Features({"audio": audio, "label": ClassLabel(names=list(KINDS))})
        rows = _sounds()
        sides = [row for at, row in enumerate(rows) if at % 5], list(rows[::5])
        train_rows, eval_rows = (Dataset.from_list(side, features=features) for side in sides)
        return train_rows, eval_rows, f"{CLIPS:,} generated tones"


@cache
def _sounds() -> tuple[dict[str, Any], ...]:
    names = list(KINDS)
    rows = []
    for number in range(CLIPS):
        name, samples = clip(number)
        file = {"bytes": _wav(samples), "path": f"{name}-{number:04d}.wav"}
        rows.append({"audio": file, "label": names.index(name)})
    return tuple(rows)


def clip(number: int) -> tuple[str, np.ndarray]:
    """Kind and samples, between -1 and 1, of a sound: a quarter to half a second between 110 and 880 Hz."""
    import numpy as np

    random = np.random.default_rng(number)
    name = list(KINDS)[int(random.integers(len(KINDS)))]
    time = np.arange(int(random.uniform(0.25, 0.5) * RATE)) / RATE
    shape = KINDS[name](110 * 8 ** random.uniform(), time, random)
    loudness = 10 ** random.uniform(-1, -0.2)
    noise = random.normal(0, 10 ** random.uniform(-2.5, -1), len(time))
    return name, np.clip(loudness * (shape + noise), -1, 1)


def _buzz(pitch: float, time: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """A sawtooth wave."""
    return 2 * ((pitch * time + random.uniform()) % 1) - 1


def _sine(pitch: float, time: np.ndarray, random: np.random.Generator) -> np.ndarray:
    import numpy as np

    return np.asarray(np.sin(2 * np.pi * (pitch * time + random.uniform())))


def _glide(pitch: float, time: np.ndarray, random: np.random.Generator, octaves: float) -> np.ndarray:
    import numpy as np

    rate = octaves * random.uniform(0.7, 1.3) / time[-1]
    turns = pitch * (2 ** (rate * time) - 1) / (rate * np.log(2))
    return np.asarray(np.sin(2 * np.pi * (turns + random.uniform())))


def _hollow(pitch: float, time: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """Odd partials alone, each as loud as the others."""
    return sum((_sine(pitch * times, time, random) for times in (1, 3, 5)), start=0 * time) / 3


def _pulse(pitch: float, time: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """A sine that is switched on and off some ten times a second."""
    return _sine(pitch, time, random) * ((random.uniform(8, 14) * time + random.uniform()) % 1 < 0.5)


KINDS: dict[str, Callable[[float, Any, Any], Any]] = {
    "buzz": _buzz,
    "fall": partial(_glide, octaves=-1.5),
    "hollow": _hollow,
    "pulse": _pulse,
    "rise": partial(_glide, octaves=1.5),
    "sine": _sine,
}
"""What makes each kind of tone from its pitch in hertz, the time in seconds, and chance; sorted by name."""


def _wav(samples: Any) -> bytes:
    file = io.BytesIO()
    with wave.open(file, "wb") as writer:
        writer.setnchannels(1)
        writer.setsampwidth(2)
        writer.setframerate(RATE)
        writer.writeframes((samples * 32767).astype("<i2").tobytes())
    return file.getvalue()
