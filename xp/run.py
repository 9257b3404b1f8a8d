"""Run: what was asked, as one frozen, typed object."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError, model_validator

from xp.backend import Backend
from xp.component import Settings
from xp.data import Data
from xp.error import UserError, nearest
from xp.hardware import Device, Precision
from xp.model import Model
from xp.peft import Peft
from xp.task import Task
from xp.tracking import Tracking
from xp.training import Training


class Run(Settings):
    """A complete run: nothing that decides its outcome lies outside of it, but the rows and the model's files."""

    command: Literal["train", "evaluate"]
    """What to do."""

    seed: Annotated[int, Field(ge=0, lt=2**32)]
    """Start of everything random: new weights, the order of the rows, dropout."""

    device: Device
    """Where to compute; auto: a GPU where there is one, else the CPU."""

    precision: Precision
    """In which numbers to compute; auto: bf16 where the hardware computes it natively, else fp32."""

    runs: str
    """Folder that gets a folder for each run."""

    model: Model
    data: Data
    task: Task
    backend: Backend
    peft: Peft
    training: Training
    tracking: Tracking

    choices: dict[str, str]
    """Which yaml was chosen of each group, for tags and names; made by the composition."""

    @model_validator(mode="after")
    def _fits_together(self) -> Run:
        if self.training.batching == "packed" and not self.task.packable:
            raise ValueError(
                f"training.batching=packed: rows of task={self.task.name} cannot share sequences; use length or shuffle"
            )
        for column in self.data.columns:
            if column not in self.task.columns:
                raise ValueError(
                    f"data.columns.{column}: task={self.task.name} reads no such column."
                    f"{nearest(column, self.task.columns)}"
                )
        return self

    @classmethod
    def parse(cls, values: dict[str, Any]) -> Run:
        """The run that composed values ask for.

        Raises:
            UserError: the first thing wrong with them, as one line.
        """
        try:
            return cls.model_validate(values)
        except ValidationError as error:
            raise UserError(explain(error, values)) from error

    @classmethod
    def read(cls, file: Path) -> Run:
        """The run that was frozen to ``file`` by `write`."""
        return cls.parse(json.loads(file.read_text()))

    def values(self) -> dict[str, Any]:
        """All settings as plain values, nested as in the config."""
        return self.model_dump(mode="json", serialize_as_any=True)

    def write(self, file: Path) -> None:
        """Freeze the run to a file: JSON, which is YAML too."""
        file.write_text(json.dumps(self.values(), indent=2) + "\n")

    def digest(self) -> str:
        """SHA-256 of what decides the outcome: all settings but where it is tracked and kept."""
        values = self.values()
        for name in ("tracking", "runs", "choices"):
            del values[name]
        return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()


def flattened(settings: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Settings under the dotted names that the command line uses; an empty mapping keeps its own name."""
    for name, value in settings.items():
        if isinstance(value, dict) and value:
            yield from flattened(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def explain(error: ValidationError, values: Any, prefix: str = "") -> str:
    """The first of a validation's errors as one line: key, value, rule, nearest valid word."""
    first = error.errors(include_url=False)[0]
    path = [str(part) for part in first["loc"]]
    key = prefix + ".".join(path)
    inner = first.get("ctx", {}).get("error")
    if isinstance(inner, ValidationError):
        return explain(inner, first["input"], key + ".")
    if first["type"] == "extra_forbidden":
        siblings = _keys_beside(error, path)
        return f"{key}: there is no such key.{nearest(path[-1], siblings)}"
    if first["type"] == "missing":
        return f"{key}: has no value; give {key}=<value>"
    if first["type"] == "value_error":  # Raised by one of our own validators; its text begins with the key.
        return f"{key}.{inner}" if key else str(inner)
    rule = first["msg"].replace("Input should be", "it must be").replace("a valid ", "a ").replace("a int", "an int")
    hint = ""
    if first["type"] == "literal_error" and isinstance(first["input"], str):
        import re

        hint = nearest(first["input"], re.findall(r"'([^']*)'", first["ctx"]["expected"]))
    return f"{key}={json.dumps(first['input'], default=str)}: {rule}.{hint}"


def _keys_beside(error: ValidationError, path: list[str]) -> list[str]:
    """Names of the fields of the class that has refused ``path``."""
    from xp.component import Component

    if len(path) > 1:
        groups: dict[str, type[Settings]] = {"training": Training, "tracking": Tracking}
        return list(groups[path[0]].model_fields) if path[0] in groups else []
    classes: list[type[Settings]] = [Run]
    for kind in (Model, Data, Task, Backend, Peft):
        assert issubclass(kind, Component)
        classes += kind.registry.values()
    return next((list(each.model_fields) for each in classes if each.__name__ == error.title), [])
