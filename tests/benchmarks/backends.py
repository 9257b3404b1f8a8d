"""The same training by each backend, in turn; the weights must come out equal."""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

ROUNDS = 3
SETTINGS = [
    "data.train_rows=960",
    "data.eval_rows=10",
    "training.epochs=1",
    "precision=fp32",
    "tracking.log_model=false",
]


def result(settings: list[str]) -> dict[str, float | str]:
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run([sys.executable, "-m", "xp", *settings], cwd=folder, capture_output=True, check=True)
        (file,) = Path(folder).glob("runs/*/result.json")
        read: dict[str, float | str] = json.loads(file.read_text())
        return read


def compare(variants: dict[str, list[str]], equal: str) -> None:
    """Print median training seconds of each variant and its ratio to the first; ``equal`` names what must agree."""
    results: dict[str, list[dict[str, float | str]]] = {name: [] for name in variants}
    for _ in range(ROUNDS):
        for name, settings in variants.items():
            results[name].append(result([*SETTINGS, *settings]))
    first = next(iter(results.values()))
    print(f"{'':<14}{'training s':>12}{'ratio':>8}{'whole s':>10}  {equal}")
    for name, made in results.items():
        seconds = [float(each["training_seconds"]) for each in made]
        ratio = statistics.median(s / float(f["training_seconds"]) for s, f in zip(seconds, first, strict=True))
        whole = statistics.median(float(each["seconds"]) for each in made)
        same = sorted({str(each[equal])[:12] for each in made})
        print(f"{name:<14}{statistics.median(seconds):>12.2f}{ratio:>8.2f}{whole:>10.1f}  {' '.join(same)}")


if __name__ == "__main__":
    compare({name: [f"backend={name}"] for name in ("torch", "accelerate", "hf")}, "digest")
