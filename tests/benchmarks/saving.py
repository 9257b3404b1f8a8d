"""What a checkpoint costs the training: the steps that save beside those that do not, and beside copying the state."""

from __future__ import annotations

import os
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

SETTINGS = [
    "data=stdlib_functions",
    "task=causal_lm",
    "data.train_rows=400",
    "data.eval_rows=8",
    "model=scratch",
    "model.config.hidden_size=512",
    "model.config.intermediate_size=1536",
    "model.config.num_hidden_layers=6",
    "model.config.num_attention_heads=8",
    "training.batch_size=4",
    "training.epochs=null",
    "training.max_steps=60",
    "training.evaluate_every=1000",
    "training.log_every=5",
    "training.batching=shuffle",
    "task.max_length=128",
    "task.overlong=truncate",
    "precision=fp32",
    "tracking.log_model=false",
]
EVERY = 10


class Times:
    """When each step was finished, and how long the loop stood still for its checkpoint."""

    def __init__(self) -> None:
        self.steps: list[float] = []
        self.stalls: list[float] = []
        self.copies: list[float] = []
        self.writes: list[float] = []
        self.bytes = 0

    def wrap(self, holder: Any, name: str, into: list[float]) -> None:
        function = getattr(holder, name)

        def timed(*arguments: Any, **named: Any) -> Any:
            began = time.perf_counter()
            try:
                return function(*arguments, **named)
            finally:
                into.append(time.perf_counter() - began)

        setattr(holder, name, timed)


def measure() -> None:
    """Print a table."""
    from xp.config import compose
    from xp.launch import start
    from xp.run import Run
    from xp.saving import checkpoint, state
    from xp.training.job import Job

    compose.initialize(None)
    times = Times()
    finish = Job.finish

    def finished(self: Job, *arguments: Any) -> None:
        finish(self, *arguments)
        times.steps.append(time.perf_counter())

    Job.finish = finished  # type: ignore[method-assign]
    times.wrap(Job, "_save", times.stalls)
    times.wrap(state, "capture", times.copies)
    times.wrap(checkpoint, "write", times.writes)
    rows = {}
    for name, every in (("without saves", 100_000), ("with saves", EVERY)):
        times.steps.clear()
        result = start(
            Run.parse(compose.values([*SETTINGS, f"training.save_every={every}", f"runs_folder=runs{every}"]))
        )
        rows[name] = [b - a for a, b in zip(times.steps[:-2], times.steps[1:-1], strict=True)]
        newest = sorted(Path(result["folder"], "checkpoints").glob("step-*"))[-1]
        times.bytes = sum(file.stat().st_size for file in newest.iterdir())
    saving = rows["with saves"]
    at = [number for number in range(len(saving)) if (number + 2) % EVERY == 0]
    after = [number + 1 for number in at if number + 1 < len(saving)]
    median = statistics.median
    stalls = sorted(times.stalls)[-len(at) :]
    print(f"weights and optimizer: {times.bytes / 1e6:.0f} MB a checkpoint, one every {EVERY} steps")
    print(f"a step, of a run without saves       {median(rows['without saves']):.3f} s")
    print(f"a step that saves                    {median(saving[each] for each in at):.3f} s")
    print(f"the step after it, while it writes   {median(saving[each] for each in after):.3f} s")
    print(f"the loop stands still for            {median(stalls):.3f} s")
    print(f"of that, copying the state           {median(times.copies):.3f} s")
    print(f"on disk after another                {median(times.writes):.3f} s")


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        measure()
