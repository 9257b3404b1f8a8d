"""Fifty kills a backend, at moments drawn from a seed: each run then ends as if nothing had happened.

python -m pytest -m kills -n 0 -s tests/test_kills.py
KILLS=10 python -m pytest -m kills -n 0 -s tests/test_kills.py -k torch
"""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from bombs import BOMBS, begin
from test_every_task import ENCODER
from test_resume import ended, only

from xp.config import compose as composing
from xp.error import UserError
from xp.launch import start
from xp.resume import resumed
from xp.run import Run
from xp.tracking import finished

KILLS = int(os.environ.get("KILLS", "50"))
"""Of each backend; a fifth of them inside saves and a fifth inside resumes."""

SETTINGS = [
    *ENCODER,
    "task=masked_lm",
    "training.max_steps=40",
    "training.batch_size=7",
    "training.micro_batch_size=4",
    "training.log_every=2",
    "training.evaluate_every=4",
    "training.save_every=3",
    "training.learning_rate=2e-2",
    "training.keep_best=true",
    "training.metric=accuracy",
    "training.patience=2",
]
"""Tokens are hidden at random, dropout is on, and it stops early, long before the fortieth step."""

IN_SAVES = {"save": 40, "half": 19, "prune": 5, "discard": 15}
IN_RESUMES = {"resume": 1, "reading": 2, "optimizer": 1, "freezing": 2, "clearing": 1}
"""Bombs, and up to which call they are set: more than there are means that the run may come to its end."""


class Kills:
    """The kills of one backend, and what came of them."""

    def __init__(self, backend: str, whole: dict[str, Any], seconds: float, store: Path, compose: Any) -> None:
        self.backend, self.whole, self.seconds, self.store, self.compose = backend, whole, seconds, store, compose
        self.random = random.Random(f"kills of {backend}")
        self.counts: Counter[str] = Counter()
        self.failures: list[str] = []

    def run(self, kind: str, number: int) -> None:
        """One run, killed as its kind says, gone on with to its end and compared."""
        workers = (0, 2)[number % 2]
        settings = [f"backend={self.backend}", f"training.workers={workers}", f"tracking.uri=sqlite:///{self.store}"]
        story = f"{self.backend} {number} {kind} workers={workers}"
        try:
            story += self._kill(kind, self.compose(*SETTINGS, *settings))
            run, folder = resumed("last", [f"tracking.uri=sqlite:///{self.store}"], None)
            self.counts["resumes"] += 1
            start(run, folder=folder)
            if ended(folder) != self.whole:
                self.failures.append(f"{story}: it ends otherwise")
        except (UserError, AssertionError, OSError) as error:
            self.failures.append(f"{story}: {error}")

    def _kill(self, kind: str, run: Run) -> str:
        """Kill a run once, or (inside of resumes) twice; again, if it has come to its end before that."""
        while True:
            shutil.rmtree("runs", ignore_errors=True)
            if kind == "in a save":
                bomb = self.random.choice(sorted(IN_SAVES))
                said = self._one(run, bomb, self.random.randint(1, IN_SAVES[bomb]))
            elif kind == "in a resume":
                bomb = self.random.choice(sorted(IN_RESUMES))
                first = self._one(run, "saved", self.random.randint(9, 20))
                again, folder = resumed("last", [f"tracking.uri=sqlite:///{self.store}"], None)
                second = self._one(again, bomb, self.random.randint(1, IN_RESUMES[bomb]), folder)
                said = first and second and first + second
            elif kind == "at a step":
                bomb = self.random.choice(["step", "schedule"])
                said = self._one(run, bomb, self.random.randint(2, 24))
            else:
                said = self._at_any_time(run)
            if said:
                self.counts[kind] += 1
                return said

    def _one(self, run: Run, bomb: str, number: int, folder: Path | None = None) -> str:
        process = begin(run, bomb, number, folder)
        process.join(timeout=300)
        assert process.exitcode in (0, -signal.SIGKILL), Path("child.log").read_text()
        self.counts["kills"] += process.exitcode != 0
        return f", {bomb} {number}" if process.exitcode else ""

    def _at_any_time(self, run: Run) -> str:
        """From outside, after a time that was drawn; it may be in the midst of anything."""
        delay = self.random.uniform(0.05, self.seconds)
        process = begin(run, "none", 0, None)
        process.join(timeout=delay)
        process.kill()
        process.join()
        begun = [file.parent for file in Path("runs").glob("*/run.yaml")]
        if process.exitcode == 0 or not begun:
            return ""
        if finished(begun[0]):  # What MLflow has not got of it by now, the next run brings there.
            assert ended(begun[0]) == self.whole
            return ""
        self.counts["kills"] += 1
        self.counts["of those, in a save by chance"] += bool(list(Path("runs").glob("*/checkpoints/*.part")))
        return f", after {delay:.3f} s"


@pytest.mark.kills
@pytest.mark.parametrize("backend", ["torch", "accelerate", "hf"])
def test_whenever_it_is_killed_it_ends_as_if_nothing_had_happened(
    backend: str, compose: Callable[..., Any], corpus: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store = corpus / "runs" / "mlflow.db"
    store = Path(shutil.move(store, corpus / "store.db")) if store.exists() else corpus / "store.db"
    tracked = f"tracking.uri=sqlite:///{store}"
    whole = ended(Path(start(compose(*SETTINGS, tracked, "runs_folder=whole"))["folder"]))
    assert whole["state"]["step"] < 40, "it is to stop early"
    began = time.monotonic()
    process = begin(compose(*SETTINGS, tracked, f"backend={backend}"), "none", 0, None)
    process.join()
    seconds = time.monotonic() - began
    assert ended(only()) == whole
    kills = Kills(backend, whole, seconds, store, compose)
    fifth = KILLS // 5
    kinds = ["in a save"] * fifth + ["in a resume"] * fifth
    kinds += ["at a step", "at any time"] * ((KILLS - 2 * fifth + 1) // 2)
    for number, kind in enumerate(kinds[:KILLS]):
        kills.run(kind, number)
    composing.initialize(None)
    with capsys.disabled():
        figures = ", ".join(f"{value} {name}" for name, value in sorted(kills.counts.items()))
        print(f"\n{backend}: {figures}; {len(kills.failures)} failures, {time.monotonic() - began:.0f} s")
    Path("failures.json").write_text(json.dumps(kills.failures))
    assert kills.failures == []


def test_every_bomb_of_the_suite_is_there() -> None:
    assert {*IN_SAVES, *IN_RESUMES} <= {*BOMBS}
