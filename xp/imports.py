"""Imports: the one door by which a user's own code comes in, opened on the command line and nowhere else."""

from __future__ import annotations

import importlib
import os
import sys
import traceback

from xp import metric
from xp.error import UserError, nearest


def load(names: list[str]) -> None:
    """Import modules, whose components and metrics register themselves, and metrics of the hub.

    Args:
        names: modules, found from the current folder or installed, or ``hub:<id>`` for ``evaluate.load``.

    Raises:
        UserError: no such module, or it fails.
    """
    for name in names:
        if name.startswith("hub:"):
            metric.load_imported(name.removeprefix("hub:"))
            continue
        if os.getcwd() not in sys.path and "" not in sys.path:  # As `python -m xp` has it, and the command `xp` not.
            sys.path.insert(0, os.getcwd())
        try:
            importlib.import_module(name)
        except ModuleNotFoundError as error:
            if error.name != name.partition(".")[0] and error.name != name:
                raise UserError(f"imports={name}: it needs the module {error.name}, which is not installed") from error
            here = [entry.removesuffix(".py") for entry in os.listdir() if entry.endswith(".py")]
            hint = nearest(name, here) if here else ""
            raise UserError(f"imports={name}: there is no such module here or installed.{hint}") from error
        except Exception as error:
            place = traceback.extract_tb(error.__traceback__)[-1]
            said = f"{type(error).__name__}: {error} ({os.path.basename(place.filename)}, line {place.lineno})"
            raise UserError(f"imports={name}: it fails to import: {said}") from error
