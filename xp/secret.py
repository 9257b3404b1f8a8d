"""Secrets: what appears in no file, no tracked run and no line on the screen; the one place that knows them."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from contextlib import suppress
from typing import Any
from urllib.parse import quote, unquote

HIDDEN = "***"

VARIABLES = re.compile(
    r".*(TOKEN|KEY|SECRET|PASSWORD|PASSWD|PASSPHRASE|CREDENTIALS|CONNECTION_STRING)|AWS_ACCESS_KEY_ID|MYSQL_PWD"
)
"""Names of environment variables whose values are secret."""

SHORTEST = 8
"""Signs that such a value has at least; what is shorter may be a part of any word."""

USER = re.compile(r"""(?i)\b([a-z][a-z0-9+.-]*://)(?:[^\s/?#"<>\\`]*:(?!\d+(?:[/?#]|$))[^\s@"<>]*(?:@[^\s/?#"<>@]*)*"""
                  r"""|(?<=https://)[^\s/?#"<>\\`]+|(?<=http://)[^\s/?#"<>\\`]+)@""")  # fmt: skip
"""User and password in a URL; in one of the web also a lone user, which may be a token."""

QUERY = re.compile(
    r"""(?i)([?&](?:[\w-]*(?:token|secret|password|passwd|signature|credential)|sig|pwd|api_?key|access_?key|x-amz-[\w-]+"""
    r"""|x-goog-[\w-]+)=)[^&;\s"'#<>\\]+"""
)
"""A token in the query of a URL."""

HEADER = re.compile(
    r"""(?i)(authorization["']?\s*[:=]\s*["']?(?!\w+\s)|\b(?:bearer|basic)\s+(?=[\w.~+/-]{16})(?=\S*\d)"""
    r"""|authorization["']?\s*[:=]\s*["']?\w+\s+)[\w.~+/-]+=*"""
)
"""What authorises a request."""

SHAPES = re.compile(
    r"(?<![\w-])(?:hf_[A-Za-z0-9]{20,}|api_org_[A-Za-z0-9]{20,}|sk-(?=[\w-]*\d)[\w-]{20,}|gh[pousr]_[A-Za-z0-9]{20,}"
    r"|github_pat_\w{20,}|glpat-[\w-]{20,}|xox[abprs]-[\w-]{10,}|A(?:KIA|SIA)[A-Z0-9]{16}|AIza[\w-]{35}"
    r"|dapi[0-9a-f]{32}|eyJ[\w-]{10,}\.eyJ[\w-]{10,}\.[\w-]{10,})(?![\w])"
    r"|-----BEGIN [A-Z ]*PRIVATE KEY-----[\s\S]*?(?:-----END [A-Z ]*PRIVATE KEY-----|$)"
)
"""Tokens that tell by their form whose they are: Hugging Face, OpenAI, GitHub, GitLab, Slack, AWS, Google, ..."""


FORMS = ((USER, rf"\1{HIDDEN}@"), (QUERY, rf"\1{HIDDEN}"), (HEADER, rf"\1{HIDDEN}"), (SHAPES, HIDDEN))
"""What is looked for in a text, and what is put in its place."""


def variables() -> dict[str, str]:
    """The environment's secrets by the names of their variables; a path to a file that is there is none."""
    return {
        name: value
        for name, value in os.environ.items()
        if len(value) >= SHORTEST
        and VARIABLES.fullmatch(name.upper())
        and not (value[0] in "/~" and os.path.exists(os.path.expanduser(value)))
    }


def redacted(text: str, held: dict[str, str] | None = None) -> str:
    """A text with every secret in it hidden; ``held`` are the `variables`, looked up where many texts follow."""
    for value in sorted((variables() if held is None else held).values(), key=len, reverse=True):
        for form in {value, quote(value, safe=""), json.dumps(value)[1:-1], repr(value)[1:-1]}:
            text = text.replace(form, HIDDEN)
    for pattern, instead in FORMS:
        text = pattern.sub(instead, text)
    return text


def found(text: str, held: dict[str, str] | None = None) -> str:
    """Which kind of secret a text holds, in words; empty if none. ``held`` as for `redacted`."""
    for name, value in (variables() if held is None else held).items():
        if re.search(rf"(?<![A-Za-z0-9]){re.escape(value)}(?![A-Za-z0-9])", text):
            return f"the value of {name}"
    for pattern, instead in FORMS:
        if pattern.sub(instead, text) != text:
            return "a password in a URL" if pattern is USER else "a token"
    return ""


def first(settings: Any, but: str = "") -> tuple[str, str] | None:
    """The key of the first of nested settings that holds a secret, and which kind of one; None where none does.

    Args:
        settings: mappings, lists and plain values.
        but: a key, dotted, that is not looked at.
    """
    held = variables()  # Once, not for each of three hundred texts.
    for name, text in _texts(settings, "", held):
        if name != but and (kind := found(text, held)):
            return name, kind
    return None


def _texts(node: Any, key: str, held: dict[str, str]) -> Iterator[tuple[str, str]]:
    if isinstance(node, dict):
        for name, value in node.items():
            yield key, str(name)
            yield from _texts(value, f"{key}.{redacted(str(name), held)}" if key else str(name), held)
    elif isinstance(node, list | tuple):
        for item in node:
            yield from _texts(item, key, held)
    elif isinstance(node, str):
        yield key, node


DRIVERS = {
    "postgresql": "PGPASSWORD",
    "postgresql+psycopg": "PGPASSWORD",
    "postgresql+psycopg2": "PGPASSWORD",
    "mysql": "MYSQL_PWD",
    "mysql+mysqldb": "MYSQL_PWD",
}
"""Drivers of databases that take a password from the environment, and from which variable."""


def withdrawn(uri: str) -> str:
    """An address without user and password, which go where MLflow and the drivers of databases look for them: into
    the environment of this process and of those that it starts.

    Raises:
        ValueError: nobody would find them there; says what to do.
    """
    parts = re.fullmatch(r"([\w+.-]+)://(.*)@([^@]*)", uri, re.DOTALL)
    if parts is None or parts[1].startswith("sqlite"):
        return uri
    scheme, before, rest = parts[1].lower(), parts[2], parts[3]
    user, colon, password = before.partition(":")
    if scheme in ("http", "https"):
        if "/" in before or "?" in before:  # The sign is in the path.
            return uri
        if not user or not password:
            raise ValueError("a lone token in a URL reaches nobody; put it into MLFLOW_TRACKING_TOKEN and leave it out")
        os.environ["MLFLOW_TRACKING_USERNAME"] = unquote(user)
        os.environ["MLFLOW_TRACKING_PASSWORD"] = unquote(password)
        return f"{parts[1]}://{rest}"
    if not colon:
        return uri
    if scheme not in DRIVERS:
        instead = "?read_default_file=<an option file>" if scheme.startswith("mysql") else "a data source that knows it"
        raise ValueError(f"{scheme} takes no password from the environment, and an address is written down; "
                         f"leave it out and give {instead}")  # fmt: skip
    os.environ[DRIVERS[scheme]] = unquote(password)
    return f"{parts[1]}://{user}@{rest}"


def without(overrides: list[str]) -> list[str]:
    """Overrides of the command line, the address of MLflow `withdrawn`, unless that is to be refused."""
    clean = []
    for override in overrides:
        key, equals, value = override.partition("=")
        if equals and key.lstrip("+") == "tracking.uri":
            marks = value[:1] if value[:1] in ("'", '"') and value[:1] == value[-1:] else ""
            with suppress(ValueError):
                value = f"{marks}{withdrawn(value.removeprefix(marks).removesuffix(marks))}{marks}"
        clean.append(f"{key}{equals}{value}")
    return clean
