"""Outputs: predictions as lines of json, and what is no text (arrays, images, sounds) as files beside them."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path
from typing import Any

from xp.prediction.engine import Outcome
from xp.prediction.inputs import Item
from xp.secret import redacted

SMALL = 64
"""An array of more numbers than this becomes a file."""


UNSAFE = r"[^\w-]"
"""What of a model's words does not become part of a file's name."""


def write(outcomes: list[Outcome], folder: Path) -> tuple[Path, list[dict[str, Any]]]:
    """Write ``predictions.jsonl``, one line an input in their order.

    Args:
        outcomes: of all inputs, their outputs `plain`.
        folder: the run's folder.

    Returns:
        The file, and its lines.
    """
    lines = []
    for outcome in outcomes:
        line = _begun(outcome)
        if not outcome.error:
            line["output"] = outcome.output
            if outcome.truncated:
                line["truncated"] = True
        lines.append(line)
    return _saved_lines(folder / "predictions.jsonl", lines), lines


def write_answers(outcomes: list[Outcome], folder: Path) -> tuple[Path, list[dict[str, Any]]]:
    """Write ``generations.jsonl``, a line for each answer to each prompt in their order, or for why there is none.

    ``tokens_per_second`` are the new tokens of the answer by the seconds of its batch; those of a batch add up.

    Args:
        outcomes: of all prompts, their outputs lists of `xp.generation.answer.Answer`.
        folder: the run's folder.

    Returns:
        The file, and its lines.
    """
    lines = []
    for outcome in outcomes:
        if outcome.error:
            lines.append(_begun(outcome))
            continue
        size = len(outcome.item.row["tokens"])
        for sample, answer in enumerate(outcome.output):
            told = {"text": answer.text, "finish": answer.finish, "prompt_tokens": size, "new_tokens": answer.tokens}
            speed = {"tokens_per_second": round(answer.tokens / outcome.seconds, 2)}
            lines.append(_begun(outcome) | {"sample": sample} | told | speed)
    return _saved_lines(folder / "generations.jsonl", lines), lines


def _begun(outcome: Outcome) -> dict[str, Any]:
    """What every line begins with."""
    item = outcome.item
    begun = {"position": item.position, "input": item.given} | ({"place": item.place} if item.place else {})
    return begun | ({"error": redacted(outcome.error)} if outcome.error else {})


def _saved_lines(file: Path, lines: list[dict[str, Any]]) -> Path:
    with file.open("w", encoding="utf-8") as opened:
        opened.writelines(json.dumps(line, ensure_ascii=False, default=str) + "\n" for line in lines)
    return file


def table(lines: list[dict[str, Any]], most: int = 1000) -> dict[str, list[Any]]:
    """The first lines as columns, everything in them a text or a number."""
    columns: dict[str, list[Any]] = {"position": [line["position"] for line in lines[:most]]}
    for name in ("input", "output", "error"):
        values = [line.get(name, "") for line in lines[:most]]
        columns[name] = [each if isinstance(each, str) else json.dumps(each, ensure_ascii=False) for each in values]
    return columns


def answer_table(lines: list[dict[str, Any]], most: int = 1000) -> dict[str, list[Any]]:
    """The first lines of answers as columns, everything in them a text or a number."""
    first = lines[:most]
    found: dict[str, list[Any]] = {"position": [line["position"] for line in first]}
    found["input"] = [
        each if isinstance(each := line["input"], str) else json.dumps(each, ensure_ascii=False) for line in first
    ]
    numbers = ("sample", "prompt_tokens", "new_tokens", "tokens_per_second")
    found |= {name: [line.get(name, 0) for line in first] for name in numbers}
    return found | {name: [line.get(name, "") for line in first] for name in ("text", "finish", "error")}


def kept(item: Item, output: Any, folder: Path) -> Any:
    """An item's prediction as its line gives it; files that it needs are in ``outputs`` of the run's folder."""
    return plain(output, folder, f"{item.position:06}")


def plain(value: Any, folder: Path, stem: str) -> Any:
    """A prediction in words, numbers, lists and mappings; the rest of it is saved, and the path of the file given.

    Args:
        folder: files are saved under ``outputs`` in it.
        stem: their names begin so.
    """
    if isinstance(value, dict):
        if "audio" in value and "sampling_rate" in value and hasattr(value["audio"], "dtype"):
            value = value | {"audio": Sound(value["audio"], value["sampling_rate"])}
        names = {name: re.sub(UNSAFE, "_", str(name)) for name in value}
        return {str(name): plain(each, folder, f"{stem}-{names[name]}") for name, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(each, folder, f"{stem}-{at}" if len(value) > 1 else stem) for at, each in enumerate(value)]
    if value is None or isinstance(value, (str, int, float)):
        return None if isinstance(value, float) and not math.isfinite(value) else value
    if hasattr(value, "detach"):
        value = value.detach().cpu()
        value = (value.float() if value.is_floating_point() else value).numpy()
    few = hasattr(value, "ndim") and (value.ndim == 0 or (value.size <= SMALL and value.dtype != bool))
    if few:
        return plain(value.tolist(), folder, stem)
    return _saved(value, folder, stem)


class Sound:
    """Samples with their rate."""

    def __init__(self, samples: Any, rate: int) -> None:
        self.samples = samples
        self.rate = rate


def _saved(value: Any, folder: Path, stem: str) -> str:
    """The path, seen from ``folder``, of the file that a value is saved in; of what is no data, its name alone."""
    (folder / "outputs").mkdir(exist_ok=True)
    file = folder / "outputs" / stem
    if isinstance(value, Sound):
        import numpy as np
        from scipy.io import wavfile

        file = file.with_name(f"{stem}.wav")
        wavfile.write(file, value.rate, np.asarray(value.samples, dtype=np.float32).T)
    elif hasattr(value, "save") and hasattr(value, "size"):
        file = file.with_name(f"{stem}.png")
        value.save(file)
    elif hasattr(value, "dtype"):
        import numpy as np

        if value.dtype == bool and value.ndim == 2:
            from PIL import Image

            file = file.with_name(f"{stem}.png")
            Image.fromarray(value.astype(np.uint8) * 255).save(file)
        else:
            file = file.with_name(f"{stem}.npy")
            np.save(file, value)
    else:
        return str(value)
    return str(file.relative_to(folder))
