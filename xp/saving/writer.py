"""Writer: checkpoints are written to the disk while the training goes on."""

from __future__ import annotations

import queue
import shutil
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from xp.error import UserError
from xp.saving import checkpoint
from xp.saving.checkpoint import Tensors


class Writer:
    """Writes checkpoints while the training goes on, one after the other, and prunes older ones after each."""

    def __init__(self, parent: Path, keep: int, done: int = 0) -> None:
        """Also removes what a process that was killed has left: halves, and what is of steps that are to come.

        Args:
            parent: the folder of a run's checkpoints.
            keep: how many; 0 for those alone that best weights are.
            done: the step after which the training goes on.
        """
        self.parent = parent
        self.keep = keep
        try:
            self._clear(done)
        except OSError as error:
            raise UserError(f"{parent}: nothing can be written there: {error.strerror}; mend that first") from error
        self.failure: BaseException | None = None
        self._work: queue.Queue[Callable[[], None] | None] = queue.Queue()
        self._held = 0
        self._fewer = threading.Condition()
        self._thread = threading.Thread(target=self._run, name="checkpoint", daemon=True)
        self._thread.start()

    def _clear(self, done: int) -> None:
        for rest in (*self.parent.glob("*.part"), *self.parent.glob("*.old")):
            shutil.rmtree(rest, ignore_errors=True)
        # Of steps to come: a damaged one would count as the newest; best weights may not be the best again.
        for kind in (checkpoint.STEP, checkpoint.BEST):
            for step in checkpoint.steps(self.parent, kind):
                if step > done:
                    checkpoint.discard(checkpoint.path(self.parent, kind, step))

    def room(self) -> None:
        """Wait until at most one checkpoint is being written: with the next one, two are held in memory, never three.

        Raises:
            UserError: an earlier one could not be written.
        """
        with self._fewer:
            self._fewer.wait_for(lambda: self._held < 2)
        self._check()

    def save(self, kind: str, step: int, tensors: Tensors, state: dict[str, Any]) -> None:
        """Have a checkpoint written; before it is copied, ask for `room`.

        Raises:
            UserError: an earlier one could not be written.
        """
        self._check()
        with self._fewer:
            self._held += 1
        self._work.put(lambda: self._save(kind, step, tensors, state))

    def wait(self) -> None:
        """Return once everything is on disk.

        Raises:
            UserError: something could not be written.
        """
        self._work.join()
        self._check()

    def close(self) -> None:
        """Let what was given be written, and end.

        Raises:
            UserError: something could not be written.
        """
        self._work.put(None)
        self._thread.join()
        self._check()

    def _check(self) -> None:
        if self.failure is not None:
            raise self.failure

    def _run(self) -> None:
        while True:
            work = self._work.get()
            try:
                if work is None:
                    return
                if self.failure is None:
                    work()
            except BaseException as failure:  # The training raises it, whatever it is.
                self.failure = failure
            finally:
                work = None  # It holds the checkpoint.
                with self._fewer:
                    self._held -= 1
                    self._fewer.notify_all()
                self._work.task_done()

    def _save(self, kind: str, step: int, tensors: Tensors, state: dict[str, Any]) -> None:
        try:
            checkpoint.write(checkpoint.path(self.parent, kind, step), tensors, state)
            checkpoint.prune(
                self.parent, max(1, self.keep)
            )  # Of no checkpoints, the best weights are needed all the same.
        except OSError as error:
            size = sum(each.nbytes for content in tensors.values() for each in content.values())
            there = self.parent if self.parent.is_dir() else self.parent.parent
            free = shutil.disk_usage(there).free if there.is_dir() else 0
            raise UserError(
                f"{self.parent}: the checkpoint of step {step} cannot be written ({error.strerror or error}); it needs "
                f"{size / 1e6:,.1f} MB and {free / 1e6:,.1f} MB are free. The ones before are whole: make room, then "
                f"python -m xp resume={self.parent.parent}"
            ) from error
