"""Frozen: the settings of a run that there is, with those changed that the command line names."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from xp.config import compose
from xp.error import UserError


def changed(frozen: dict[str, Any], overrides: list[str], config_dir: str | None) -> dict[str, Any]:
    """The frozen settings with what the command line says in its place, and nothing else changed.

    A choice brings all settings of its yaml, but no other group's choice with it.

    Args:
        frozen: the settings of a checked `Run`.
        overrides: as on the command line.
        config_dir: one more folder of configs.

    Raises:
        UserError: a key that cannot be said of a run that there is, or one without a value.
    """
    keys = [each.partition("=")[0].lstrip("+~") for each in overrides]
    groups = {key.partition(".")[0] for key in keys} - {*keys}
    chosen = _chosen(frozen, groups, config_dir)
    composed = compose.values([*chosen, *overrides], config_dir, overrides, whole=False)
    values: dict[str, Any] = json.loads(json.dumps(frozen))
    for key in keys:
        *parents, last = key.split(".")
        there, new = values, composed
        try:
            for parent in parents:
                there, new = there[parent], new[parent]
            there[last] = new[last]
        except (KeyError, TypeError) as error:
            raise UserError(f"{key}: this cannot be said of a run that there is; start another one") from error
        if lacking := next(_lacking(new[last], key), None):
            raise UserError(f"{lacking} has no value; give {lacking}=<value>")
        if key in composed["choices"]:
            values["choices"][key] = composed["choices"][key]
        elif key == "model.path":  # A model is called after its path.
            values["choices"]["model"] = composed["choices"]["model"]
    return values


def completed(frozen: dict[str, Any], config_dir: str | None) -> list[str]:
    """Give settings of an earlier version of xp the keys that have come since, as their yamls state them.

    Args:
        frozen: the settings, not checked yet; it is changed.
        config_dir: one more folder of configs.

    Returns:
        What was added, as ``key=value``.
    """
    choices = frozen.get("choices")
    if not isinstance(choices, dict) or not all(isinstance(each, str) for each in choices.values()):
        return []
    groups = {str(name) for name, settings in frozen.items() if isinstance(settings, dict)}
    composed = compose.values(_chosen(frozen, groups, config_dir), config_dir, (), whole=False)
    added = []
    for name, new in composed.items():
        there = frozen.get(name)
        if name not in frozen:
            frozen[name] = new
            added.append(f"{name}={json.dumps(new)}")
        elif (
            isinstance(new, dict)
            and isinstance(there, dict)
            and new.get("name") == there.get("name")
            and name != "choices"
        ):
            for key in new.keys() - there.keys():
                there[key] = new[key]
                added.append(f"{name}.{key}={json.dumps(new[key])}")
    return sorted(added)


def _chosen(frozen: dict[str, Any], groups: set[str], config_dir: str | None) -> list[str]:
    """The choices of these groups, as overrides; a component whose yaml is gone stands in by the one of its name."""
    chosen = []
    for key, choice in frozen["choices"].items():
        group = key.partition("@")[0]
        if group in groups:
            names = (choice, frozen[group].get("name", "")) if key == group else (choice,)
            name = next((each for each in names if compose.has(group, each, config_dir)), None)
            chosen += [f"{'' if key == group else '+'}{key}={name}"] if name else []
    return chosen


def _lacking(value: Any, key: str) -> Iterator[str]:
    """The keys in a value that a yaml leaves to the command line."""
    if isinstance(value, dict):
        for name, each in value.items():
            yield from _lacking(each, f"{key}.{name}")
    elif value == "???":
        yield key
