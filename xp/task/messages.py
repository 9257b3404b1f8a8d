"""Messages: one shape for conversations, whatever shape their rows have."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from xp.error import UserError, nearest
from xp.unpickled import from_json

PAIRS = {"instruction": ("instruction", "output"), "prompt": ("prompt", "completion")}
"""Columns of one question and its answer, by the first."""

SHAPES = (("messages",), ("conversations",), *PAIRS.values())
"""Columns of OpenAI's shape, of ShareGPT's, of Alpaca's, and of plain pairs; the first that a row has counts."""

OPTIONAL = ("input", "system", "tools")
"""Columns that are read beside them: Alpaca's input, a system message, and descriptions of functions."""

ROLES = {
    "system": "system",
    "developer": "system",
    "user": "user",
    "human": "user",
    "assistant": "assistant",
    "gpt": "assistant",
    "chatgpt": "assistant",
    "model": "assistant",
    "bot": "assistant",
    "tool": "tool",
    "function": "tool",
    "observation": "tool",
}
"""What the roles of data sets are called in the messages that templates take."""

MEDIA = ("image", "audio", "video")
"""Parts of a turn that are not text."""

Message = dict[str, Any]


def conversation(row: Mapping[str, Any]) -> list[Message]:
    """A row's conversation as OpenAI's messages: ``role``, ``content``, and ``tool_calls`` where there are any.

    Args:
        row: with the columns of one of `SHAPES`, and perhaps of `OPTIONAL`.

    Raises:
        UserError: why the row is no conversation to learn from, beginning with the column: ``messages: is empty``.
    """
    column = next((names[0] for names in SHAPES if all(name in row for name in names)), "messages")
    if column in ("messages", "conversations"):
        turns = [_message(value, f"{column}[{at}]") for at, value in enumerate(_listed(row.get(column), column))]
    else:
        user, assistant = PAIRS[column]
        question = _text(row[user], user)
        more = row.get("input") if column == "instruction" else None
        if more:
            question = f"{question}\n\n{_text(more, 'input')}"
        turns = [
            {"role": "user", "content": question},
            {"role": "assistant", "content": _text(row[assistant], assistant)},
        ]
        column = assistant
    system = row.get("system")
    if system:
        if turns and turns[0]["role"] == "system":
            raise UserError("system: the conversation has a system message of its own already")
        turns.insert(0, {"role": "system", "content": _text(system, "system")})
    _check(turns, column)
    return turns


def asked(messages: Any, column: str = "messages") -> list[Message]:
    """A conversation that waits for an answer, as OpenAI's messages; a text is its first message.

    What the assistant says last is left out: it is what is asked for again.

    Raises:
        UserError: it is no conversation, or nobody waits.
    """
    if isinstance(messages, str) and not messages.lstrip().startswith("[{"):
        turns = [{"role": "user", "content": messages}]
    else:
        turns = [_message(value, f"{column}[{at}]") for at, value in enumerate(_listed(messages, column))]
    while turns and turns[-1]["role"] == "assistant":
        turns.pop()
    if not any(turn["role"] != "system" for turn in turns):
        raise UserError(f"{column}: nobody says anything that could be answered")
    if not turns[-1]["content"].strip():
        raise UserError(f"{column}: is empty")
    return turns


def listened(messages: Any) -> list[Message]:
    """A conversation that goes on, whoever spoke last; images and sounds of a turn stay where they are.

    Raises:
        UserError: it is no conversation.
    """
    turns = []
    for at, value in enumerate(_listed(messages, "messages")):
        content = value.get("content") if isinstance(value, dict) else None
        parts = content if isinstance(content, list) else []
        media = [part for part in parts if isinstance(part, dict) and part.get("type") in MEDIA]
        for part in media:
            if not any(isinstance(part.get(key), str) for key in ("path", "url", part["type"])):
                raise UserError(f"messages[{at}].content: its {part['type']} names no file; give it as path")
        text = value | {"content": [part for part in parts if part not in media]} if media else value
        turn = _message(text, f"messages[{at}]")
        turns.append(turn | {"content": [*media, {"type": "text", "text": turn["content"]}]} if media else turn)
    if turns and turns[0]["role"] not in ("system", "user"):
        raise UserError(f"messages[0]: the {turns[0]['role']} speaks first; a user's turn must come before")
    return turns


def is_talk(value: Any) -> bool:
    """Whether a value is a list of messages, and not of the parts of one."""
    return isinstance(value, list) and any(isinstance(each, dict) and {"role", "from"} & set(each) for each in value)


def question(row: Mapping[str, Any]) -> list[Message] | None:
    """The conversation of a row that waits for an answer; None where the row has no column for one.

    Args:
        row: with the columns of one of `SHAPES`, or those of them that come before the answer.

    Raises:
        UserError: as `asked`.
    """
    column = next((names[0] for names in SHAPES if names[0] in row), None)
    if column is None:
        return None
    if column in PAIRS and not is_talk(row[column]):
        said = _text(row[column], column)
        more = _text(row["input"], "input") if column == "instruction" and row.get("input") else ""
        turns = asked([{"role": "user", "content": f"{said}\n\n{more}" if more else said}], column)
    else:
        turns = asked(row[column], column)
    if row.get("system"):
        if turns[0]["role"] == "system":
            raise UserError("system: the conversation has a system message of its own already")
        turns.insert(0, {"role": "system", "content": _text(row["system"], "system")})
    return turns


def tools(row: Mapping[str, Any]) -> list[Any] | None:
    """Descriptions of the functions that a row's conversation may call, as JSON schemas; None where it has none.

    Raises:
        UserError: they are neither a list nor JSON of one.
    """
    value = row.get("tools")
    return [_filled(each) for each in _listed(value, "tools")] or None if value else None


def spoken(row: Mapping[str, Any]) -> list[str]:
    """All that is said in a row, to train a tokenizer on."""
    return [message.get("content") or "" for message in conversation(row)]


def _listed(value: Any, column: str) -> list[Any]:
    """A list, or the list that a text holds as JSON: csv has no lists, and parquet none of mixed shapes."""
    if isinstance(value, str):
        try:
            value = from_json(value)
        except ValueError as error:
            raise UserError(f"{column}: is a text, and not JSON of a list: {error}") from error
    if value is None:
        raise UserError(f"{column}: is empty")
    if not isinstance(value, list):
        raise UserError(f"{column}: is not a list but {type(value).__name__}")
    return value


def _text(value: Any, where: str) -> str:
    """Text, also out of OpenAI's list of parts."""
    if isinstance(value, list):
        for part in value:
            if not isinstance(part, dict) or not isinstance(part.get("text"), str):
                kind = part.get("type") if isinstance(part, dict) else type(part).__name__
                raise UserError(f"{where}: has a part that is not text but {kind}")
        return "".join(part["text"] for part in value)
    if value is None:
        raise UserError(f"{where}: is empty")
    if not isinstance(value, str):
        raise UserError(f"{where}: is not text but {type(value).__name__}")
    return value


def _message(value: Any, where: str) -> Message:
    """One message of a list, its role and content under OpenAI's names."""
    if not isinstance(value, dict):
        raise UserError(f"{where}: is not a message with role and content but {type(value).__name__}")
    given = value.get("role") or value.get("from")
    if given is None:
        raise UserError(f"{where}: has no role. Its keys: {', '.join(map(str, value))}")
    if given not in ROLES:
        raise UserError(f"{where}: there is no role {given!r}.{nearest(str(given), ROLES)}")
    # datasets gives every message all keys that any message has; what a message lacks is None there.
    rest = {
        name: _filled(each)
        for name, each in value.items()
        if name not in ("role", "from", "content", "value") and each is not None
    }
    message = {"role": ROLES[given]} | rest
    content = value.get("content") if value.get("content") is not None else value.get("value")
    if content is None and message.get("tool_calls"):
        return message | {"content": ""}
    return message | {"content": _text(content, f"{where}.content")}


def _filled(value: Any) -> Any:
    """A nested value without the keys that datasets filled up with None."""
    if isinstance(value, dict):
        return {name: _filled(each) for name, each in value.items() if each is not None}
    return [_filled(each) for each in value] if isinstance(value, list) else value


def _check(turns: Sequence[Message], column: str) -> None:
    """Refuse what no model should learn a conversation from."""
    if not turns:
        raise UserError(f"{column}: is empty")
    roles = [turn["role"] for turn in turns]
    said = [role for role in roles if role != "system"]
    if said and said[0] == "assistant":
        raise UserError(f"{column}: starts with the assistant; a user's turn must come before")
    if "assistant" not in roles:
        raise UserError(f"{column}: has no assistant turn, so there is nothing to learn")
    for number, turn in enumerate(turns, 1):
        if turn["role"] == "assistant" and not turn["content"].strip() and not turn.get("tool_calls"):
            raise UserError(f"{column}: the assistant says nothing (turn {number})")
