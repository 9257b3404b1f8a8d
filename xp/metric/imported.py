"""Metrics of the Hugging Face hub, or of a folder, on the answers of xp's tasks."""

from __future__ import annotations

from pathlib import PurePath
from typing import Any

from xp.error import UserError
from xp.metric import FORMS, METRICS, Entry, register


def load(source: str) -> None:
    """`xp.metric.load_imported`."""
    name = PurePath(source).name.removesuffix(".py")
    entry = Entry(f"hub:{source}", FORMS, (name,))
    if METRICS.get(name) == entry:
        return  # A worker that is told the imports again.
    if name in METRICS:
        raise UserError(f"imports=hub:{source}: there is a metric {name!r} already ({METRICS[name].module})")
    import evaluate

    try:
        module = evaluate.load(source, keep_in_memory=True)
    except FileNotFoundError as error:
        raise UserError(
            f"imports=hub:{source}: it is neither on the hub, as far as that can be reached, nor a folder "
            f"that holds {name}.py"
        ) from error
    except Exception as error:  # Its code, and whatever that downloads.
        raise UserError(f"imports=hub:{source}: it cannot be loaded ({_first_line(error)})") from error
    module.seed = 0  # Else each evaluation that draws samples would draw others.
    register(name, entry, lambda form: Imported(name, module, form))


class Imported:
    """A metric of evaluate's own making, given what it names of the answers, in the shape it wants."""

    def __init__(self, name: str, module: Any, form: str) -> None:
        self.name, self.module, self.form = name, module, form

    def compute(self, *, predictions: Any, references: Any, **more: Any) -> dict[str, Any]:
        """Its values; where that is a single number, it goes by the metric's own name.

        Raises:
            UserError: the answers are not what it takes.
        """
        columns = {"predictions": predictions, "references": references} | more
        kinds = self.module.features[0] if isinstance(self.module.features, list) else self.module.features
        if missing := [name for name in kinds if name not in columns]:
            raise UserError(
                f"task.metrics={self.name}: it needs {', '.join(missing)}; this task has {', '.join(columns)}"
            )
        given = {name: self._shaped(columns[name], self.module.features, name) for name in kinds}
        try:
            result = self.module.compute(**given)
        except Exception as error:
            raise UserError(
                f"task.metrics={self.name}: it cannot score this task's answers, of the form {self.form} "
                f"({_first_line(error)})"
            ) from error
        if not isinstance(result, dict):
            return {self.name: result}
        return {self.name: next(iter(result.values()))} if len(result) == 1 else result

    def _shaped(self, column: Any, features: Any, name: str) -> Any:
        """One reference a row without its list, and no more fields a row than it names, where it wants that."""
        from datasets import Value

        kinds = [each.get(name) for each in (features if isinstance(features, list) else [features])]
        if self.form == "text" and name == "references" and all(isinstance(kind, Value) for kind in kinds):
            return self._single(column)
        if self.form == "answer" and all(isinstance(kind, dict) for kind in kinds):
            return [{field: row[field] for field in kinds[0] if field in row} for row in column]
        return column

    def _single(self, column: Any) -> list[str]:
        for row, texts in enumerate(column):
            if len(texts) != 1:
                raise UserError(
                    f"task.metrics={self.name}: it takes one reference a row; row {row} of the evaluation set "
                    f"has {len(texts)}"
                )
        return [texts[0] for texts in column]


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return lines[0][:200]
