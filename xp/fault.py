"""Fault: what is wrong with settings, in one line."""

from __future__ import annotations

import json
import re
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
    path = [str(part) for part in first["loc"]]
    key = ".".join(path)
    if first["type"] == "extra_forbidden":
        return f"{key}: {_unknown(path[-1], _class_at(path[:-1], values, settings))}"
    if first["type"] == "missing":
        return f"{key}: has no value; give {key}=<value>"
    if first["type"] == "value_error":  # Raised by one of our own validators; that of a group begins with the key.
        own = first["ctx"]["error"]
        if not isinstance(first["input"], dict):  # That of one value.
            return f"{key}={json.dumps(first['input'], default=str)}: {own}"
        return f"{key}.{own}" if key else str(own)
    rule = first["msg"].replace("Input should be", "it must be").replace("a valid ", "a ").replace("a int", "an int")
    hint = ""
    if first["type"] == "literal_error" and isinstance(first["input"], str):
        hint = nearest(first["input"], re.findall(r"'([^']*)'", first["ctx"]["expected"]))
    return f"{key}={json.dumps(first['input'], default=str)}: {rule}.{hint}"


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
