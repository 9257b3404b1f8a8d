"""Naming: task names as transformers spells them, the table of tasks, and ``inputs`` as a person types it."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from xp.error import UserError

ALIASES = {
    "sentiment_analysis": "text_classification",
    "ner": "token_classification",
    "fill_mask": "masked_lm",
    "text_generation": "causal_lm",
    "text_to_speech": "text_to_audio",
    "vqa": "visual_question_answering",
    "asr": "automatic_speech_recognition",
}
"""Other names of tasks, hyphens as underscores, and what they are called here."""

LITERAL = ("inputs", "task.hypothesis_template", "task.prediction.stop_sequence", "task.tesseract_config")
"""Keys whose value is a text as it is typed, commas, braces and all."""


def task_name(value: str) -> str:
    """A task's own name, from any spelling of it or of one of its aliases."""
    name = value.replace("-", "_")
    return ALIASES.get(name, name)


def literal(value: str) -> str:
    """A value as Hydra reads it: a list, a mapping or a quoted text as it is, all else as one text.

    So ``inputs=What a film, really!`` needs no quotes but those of the shell.
    """
    bare = value.strip()
    if bare in ("", "null"):
        return value
    value = re.sub(r"(\\*)\$\{", lambda found: found[1] * 2 + r"\${", value)  # Else OmegaConf would interpolate.
    if bare[0] + bare[-1] in ("[]", "{}") or re.fullmatch(r"""'([^'\\]|\\.)*'|"([^"\\]|\\.)*\"""", bare, re.DOTALL):
        return value
    value = re.sub(r"(\\*)'", lambda found: found[1] * 2 + r"\'", value)
    return "'" + re.sub(r"(\\+)$", lambda found: found[1] * 2, value) + "'"


def tasks(folders: Iterable[Path]) -> list[dict[str, str]]:
    """A row for each yaml of ``task/`` in these folders of configs, for a person to read.

    Raises:
        UserError: a yaml names a task that there is not.
    """
    import yaml

    from xp.task import Task, Trainable

    rows = {}
    for folder in folders:
        for file in sorted(folder.glob("task/*.yaml")):
            name = (yaml.safe_load(file.read_text()) or {}).get("name")
            kind: Any = Task.all().get(str(name))
            if kind is None:
                raise UserError(f"{file}: name={name}: there is no such task")
            others = sorted(alias for alias, own in ALIASES.items() if own == file.stem)
            rows[file.stem] = {
                "task": file.stem,
                "other names": ", ".join(others),
                "trains": "yes" if issubclass(kind, Trainable) else "",
                "predicts by": kind.pipeline or ("xp" if kind.answer is not Task.answer else "-"),
                "takes": kind.takes,
                "gives": kind.gives,
            }
    return [rows[name] for name in sorted(rows)]
