"""Generated tones: sounds to learn from with no network and no download."""

from __future__ import annotations

import io
import wave
from collections.abc import Callable
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

        names = sorted(KINDS)
        rows = []
        for number in range(CLIPS):
            name, samples = clip(number)
            file = {"bytes": _wav(samples), "path": f"{name}-{number:04d}.wav"}
            rows.append({"audio": file, "label": names.index(name)})
        audio = {"bytes": Value("binary"), "path": Value("string")}
        features = Features({"audio": audio, "label": ClassLabel(names=names)})
        sides = [row for at, row in enumerate(rows) if at % 5], rows[::5]
        train_rows, eval_rows = (Dataset.from_list(side, features=features) for side in sides)
        return train_rows, eval_rows, f"{CLIPS:,} generated tones"


def clip(number: int) -> tuple[str, np.ndarray]:
    """Kind and samples, between -1 and 1, of a sound: a quarter to half a second between 110 and 880 Hz."""
    import numpy as np

    random = np.random.default_rng(number)
    name = sorted(KINDS)[int(random.integers(len(KINDS)))]
    time = np.arange(int(random.uniform(0.25, 0.5) * RATE)) / RATE
    pitch = 110 * 8 ** random.uniform()
    turns = pitch * time + random.uniform()
    shape = KINDS[name](turns, time, random)
    loudness = 10 ** random.uniform(-1, -0.2)
    noise = random.normal(0, 10 ** random.uniform(-2, -0.7), len(time))
    return name, np.clip(loudness * (shape + noise), -1, 1)


def _vibrato(turns: np.ndarray, time: np.ndarray, random: np.random.Generator) -> np.ndarray:
    import numpy as np

    return np.asarray(
        np.sin(2 * np.pi * turns + random.uniform(2, 4) * np.sin(2 * np.pi * random.uniform(5, 9) * time))
    )


def _tremolo(turns: np.ndarray, time: np.ndarray, random: np.random.Generator) -> np.ndarray:
    import numpy as np

    swell = np.sin(2 * np.pi * (random.uniform(5, 9) * time + random.uniform()))
    return np.asarray(np.sin(2 * np.pi * turns) * (1 + 0.8 * swell) / 1.8)


def _sine(turns: np.ndarray, time: np.ndarray, random: np.random.Generator) -> np.ndarray:
    import numpy as np

    return np.asarray(np.sin(2 * np.pi * turns))


def _square(turns: np.ndarray, time: np.ndarray, random: np.random.Generator) -> np.ndarray:
    import numpy as np

    return np.where(turns % 1 < 0.5, 1.0, -1.0)


def _sawtooth(turns: np.ndarray, time: np.ndarray, random: np.random.Generator) -> np.ndarray:
    return 2 * (turns % 1) - 1


def _triangle(turns: np.ndarray, time: np.ndarray, random: np.random.Generator) -> np.ndarray:
    return 4 * abs(turns % 1 - 0.5) - 1


KINDS: dict[str, Callable[[Any, Any, Any], Any]] = {
    "sawtooth": _sawtooth,
    "sine": _sine,
    "square": _square,
    "tremolo": _tremolo,
    "triangle": _triangle,
    "vibrato": _vibrato,
}
"""What makes each kind of tone from its turns (periods since the start), the time in seconds, and chance."""


def _wav(samples: Any) -> bytes:
    file = io.BytesIO()
    with wave.open(file, "wb") as writer:
        writer.setnchannels(1)
        writer.setsampwidth(2)
        writer.setframerate(RATE)
        writer.writeframes((samples * 32767).astype("<i2").tobytes())
    return file.getvalue()
