"""Consent: what only the command line can say: code to run, and places outside of a run's own to write to."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from xp.error import UserError

CODE = re.compile(r"(.+\.)?trust_remote_code")
"""Keys that let code run which is not xp's, beside ``imports``."""

OBJECT = re.compile(r"(^|\.)_(target|partial|args|recursive|convert)_(\.|$)")
"""Keys by which Hydra's own ``instantiate`` would make objects."""


def keys(overrides: Iterable[str]) -> set[str]:
    """The keys that a command line names."""
    return {each.partition("=")[0].lstrip("+~") for each in overrides}


def check(values: dict[str, Any], said: Iterable[str], source: str = "a config file") -> None:
    """Refuse code that is asked for anywhere but on the command line.

    Args:
        values: all settings, nested.
        said: the overrides of the command line.
        source: where else the values are from.

    Raises:
        UserError: ``imports``, or trust in a repository's code, that the command line does not say.
    """
    given = keys(said)
    if values.get("imports") and "imports" not in given:
        raise UserError(f"imports: {source} cannot have code run; give imports=[...] on the command line")
    for key, value in leaves(values):
        if value not in (False, None) and key not in given and CODE.fullmatch(key):
            raise UserError(f"{key}={json.dumps(value)}: {source} cannot have code run; say so on the command line")
        if OBJECT.search(key):
            raise UserError(f"{key}: there is no such key; xp makes no objects of what a config names")


def check_frozen(frozen: dict[str, Any], composed: dict[str, Any], said: Iterable[str], folder: Path | None) -> None:
    """Refuse what a file of settings that comes from elsewhere may not decide: code, and where is written to.

    Args:
        frozen: the settings of a run that goes on, or is run again.
        composed: what the command line and the configs say now.
        said: the overrides of the command line.
        folder: of the run, where it goes on.

    Raises:
        UserError: code, or a place outside of the folder of runs that neither the configs nor the command line say.
    """
    check(frozen, said, "a run's own file")
    given = keys(said)
    here = Path(str(composed["runs_folder"])).absolute() if folder is None else folder.absolute().parent
    for key, place in _places(frozen):
        inside = here == place or here in place.parents
        if key not in given and not inside and dict(_places(composed)).get(key) != place:
            raise UserError(f"{key}: {place} is outside of {here}; if it is to be written to, say {key}=... again")


def check_links(folder: Path, where: str) -> None:
    """Refuse a run's folder in which a link leads out of it: what a run writes would be written there.

    Raises:
        UserError: the first such link.
    """
    home = folder.resolve()
    for at, folders, files in os.walk(folder):
        for name in (*folders, *files):
            place = Path(at, name)
            if place.is_symlink() and home not in place.resolve().parents:
                raise UserError(f"{where}: {place} is a link that leads out of the run's folder; remove it")


def check_store(uri: str, own: str, runs: Path) -> None:
    """Refuse to make, or write to, a database that only a file in a run's folder asks for.

    Args:
        uri: what the file says.
        own: what the settings say.
        runs: the folder of all runs, in which databases may lie.

    Raises:
        UserError: it is somewhere else.
    """
    if uri == own or uri.startswith(("http://", "https://")):
        return
    file = Path(uri.removeprefix("sqlite:///").partition("?")[0]).resolve()
    if not uri.startswith("sqlite:///") or runs.resolve() not in file.parents:
        raise UserError(f"{uri} is outside of {runs}, and only a file of the run says so; give tracking.uri={uri}")


def _places(values: dict[str, Any]) -> Iterator[tuple[str, Path]]:
    """The settings by which a run writes somewhere, and where that is."""
    output, uri = (values.get("prediction") or {}).get("output"), (values.get("tracking") or {}).get("uri")
    files = {"runs_folder": values.get("runs_folder"), "prediction.output": output}
    if str(uri).startswith("sqlite:///"):
        files["tracking.uri"] = str(uri).removeprefix("sqlite:///").partition("?")[0]
    for key, file in files.items():
        if file is not None:
            yield key, Path(str(file)).expanduser().resolve()


def leaves(node: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Every value in nested mappings and lists, under its dotted key."""
    parts = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else None
    if parts is None:
        yield prefix, node
        return
    for key, value in parts:
        yield from leaves(value, f"{prefix}.{key}" if prefix else str(key))
