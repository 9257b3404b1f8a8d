"""Eight small trainings as one sweep, beside the same ones as eight commands, in turn; the weights must be equal.

python tests/benchmarks/sweep.py
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

ROUNDS, JOBS = 3, 8
ONE_THREAD = os.environ | {"OMP_NUM_THREADS": "1"}
SETTINGS = [
    "data.train_rows=200",
    "data.eval_rows=100",
    "training.epochs=1",
    "precision=fp32",
    "tracking.log_model=false",
]


def done(folder: Path, name: str, *commands: list[str]) -> tuple[float, list[str]]:
    """Seconds that the commands take one after the other, and the digests of the weights that they end with."""
    started = time.perf_counter()
    for command in commands:
        whole = [sys.executable, "-m", "xp", *command, *SETTINGS, f"runs_folder={name}"]
        ended = subprocess.run(whole, cwd=folder, capture_output=True, text=True, check=False, env=ONE_THREAD)
        if ended.returncode:
            raise SystemExit(ended.stderr)
    seconds = time.perf_counter() - started
    results = [json.loads(file.read_text()) for file in folder.glob(f"{name}/*/result.json")]
    return seconds, sorted(result["digest"] for result in results if "digest" in result)


def main() -> None:
    """Print a line for each way."""
    ways = {
        "eight commands": [[f"seed={seed}"] for seed in range(JOBS)],
        "one sweep": [["-m", f"seed=range({JOBS})"]],
        "one sweep, two at a time": [["-m", f"seed=range({JOBS})", "hydra.launcher.slots=2"]],
    }
    times: dict[str, list[float]] = {way: [] for way in ways}
    digests = set()
    with tempfile.TemporaryDirectory() as folder:
        for round_ in range(ROUNDS):
            for number, (way, commands) in enumerate(ways.items()):
                seconds, found = done(Path(folder), f"runs_{round_}_{number}", *commands)
                times[way].append(seconds)
                digests.add(tuple(found))
    assert len(digests) == 1, "the weights differ"
    assert len(digests.pop()) == JOBS
    base = times["eight commands"]
    print(f"{'':<26}{'median s':>10}{'ratio':>8}")
    for way, taken in times.items():
        ratio = statistics.median(b / a for a, b in zip(taken, base, strict=True))
        print(f"{way:<26}{statistics.median(taken):>10.1f}{ratio:>8.2f}")


if __name__ == "__main__":
    main()
