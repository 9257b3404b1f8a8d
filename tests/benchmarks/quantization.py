"""A trained model evaluated, and adapters trained, with its layers in 32, 8 and 4 bits, in turn: memory, time, score.

python tests/benchmarks/quantization.py [model.path=<a folder>]
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

ROUNDS = 3
SETTINGS = ["precision=fp32", "tracking.log_model=false", "data.train_rows=1000", "data.eval_rows=500"]
WORDS = ["null", "int8", "nf4", "fp4"]


def done(folder: str, name: str, *settings: str) -> dict[str, Any]:
    """The result of a run, with the metrics that it logged before its first step."""
    whole = [sys.executable, "-m", "xp", *SETTINGS, *settings, f"runs_folder=runs_{name}"]
    ended = subprocess.run(whole, cwd=folder, capture_output=True, text=True, check=False)
    if ended.returncode:
        raise SystemExit(ended.stderr)
    file = max(Path(folder).glob(f"runs_{name}/*/result.json"), key=lambda each: each.stat().st_mtime)
    result: dict[str, Any] = json.loads(file.read_text()) | {"folder": str(file.parent)}
    for line in (file.parent / "journal.jsonl").read_text().splitlines():
        result["metrics"] |= json.loads(line).get("metrics", {}) if "model/bytes" in line else {}
    return result


def main(model: list[str]) -> None:
    """Print a line for each quantization."""
    with tempfile.TemporaryDirectory() as folder:
        trained = done(folder, "trained", *model)
        path = f"model.path={Path(folder, trained['model'])}"
        evaluated: dict[str, list[dict[str, Any]]] = {word: [] for word in WORDS}
        adapted = {word: done(folder, word, "peft=lora", *model, f"model.quantization={word}") for word in WORDS}
        for _ in range(ROUNDS):
            for word in WORDS:
                evaluated[word].append(done(folder, word, "command=evaluate", path, f"model.quantization={word}"))
        print(
            f"{'':<6}{'bytes':>12}{'evaluate s':>12}{'accuracy':>10}{'loss':>8}{'lora s':>9}{'accuracy':>10}{'loss':>8}"
        )
        for word in WORDS:
            first, lora = evaluated[word][0]["metrics"], adapted[word]["metrics"]
            seconds = statistics.median(each["seconds"] for each in evaluated[word])
            print(
                f"{word:<6}{first.get('model/bytes_after', 0):>12,.0f}{seconds:>12.2f}"
                f"{first['eval/accuracy']:>12.3f}{first['eval/loss']:>12.3f}"
                f"{adapted[word]['training_seconds']:>12.2f}{lora['eval/accuracy']:>12.3f}{lora['eval/loss']:>12.3f}"
            )
        print(f"bytes without quantization: {evaluated['nf4'][0]['metrics']['model/bytes_before']:,.0f}")


if __name__ == "__main__":
    main(sys.argv[1:])
