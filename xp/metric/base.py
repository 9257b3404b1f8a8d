"""Metric: what a user's own metric and all of xp's derive from."""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING, Any, Literal

import evaluate  # Heavy: this file is imported when a metric is computed, or by a user's own.

from xp.error import UserError
from xp.metric import METRICS, Entry, register

if TYPE_CHECKING:
    from datasets import Features


def features(form: str) -> Features:
    """The types of ``predictions`` and ``references`` of a form, in evaluate's usual shapes.

    ``class``: a class id. ``classes``: 0 or 1 for each label. ``number``: a float. ``tags``: a tag for each word.
    ``text``: a string, and the list of strings that would be right. ``answer``: as in SQuAD 2.0, where
    a question without an answer has no texts and is answered by the empty string.
    """
    from datasets import Features, List, Value

    text, whole = Value("string"), Value("int64")
    kinds: dict[str, tuple[Any, Any]] = {
        "class": (whole, whole),
        "classes": (List(whole), List(whole)),
        "number": (Value("float64"), Value("float64")),
        "tags": (List(text), List(text)),
        "text": (text, List(text)),
        "answer": (
            {"id": text, "prediction_text": text, "no_answer_probability": Value("float64")},
            {"id": text, "answers": {"text": List(text), "answer_start": List(whole)}},
        ),
    }
    predictions, references = kinds[form]
    return Features({"predictions": predictions, "references": references})


class Metric(evaluate.Metric):  # type: ignore[misc]  # evaluate has no types
    """A metric by name: ``class Mine(Metric, name="mine", takes=("class",), gives=("mine",))``.

    Importing its module registers it. A subclass writes `score`; its docstring is its description.
    """

    def __init_subclass__(
        cls,
        *,
        name: str = "",
        takes: tuple[str, ...] = (),
        gives: tuple[str, ...] = (),
        better: Literal["min", "max"] = "max",
        **kwargs: Any,
    ) -> None:
        """Register a subclass that has a name.

        Args:
            name: what configs call it.
            takes: the forms of answers that it scores; what xp's own take and give stands in its registry.
            gives: the names of its values.
            better: which way they are good.

        Raises:
            TypeError: the name is taken, or takes or gives is missing.
        """
        super().__init_subclass__(**kwargs)
        if not name:
            return
        entry = Entry(cls.__module__, tuple(takes), tuple(gives), better)
        if not takes and not gives and name in METRICS and METRICS[name].module == cls.__module__:
            entry = METRICS[name]
        elif isinstance(takes, str) or isinstance(gives, str) or not gives:
            raise TypeError(f"the metric {name!r} must say what it takes and gives, as tuples of names")
        register(name, entry, cls)

    def __init__(self, form: str) -> None:
        """A metric for answers of one form."""
        self.form = form
        super().__init__(keep_in_memory=True, seed=0)

    def _build_data_dir(self) -> str:
        """No folder: everything stays in memory, and evaluate would make one in the user's home."""
        return ""

    def _info(self) -> Any:
        return evaluate.MetricInfo(description=self.__doc__ or "", citation="", features=features(self.form))

    def _compute(self, *, predictions: Any, references: Any, **more: Any) -> dict[str, float]:
        if self.form == "text" and not all(references):
            row = next(row for row, texts in enumerate(references) if not texts)
            raise UserError(f"data: row {row} of the evaluation set has no reference text; remove it or give it one")
        return self.score(predictions, references)

    @abstractmethod
    def score(self, predictions: list[Any], references: list[Any]) -> dict[str, float]:
        """The values, by name, over a whole evaluation set: one prediction and one reference a row."""
