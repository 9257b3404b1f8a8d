"""The same training with an MLflow server that is well, dead, or mute; the weights must come out equal.

    python tests/benchmarks/tracking.py

A mute server takes every connection and answers nothing. The last table is what a line of the journal costs.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

from servers import Proxy, serving

ROUNDS = 3
SETTINGS = [
    "data.train_rows=960",
    "data.eval_rows=10",
    "training.epochs=1",
    "training.log_every=1",
    "precision=fp32",
    "tracking.log_model=false",
]


def result(proxy: Proxy, mode: str) -> tuple[float, float, str]:
    """Seconds of the training, seconds from the command to the prompt, and the digest of the weights."""
    proxy.mode = mode
    with tempfile.TemporaryDirectory() as folder:
        began = time.perf_counter()
        arguments = [sys.executable, "-m", "xp", *SETTINGS, f"tracking.uri={proxy.address}"]
        subprocess.run(arguments, cwd=folder, capture_output=True, check=True)
        whole = time.perf_counter() - began
        (file,) = Path(folder).glob("runs/*/result.json")
        read = json.loads(file.read_text())
        return read["training_seconds"], whole, read["digest"]


def lines() -> None:
    """What a line costs, with and without waiting for the disk."""
    from xp.tracking.journal import Journal

    for name, flushed in (("a line", False), ("a line and fsync", True)):
        with tempfile.TemporaryDirectory(dir=".") as folder:
            journal = Journal(Path(folder))
            took = []
            for step in range(300):
                began = time.perf_counter()
                journal.write(step=step, metrics={"train/loss": 1.5, "train/lr": 1e-4, "train/grad_norm": 0.5})
                if flushed:
                    os.fsync(journal._end)
                took.append(time.perf_counter() - began)
            journal.close()
        print(f"{name:<18}{1e6 * statistics.median(took):>10.0f} microseconds")


def main() -> None:
    found: dict[str, list[tuple[float, float, str]]] = {mode: [] for mode in ("well", "dead", "mute")}
    with tempfile.TemporaryDirectory() as folder, serving(Path(folder)) as address:
        proxy = Proxy(address)
        for _ in range(ROUNDS):
            for mode, made in found.items():
                made.append(result(proxy, mode))
        proxy.close()
    print(f"{'server':<10}{'training s':>12}{'ratio':>8}{'whole s':>10}  digest")
    for mode, made in found.items():
        ratio = statistics.median(each[0] / first[0] for each, first in zip(made, found["well"], strict=True))
        training, whole = (statistics.median(each[at] for each in made) for at in (0, 1))
        digests = " ".join(sorted({each[2][:12] for each in made}))
        print(f"{mode:<10}{training:>12.2f}{ratio:>8.2f}{whole:>10.1f}  {digests}")
    lines()


if __name__ == "__main__":
    main()
