"""Fault: what is wrong with settings, in one line."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Any, get_args

from pydantic import ValidationError

from xp.component import Component, Settings
from xp.error import elsewhere, nearest


def explain(error: ValidationError, values: dict[str, Any], settings: type[Settings]) -> str:
    """The first of a validation's errors as one line: key, value, rule, nearest valid word.

    Args:
        error: of the validation.
        values: that were validated.
        settings: the class that they were validated by.
    """
    errors = error.errors(include_url=False)
    first = next((each for each in errors if each["type"] == "extra_forbidden"), errors[0])  # A typo leaves a gap, too.
    if first["type"] not in ("extra_forbidden", "missing", "value_error"):
        return _unfit(first, errors, values)
    if first["type"] == "value_error":  # Raised by one of our own validators; that of a group begins with the key.
        key, own = ".".join(map(str, _place(first["loc"], values))), first["ctx"]["error"]
        if not isinstance(first["input"], dict):  # That of one value.
            return f"{key}={json.dumps(first['input'], default=str)}: {own}"
        return f"{key}.{own}" if key else str(own)
    path = [str(part) for part in first["loc"]]
    key = ".".join(path)
    if first["type"] == "extra_forbidden":
        return f"{key}: {_unknown(path[-1], _class_at(path[:-1], values, settings))}"
    return f"{key}: has no value; give {key}=<value>"


def _unfit(first: Any, errors: Sequence[Any], values: Any) -> str:
    """That a value is none of what it may be: where it may be of several types, pydantic has an error for each."""
    begin = _place(first["loc"], values)
    about = [each for each in errors if _place(each["loc"], values)[: len(begin)] == begin]
    place = max((_place(each["loc"], values) for each in about), key=len)  # The type that fits best.
    about = [each for each in about if _place(each["loc"], values) == place]
    rules = [each["msg"].replace("a valid ", "a ").replace("a int", "an int") for each in about]
    said = " or ".join(dict.fromkeys(rule.removeprefix("Input should be ") for rule in rules))
    must = "it must be " if rules[0].startswith("Input should be ") else ""
    given, hint = about[0]["input"], ""
    words = [word for each in about for word in re.findall(r"'([^']*)'", each.get("ctx", {}).get("expected", ""))]
    if words and isinstance(given, str) and "Did you mean" in (near := nearest(given, words)):
        hint = near  # All words are in the rule.
    return f"{'.'.join(map(str, place))}={json.dumps(given, default=str)}: {must}{said}.{hint}"


def _place(path: Sequence[str | int], values: Any) -> tuple[str | int, ...]:
    """Where in the values an error is: its path, without the names of types that pydantic puts between keys."""
    found: list[str | int] = []
    for part in path:
        inside = values if isinstance(values, dict) else dict(enumerate(values)) if isinstance(values, list) else {}
        if part in inside:
            values = inside[part]
        elif part != "[key]":
            continue
        found.append(part)
    return tuple(found)


def _unknown(key: str, settings: type[Settings]) -> str:
    """That these settings have no such key, and the components of their kind that do, or else the nearest key."""
    kind = next((each for each in settings.mro() if Component in each.__bases__), None)
    if kind is not None and issubclass(kind, Component):
        has = sorted(name for name, each in kind.all().items() if key in each.model_fields)
        if has:
            return elsewhere(kind.group, has)
    return f"there is no such key.{nearest(key, settings.model_fields)}"


def _class_at(path: list[str], values: Any, settings: type[Settings]) -> type[Settings]:
    """The class of the settings at ``path``; where there is none, that of the settings around it."""
    for part in path:
        values = values.get(part) if isinstance(values, dict) else None
        field = settings.model_fields.get(part)
        kinds = [field.annotation, *get_args(field.annotation)] if field else []
        for kind in kinds:
            if isinstance(kind, type) and issubclass(kind, Component) and Component in kind.__bases__:
                settings = kind.find(str(values["name"])) if isinstance(values, dict) and "name" in values else kind
            elif isinstance(kind, type) and issubclass(kind, Settings):
                settings = kind
    return settings
