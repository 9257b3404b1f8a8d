"""SQuAD's json: questions by paragraph, version 1 or 2 (Rajpurkar et al., 2016, 2018)."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from xp.data.json_rows import text, whole
from xp.error import UserError
from xp.unpickled import from_json

if TYPE_CHECKING:
    from datasets import Dataset


def told(path: str) -> bool:
    """Whether a json file is laid out like SQuAD's."""
    if not whole(path):
        return False
    data = from_json(text(path, "data")).get("data")
    return isinstance(data, list) and any(isinstance(each, dict) and "paragraphs" in each for each in data)


def read(paths: Sequence[str], key: str) -> Dataset:
    """A row a question: ``id``, ``question``, ``context``, ``answers`` with lists ``text`` and ``answer_start``.

    What a question lacks is null, for the task to find; without an answer the lists are empty.

    Raises:
        UserError: the file is not laid out like SQuAD's.
    """
    from datasets import Dataset, Features, List, Value

    features = Features(
        {
            "id": Value("string"),
            "question": Value("string"),
            "context": Value("string"),
            "answers": {"text": List(Value("string")), "answer_start": List(Value("int64"))},
        }
    )
    made: list[dict[str, Any]] = []
    for path in paths:
        try:
            content = from_json(text(path, key))
        except json.JSONDecodeError as error:
            raise UserError(f"{key}={path}: cannot be read as json: line {error.lineno}: {error.msg}") from error
        made += _questions(content, f"{key}={path}")
    if not made:
        raise UserError(f"{key}={','.join(paths)}: there is no question in it")
    return Dataset.from_list(made, features=features)


def _questions(content: Any, file: str) -> Iterator[dict[str, Any]]:
    for at, article in enumerate(_list(content, "data", file)):
        where = f"{file}: data[{at}]"
        for inner, paragraph in enumerate(_list(article, "paragraphs", where)):
            for question in _list(paragraph, "qas", f"{where}.paragraphs[{inner}]"):
                answers = question.get("answers") if isinstance(question, dict) else None
                if not isinstance(answers, list):  # Not the empty list of a question without an answer: a fault.
                    answers = [{}]
                answers = [each if isinstance(each, dict) else {} for each in answers]
                yield {
                    "id": _text(question, "id"),
                    "question": _text(question, "question"),
                    "context": _text(paragraph, "context"),
                    "answers": {
                        "text": [_text(each, "text") for each in answers],
                        "answer_start": [_number(each, "answer_start") for each in answers],
                    },
                }


def _list(value: Any, name: str, where: str) -> list[Any]:
    found = value.get(name) if isinstance(value, dict) else None
    if not isinstance(found, list):
        raise UserError(f"{where} has no list {name!r}, as SQuAD's json has; set data.format if it is something else")
    return found


def _text(value: Any, name: str) -> str | None:
    found = value.get(name) if isinstance(value, dict) else None
    return str(found) if isinstance(found, str | int) else None


def _number(value: dict[str, Any], name: str) -> int | None:
    found = value.get(name)
    return found if isinstance(found, int) else None
