"""Trouble: what MLflow and its databases say when something is wrong, in a few words."""

from __future__ import annotations

import re

from xp import secret


def locked(error: Exception) -> bool:
    """Whether a database is busy with somebody else, which passes."""
    return any(word in str(error) for word in ("database is locked", "database table is locked", "database is busy"))


def reason(error: Exception | None) -> str:
    """Why MLflow did not take something, in a few words instead of a library's many."""
    text = str(error)
    code = re.search(r"error code (\d{3})|too many (\d{3}) error|^(\d{3}) \w+ Error", text)
    number = (
        (code[1] or code[2] or code[3])
        if code
        else {"UNAUTHENTICATED": "401", "PERMISSION_DENIED": "403"}.get(text.partition(":")[0], "")
    )
    if number in ("401", "403"):
        return (
            f"it refuses the credentials ({number}), which are MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, "
            "or MLFLOW_TRACKING_TOKEN"
        )
    if number:
        return f"it answers with error {number}"
    if "timed out" in text or "timeout" in text:
        return "it does not answer"
    if "Connection aborted" in text or "Connection reset" in text:
        return "it closes the connection"
    if cause := re.search(r"\[Errno -?\d+\] ([^'\")]+)", text):
        return cause[1].strip().lower()
    return first_line(error)


def first_line(error: Exception | None) -> str:
    """What an error says, without the rest, and without secrets."""
    return secret.redacted((str(error).strip().splitlines() or [type(error).__name__])[0])[:300]
