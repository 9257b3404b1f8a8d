"""Run: what was asked, as one frozen, typed object."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, NonNegativeInt, ValidationError, model_validator

from xp import imports, metric, secret
from xp.adapter import Merge
from xp.backend import Backend
from xp.chat import Chat
from xp.component import Settings
from xp.data import Data
from xp.error import UserError, nearest
from xp.fault import explain
from xp.generation import Generation, continuous
from xp.hardware import Device, Precision
from xp.ledger import Sweep, digest
from xp.model import Model, check_trainable
from xp.peft import Peft
from xp.prediction import Prediction
from xp.task import Task, Trainable
from xp.tracking import Tracking, run_in
from xp.training.recipe import Training


class Run(Settings):
    """A complete run: nothing that decides its outcome lies outside of it, but the rows and the model's files."""

    command: Literal["train", "evaluate", "predict", "generate", "chat", "merge", "show", "tasks", "diff", "sync"]
    """What to do: train a model, evaluate one, let it predict, let it write, chat with one, merge adapters into one,
    show rows as it sees them, list tasks, show what differs between runs, or bring to MLflow what it lacks."""

    examples: NonNegativeInt
    """How many rows of each split command=show prints."""

    inputs: Any
    """What is to be predicted: a text, a list, a file (text, csv, json lines, image, sound, video), or a folder."""

    seed: Annotated[int, Field(ge=0, lt=2**32)]
    """Start of everything random: new weights, the order of the rows, dropout."""

    device: Device
    """Where to compute; auto: a GPU where there is one, else the CPU."""

    precision: Precision
    """In which numbers to compute; auto: bf16 where the hardware computes it natively, else fp32."""

    runs: list[str]
    """Which runs command=diff compares: by folder, by name or by MLflow's id."""

    runs_folder: str
    """Folder that gets a folder for each run."""

    imports: list[str]
    """Modules of your own to import, and metrics of the hub as ``hub:<id>``; only the command line can say it."""

    cache: bool
    """Whether encoded rows are kept in ``<runs>/cache`` for the next run; remove that folder to clear it."""

    model: Model
    data: Data
    task: Task
    backend: Backend
    peft: Peft
    generation: Generation
    training: Training
    prediction: Prediction
    chat: Chat
    merge: Merge
    tracking: Tracking
    sweep: Sweep

    choices: dict[str, str]
    """Which yaml was chosen of each group, for tags and names; made by the composition. A model with a path of its own
    is called after that."""

    @model_validator(mode="after")
    def _fits_together(self) -> Run:
        self._check_columns()
        if self.command != "train" and self.backend.processes > 1:
            raise ValueError(f"backend.processes={self.backend.processes}: command={self.command} runs in one process")
        if self.command == "diff" and len(self.runs) < 2:
            raise ValueError("runs: command=diff compares at least two; give runs=[<one>,<other>]")
        if self.command != "diff" and self.runs:
            raise ValueError(f"runs: command={self.command} compares none; use command=diff")
        if self.command in ("predict", "generate") and self.inputs is None:
            raise ValueError("inputs has no value; give inputs=<a text, a list, or a file>")
        self._check_generation()
        if self.command == "chat" and self.task.name != "chat":
            raise ValueError(f"task={self.task.name}: command=chat is for task=chat")
        if self.command in ("train", "evaluate"):
            self._check_training()
        self.peft.check_use(self.command, self.model.name, [*self.merge.weights])
        check_trainable(self.model, self.command, self.peft.in_full, self.training.save_dtype)
        return self

    def _check_generation(self) -> None:
        if self.command == "generate" and self.task.name not in ("text_classification", "causal_lm", "chat"):
            raise ValueError(
                f"task={self.choices['task']}: command=generate takes prompts as they are, and a task's template only "
                "of task=chat; use command=predict"
            )
        if self.prediction.continuous_batching:
            if self.command != "generate":
                raise ValueError("prediction.continuous_batching=true: it is for command=generate; use false")
            continuous.check(self.generation)
        if self.command not in ("train", "evaluate", "predict"):
            return
        if self.generation.num_return_sequences > 1:
            raise ValueError(
                f"generation.num_return_sequences={self.generation.num_return_sequences}: command={self.command} "
                "has one answer an input; use command=generate"
            )
        if self.generation.drafts:
            raise ValueError(
                f"generation: drafts are for one input at a time, command={self.command} has batches; "
                "use command=generate"
            )
        if self.command == "predict" and self.generation.stop_strings and not isinstance(self.task, Trainable):
            raise ValueError(f"generation.stop_strings: task={self.task.name} cannot stop there; use command=generate")

    def _check_training(self) -> None:
        if self.inputs is not None:
            raise ValueError(f"inputs: command={self.command} has rows, from data; use command=predict")
        if not isinstance(self.task, Trainable):
            raise ValueError(
                f"task={self.task.name}: it can only predict; use command=predict, or one of the tasks that "
                f"command={self.command} is for: {', '.join(sorted(Trainable.all()))}"
            )
        metric.check(self.task.metrics, self.task.answers)
        if self.training.batching == "packed" and not self.task.packable:
            raise ValueError(
                f"training.batching=packed: rows of task={self.task.name} cannot share sequences; use length or shuffle"
            )
        if self.data.streaming and self.command == "train":
            if self.training.max_steps is None:
                raise ValueError(
                    "data.streaming=true: a stream has no epochs; give training.max_steps=<n> training.epochs=null"
                )
            if self.training.workers > 1:
                raise ValueError(
                    f"training.workers={self.training.workers}: a stream is read by one process; use 0 or 1"
                )
        decider = self.training.metric
        if decider is not None and decider not in self.task.scores:
            raise ValueError(
                f"training.metric={decider}: the task has no such metric.{nearest(decider, self.task.scores)}"
            )

    def _check_columns(self) -> None:
        if set(self.data.columns) <= type(self.task).known_columns():
            return
        known = set().union(*(each.known_columns() for each in Task.all().values()))  # A data set may be for another.
        for column in self.data.columns:
            if column not in known:
                raise ValueError(f"data.columns.{column}: no task reads such a column.{nearest(column, known)}")

    @classmethod
    def parse(cls, values: dict[str, Any]) -> Run:
        """The run that composed values ask for.

        Raises:
            UserError: the first thing wrong with them, as one line; or a secret in them, for they are written down.
        """
        if (held := secret.first(values, but="tracking.uri")) is not None:
            raise UserError(
                f"{held[0]}: it holds {held[1]}, and settings are written to files and to MLflow; leave it out, and "
                "put it where libraries look for it: HF_TOKEN for the hub, ~/.netrc for another server"
            )
        if isinstance(names := values.get("imports"), list) and names:
            for kind in (Model, Data, Task, Backend, Peft, Generation):
                kind.all()  # So that it is the user's component that is told that its name is taken.
            imports.load([str(name) for name in names])
        try:
            return cls.model_validate(values)
        except ValidationError as error:
            raise UserError(explain(error, values, cls)) from error

    @classmethod
    def read(cls, file: Path) -> Run:
        """The run that was frozen to ``file`` by `write`."""
        return cls.parse(json.loads(file.read_text()))

    def check_files(self) -> None:
        """See whether the files that the settings name are there, before anything heavy is imported.

        Raises:
            UserError: one is not; says which setting names it.
        """
        if self.command in ("tasks", "diff", "sync"):
            return
        if Path(self.runs_folder).exists() and not Path(self.runs_folder).is_dir():
            raise UserError(f"runs_folder={self.runs_folder}: this is a file; give a folder, or one that is to be made")
        run_in(getattr(self.model, "path", ""))
        for part in (self.model, self.task, self.peft, self.generation, self.chat):
            part.check_files()
        if self.command in ("train", "evaluate", "show"):
            self.data.check_files(self.command != "evaluate")
        elif self.command in ("predict", "generate"):
            from xp.prediction import inputs
            from xp.prediction.prompts import Prompts

            takes = Prompts(name="text_generation") if self.command == "generate" else self.task
            columns = {part: column for part, column in self.data.columns.items() if isinstance(column, str)}
            inputs.check_files(self.inputs, takes, columns)

    def values(self) -> dict[str, Any]:
        """All settings as plain values, nested as in the config."""
        return self.model_dump(mode="json", serialize_as_any=True)

    def write(self, file: Path) -> None:
        """Freeze the run to a file: JSON, which is YAML too."""
        write(file, json.dumps(self.values(), indent=2) + "\n")

    def digest(self) -> str:
        """SHA-256 of what decides the outcome: all settings but where it is tracked and kept, and what sweeps skip."""
        return digest(self.values())


def write(file: Path, text: str) -> None:
    """Put a text into a file at once; what was there is whole until then."""
    part = file.with_name(f"{file.name}.part")
    part.write_text(text)
    os.replace(part, file)


def flattened(settings: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Settings under the dotted names that the command line uses; an empty mapping keeps its own name."""
    for name, value in settings.items():
        if isinstance(value, dict) and value:
            yield from flattened(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


FREE = re.compile(
    r"(tracking|choices|sweep)\b.*|runs_folder|runs|cache|examples|imports|backend\.(name|processes)|"
    r"training\.(epochs|max_steps|save_every|save_total|workers|micro_batch_size|evaluation_batch_size)"
)
"""Settings that may differ when a run goes on: its length, places, and what is held in memory; not its curve."""


def changes(before: dict[str, Any], after: dict[str, Any]) -> list[str]:
    """What differs between two runs' settings that a run cannot go on with, as ``key=new (was old)``."""
    old, new = dict(flattened(before)), dict(flattened(after))
    keys = [key for key in {**old, **new} if old.get(key) != new.get(key) and not FREE.fullmatch(key)]
    return [f"{key}={json.dumps(new.get(key))} (was {json.dumps(old.get(key))})" for key in keys]
