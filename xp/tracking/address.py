"""Address: how a setting names a run of MLflow."""

from __future__ import annotations

import re

from xp.error import UserError


def run_in(path: str) -> str | None:
    """The id in ``mlflow:<run id>``; None where the path is another one.

    Raises:
        UserError: no run of MLflow can have this id.
    """
    if not path.startswith("mlflow:"):
        return None
    found = path.removeprefix("mlflow:")
    if not re.fullmatch(r"[\w-]+", found):
        raise UserError(f"model.path={path}: this is no id of a run; it is in the run's table")
    return found
