"""From a network to what is trained of it: the adapter is planned before any weights are read, and put on after."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from xp.commands.opening import load, machine, wish
from xp.model import head
from xp.model.quantization import check_trained
from xp.peft import Purpose
from xp.process import world
from xp.report import Report
from xp.run import Run
from xp.task import Encoded, Trainable

if TYPE_CHECKING:
    from datasets import Dataset
    from torch import Tensor
    from transformers import PreTrainedModel

    from xp.model import Loaded


LOOK = 64
"""Train rows that an initialisation may look at."""


class Adapting:
    """The adapter of a training; its settings are checked by peft when it is made."""

    def __init__(self, run: Run, report: Report) -> None:
        self.run, self.report = run, report
        self.told: set[str] = set()
        self._locate = partial(run.tracking.locate, runs=run.runs_folder)
        assert isinstance(run.task, Trainable)
        run.peft.check(Purpose(run.task.peft_type, steps=run.training.max_steps or 0))

    def load(self, task: Trainable, precision: str, labels: list[str], train: Dataset) -> Loaded:
        """The model; which of its layers will be adapted is told, or refused, before any weights are read.

        Raises:
            UserError: the settings fit no layer of this network.
        """
        run = self.run
        if run.peft.name != "none":
            skeleton = run.model.skeleton(wish(run, task, "auto", labels, train, precision))
            if skeleton is not None:
                run.peft.plan(skeleton, Purpose(task.peft_type, locate=self._locate, say=self._say))
        return load(run, task, precision, labels, train, self.report)

    def adapted(
        self, task: Trainable, loaded: Loaded, train: Encoded, folder: Path, steps: int, precision: str
    ) -> PreTrainedModel:
        """The network, its weights to train marked; an adapter's random base is saved, for it is nowhere else.

        Args:
            task: what it will be trained for.
            loaded: the network, and which of its weights are new.
            train: the rows to train on, for initialisations that look at some.
            folder: the run's folder.
            steps: optimizer steps of the training.
            precision: what it computes in.
        """
        run = self.run
        if run.model.name == "scratch" and run.peft.name != "none":
            base = folder / "base"
            loaded.network.name_or_path = str(base.absolute())
            if world.rank() == 0:
                loaded.network.save_pretrained(base)
                loaded.processor.save_pretrained(base)
        new = [] if run.model.name == "scratch" else loaded.new
        if task.peft_type is None and loaded.labels:  # Then peft knows of no head that is to be trained in full.
            new = sorted({*new, *head(loaded.network)})
        first = partial(_first, task, train, loaded.processor)
        purpose = Purpose(task.peft_type, new, steps, first, self._locate, folder, self._say)
        network = run.peft.apply(loaded.network, purpose)
        check_trained(network, machine(run, precision)["computes_in"])
        return network

    def _say(self, line: str) -> None:
        """Once: what is said of the plan is said of the network only where it differs."""
        if line not in self.told:
            self.told.add(line)
            self.report.say(line)


def _first(task: Trainable, train: Encoded, processor: Any) -> list[dict[str, Tensor]]:
    """A few batches of train rows, the same ones in every process; none of a stream."""
    import numpy as np

    numbers = range(min(LOOK, len(train.rows)))
    rows = [task.draw(train.rows[number], np.random.default_rng([number]), processor) for number in numbers]
    return [task.collate([[row] for row in rows[at : at + 16]], processor) for at in range(0, len(rows), 16)]
