"""How long xp takes to answer without a run, beside an empty Hydra application, in turn: A B A B ..."""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROUNDS = 15
# An installed package is compiled once, and so is xp here.
ENVIRONMENT = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
EMPTY = """
import hydra

@hydra.main(version_base="1.3", config_path="conf", config_name="config")
def main(config):
    pass

main()
"""
ANSWERS = {
    "--help": ["--help"],
    "--cfg job": ["--cfg", "job"],
    "unknown choice": ["model=bundle"],
    "unknown key": ["training.lr=1"],
    "value out of range": ["training.batch_size=0"],
}


def seconds(command: list[str], folder: Path) -> float:
    started = time.perf_counter()
    subprocess.run(command, cwd=folder, capture_output=True, check=False, env=ENVIRONMENT)
    return time.perf_counter() - started


def main() -> None:
    with tempfile.TemporaryDirectory() as where:
        folder = Path(where)
        (folder / "conf").mkdir()
        (folder / "conf" / "config.yaml").write_text("{}\n")
        (folder / "empty.py").write_text(EMPTY)
        commands = {"empty Hydra application": [sys.executable, "empty.py"]}
        commands |= {name: [sys.executable, "-m", "xp", *arguments] for name, arguments in ANSWERS.items()}
        times: dict[str, list[float]] = {name: [] for name in commands}
        for round_ in range(ROUNDS + 1):
            for name, command in commands.items():
                taken = seconds(command, folder)
                if round_:  # The first one warms up.
                    times[name].append(taken)
    base = times["empty Hydra application"]
    print(f"{'command':<26}{'median s':>10}{'ratio':>8}")
    for name, taken in times.items():
        ratio = statistics.median(a / b for a, b in zip(taken, base, strict=True))
        print(f"{name:<26}{statistics.median(taken):>10.3f}{ratio:>8.2f}")


if __name__ == "__main__":
    main()
