"""How good answers are: the metrics by name, known before any of their libraries is imported."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from xp.error import UserError, nearest

FORMS = ("class", "classes", "number", "tags", "text", "answer")
"""What a task's predictions and references look like; ``features`` of `xp.metric.base` gives the types of each."""

LOSSES = {"loss", "perplexity", "bits", "error", "ter", "wer", "cer"}
"""Words in the name of a value that is the better the smaller it is."""


@dataclass(frozen=True)
class Entry:
    """What is known of a metric before its class is imported."""

    module: str
    """The module that makes its class."""

    takes: tuple[str, ...]
    """The forms of answers that it scores."""

    gives: tuple[str, ...]
    """The names of its values."""

    better: Literal["min", "max"] = "max"
    """Which way its values are good."""

    needs: str = ""
    """A package beyond xp's own dependencies that computes it."""


class Scorer(Protocol):
    """A metric for one form of answers: an `xp.metric.base.Metric` or one of the hub's."""

    def compute(self, *, predictions: Any, references: Any, **more: Any) -> dict[str, Any]:
        """Its values over a whole evaluation set."""


_classes, _numbers, _tags = "xp.metric.classification", "xp.metric.regression", "xp.metric.tagging"
_text, _answer = "xp.metric.text", "xp.metric.answering"

METRICS = {
    "accuracy": Entry(_classes, ("class",), ("accuracy",)),
    "balanced_accuracy": Entry(_classes, ("class",), ("balanced_accuracy",)),
    "f1_macro": Entry(_classes, ("class", "classes"), ("f1_macro",)),
    "f1_micro": Entry(_classes, ("class", "classes"), ("f1_micro",)),
    "f1_weighted": Entry(_classes, ("class", "classes"), ("f1_weighted",)),
    "precision_macro": Entry(_classes, ("class", "classes"), ("precision_macro",)),
    "recall_macro": Entry(_classes, ("class", "classes"), ("recall_macro",)),
    "matthews_correlation": Entry(_classes, ("class",), ("matthews_correlation",)),
    "cohen_kappa": Entry(_classes, ("class",), ("cohen_kappa",)),
    "exact_match_ratio": Entry(_classes, ("classes",), ("exact_match_ratio",)),
    "hamming_loss": Entry(_classes, ("classes",), ("hamming_loss",), "min"),
    "mean_squared_error": Entry(_numbers, ("number",), ("mean_squared_error",), "min"),
    "mean_absolute_error": Entry(_numbers, ("number",), ("mean_absolute_error",), "min"),
    "pearson": Entry(_numbers, ("number",), ("pearson",)),
    "spearman": Entry(_numbers, ("number",), ("spearman",)),
    "r2": Entry(_numbers, ("number",), ("r2",)),
    "entity": Entry(_tags, ("tags",), ("entity_f1", "entity_precision", "entity_recall")),
    "word_accuracy": Entry(_tags, ("tags",), ("word_accuracy",)),
    "word_f1_macro": Entry(_tags, ("tags",), ("word_f1_macro",)),
    "rouge": Entry(_text, ("text",), ("rouge1", "rouge2", "rougeL", "rougeLsum")),
    "bleu": Entry(_text, ("text",), ("bleu",)),
    "chrf": Entry(_text, ("text",), ("chrf",)),
    "ter": Entry(_text, ("text",), ("ter",), "min"),
    "exact_match": Entry(_text, ("text",), ("exact_match",)),
    "wer": Entry(_text, ("text",), ("wer",), "min", needs="jiwer"),
    "cer": Entry(_text, ("text",), ("cer",), "min", needs="jiwer"),
    "squad": Entry(_answer, ("answer",), ("exact_match", "f1")),
}
"""Every metric there is, by name; a user's own and the hub's come in by `register`."""

_makers: dict[str, Callable[[str], Scorer]] = {}
"""By name, what makes the metric for a form; filled as the modules are imported."""


def register(name: str, entry: Entry, make: Callable[[str], Scorer]) -> None:
    """Make a metric known.

    Args:
        name: what configs will call it.
        entry: what it takes and gives.
        make: gives the metric for a form.

    Raises:
        TypeError: another metric has that name, or ``takes`` holds no known form.
    """
    if name in _makers or METRICS.get(name, entry) != entry:
        raise TypeError(f"{name!r} is a metric already ({METRICS[name].module}); {entry.module} needs another name")
    if not entry.takes or not set(entry.takes) <= set(FORMS):
        raise TypeError(f"the metric {name!r} takes {entry.takes}: it must be some of {', '.join(FORMS)}")
    METRICS[name], _makers[name] = entry, make


def check(names: Sequence[str], form: str) -> None:
    """Refuse, before anything is imported, what `compute` could not do.

    Raises:
        UserError: there is no such metric, it does not score answers of this form, its package is not installed,
            or two of them give the same value.
    """
    from importlib.util import find_spec

    given: dict[str, str] = {}
    fitting = [name for name, entry in METRICS.items() if form in entry.takes]
    for name in names:
        if name not in METRICS:
            near = nearest(name, fitting)
            hub = "" if "Did you mean" in near else f" The hub's: imports=[hub:{name}]"
            raise UserError(f"task.metrics={name}: there is no such metric.{near}{hub}")
        entry = METRICS[name]
        if form not in entry.takes:
            raise UserError(
                f"task.metrics={name}: it scores answers of the form {' or '.join(entry.takes)}; this task's are "
                f"{form}. These do: {', '.join(fitting)}"
            )
        if entry.needs and find_spec(entry.needs) is None:
            raise UserError(f"task.metrics={name}: it needs a package that is not installed; pip install {entry.needs}")
        for value in entry.gives:
            if value in given:
                twice = f"both {given[value]} and {name} give" if given[value] != name else "it is named twice, for"
                raise UserError(f"task.metrics={name}: {twice} {value}; leave one out")
            given[value] = name


def values(names: Sequence[str]) -> tuple[str, ...]:
    """The names of all values that these metrics give, in order; a hub metric's own name where none are known."""
    return tuple(value for name in names for value in METRICS[name].gives)


def better(value: str) -> Literal["min", "max"]:
    """Which way a value is good, by what its metric says, else by its name: a loss or an error when it is small.

    Args:
        value: with or without the name of the split before it, as in ``eval/loss``.
    """
    bare = value.rsplit("/", 1)[-1]
    for entry in METRICS.values():
        if bare in entry.gives:
            return entry.better
    return "min" if set(bare.lower().split("_")) & LOSSES else "max"


def compute(names: Sequence[str], form: str, predictions: Any, references: Any, **more: Any) -> dict[str, float]:
    """The values of these metrics over a whole evaluation set.

    Args:
        names: which metrics.
        form: what the answers look like, one of `FORMS`.
        predictions: one a row.
        references: one a row, in the same order.
        more: further columns, one value a row (``sources``, say), for those of the hub's metrics that name them.

    Raises:
        UserError: what `check` refuses, or what a metric cannot score.
    """
    from importlib import import_module

    check(names, form)
    if len(predictions) != len(references):
        raise ValueError(f"{len(predictions)} predictions for {len(references)} references")
    found: dict[str, float] = {}
    for name in names:
        if name not in _makers:
            import_module(METRICS[name].module)
        result = _makers[name](form).compute(predictions=predictions, references=references, **more)
        scores = {value: float(score) for value, score in (result or {}).items() if _is_number(score)}
        if not scores:
            raise UserError(f"task.metrics={name}: it gave no number; choose another metric")
        for value in scores.keys() & found.keys():
            raise UserError(f"task.metrics={name}: another metric gives {value} already; leave one out")
        found |= scores
    return found


def _is_number(value: Any) -> bool:
    """Whether it is one number: Python's, NumPy's, or an array or tensor without axes."""
    return isinstance(value, (int, float)) or (hasattr(value, "item") and getattr(value, "ndim", 1) == 0)


def load_imported(name: str) -> None:
    """Load a metric of the Hugging Face hub, or one in a folder, and register it under the last part of its name.

    This runs its code: ask first. It takes every form, and refuses at `compute` what it cannot score.

    Args:
        name: an id as ``evaluate.load`` takes it (``comet``, ``someone/metric``), or a folder holding
            ``<folder's name>.py``.

    Raises:
        UserError: it cannot be loaded, or there is a metric of that name.
    """
    from xp.metric.imported import load

    load(name)
