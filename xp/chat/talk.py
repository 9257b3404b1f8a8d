"""Talk: a conversation that grows, and what can be done to it: undo, retry, clear, save, load."""

from __future__ import annotations

import json
import os
from copy import deepcopy
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from xp.error import UserError
from xp.task.messages import Message, listened
from xp.unpickled import from_json

Part = dict[str, str]
"""An image or a sound of a turn: ``{"type": "image", "path": ...}``."""


@dataclass
class Talk:
    """A conversation: OpenAI's messages, the assistant's with how they ended in ``about``."""

    messages: list[Message] = field(default_factory=list)
    attached: list[Part] = field(default_factory=list)
    """Images and sounds that go along with the next thing that the user says."""

    @property
    def system(self) -> str | None:
        """The system message."""
        first = self.messages[0] if self.messages else {"role": ""}
        return str(first["content"]) if first["role"] == "system" else None

    @system.setter
    def system(self, text: str | None) -> None:
        rest = self.messages[1:] if self.system is not None else self.messages
        self.messages = ([{"role": "system", "content": text}] if text else []) + rest

    @property
    def turns(self) -> int:
        """How often the user has spoken."""
        return sum(message["role"] == "user" for message in self.messages)

    @property
    def waits(self) -> bool:
        """Whether an answer is due."""
        return bool(self.messages) and self.messages[-1]["role"] not in ("assistant", "system")

    def ask(self, text: str) -> None:
        """The user says something; what was attached goes along with it."""
        content: Any = [*self.attached, {"type": "text", "text": text}] if self.attached else text
        self.messages.append({"role": "user", "content": content})
        self.attached = []

    def answer(self, text: str, about: dict[str, Any]) -> None:
        """The assistant has answered."""
        self.messages.append({"role": "assistant", "content": text, "about": about})

    def forget_answer(self) -> bool:
        """Take the last answer back, so that it is due again; False where there is none."""
        while self.messages and self.messages[-1]["role"] == "assistant":
            self.messages.pop()
        return self.waits

    def undo(self) -> bool:
        """Take back what the user said last and the answer to it; False where there is nothing."""
        asked = [at for at, message in enumerate(self.messages) if message["role"] == "user"]
        if not asked:
            return False
        del self.messages[asked[-1] :]
        return True

    def kept(self) -> tuple[list[Message], list[Part]]:
        """What was said and attached up to now, for `back`."""
        return [*self.messages], [*self.attached]

    def back(self, kept: tuple[list[Message], list[Part]]) -> None:
        """Be again what it was."""
        self.messages, self.attached = [*kept[0]], [*kept[1]]

    def clear(self) -> None:
        """Begin anew, with the same system message."""
        self.messages = self.messages[:1] if self.system is not None else []
        self.attached = []

    def seen(self, dropped: int = 0) -> list[Message]:
        """The messages as a template takes them, without the oldest ``dropped`` turns after the system message."""
        said = [{name: value for name, value in message.items() if name != "about"} for message in self.messages]
        begins = [at for at, message in enumerate(said) if message["role"] == "user"]
        first = 1 if self.system is not None else 0
        return deepcopy(said[:first] + said[begins[dropped] :]) if dropped else deepcopy(said)

    def save(self, file: Path) -> None:
        """Write the conversation as JSON; an earlier file of that name is whole until it is replaced.

        Raises:
            UserError: it cannot be written there.
        """
        part = file.with_name(f"{file.name}.part")
        if file.is_dir():
            raise UserError(f"{file}: this is a folder; give a file")
        try:
            part.write_text(json.dumps({"messages": self.messages}, indent=2, ensure_ascii=False) + "\n")
            os.replace(part, file)
        except OSError as error:
            raise UserError(f"{file}: it cannot be written: {error.strerror}") from error

    def load(self, file: Path) -> None:
        """Go on with the conversation of a file instead of this one.

        Raises:
            UserError: it is not there, or holds no conversation; this one stays as it is then.
        """
        self.messages = read(file)
        self.attached = []


def read(file: Path) -> list[Message]:
    """The messages of a JSON file: a list of them, or under ``messages``.

    Raises:
        UserError: there is no such file, or it holds no conversation.
    """
    try:
        found = from_json(file.expanduser().read_text("utf-8"))
    except OSError as error:
        beside = ", ".join(sorted(each.name for each in file.parent.glob("*.json"))[:10])
        more = f"; there is: {beside}" if beside else ""
        raise UserError(f"{file}: it cannot be read: {error.strerror}{more}") from error
    except ValueError as error:
        raise UserError(f"{file}: is no JSON: {error}") from error
    must = "it must be a list of messages with role and content"
    if isinstance(found, dict) and "messages" not in found:
        raise UserError(f"{file}: it has no key messages; {must}, or have one under messages")
    try:
        json.dumps(found, ensure_ascii=False).encode()
        messages = listened(found["messages"] if isinstance(found, dict) else found)
    except UserError as error:
        raise UserError(f"{file}: {error}; {must}") from error
    except UnicodeEncodeError as error:
        raise UserError(f"{file}: it holds half a character ({error.object[error.start]!r}); take it out") from error
    for at, message in enumerate(messages):
        if "about" in message and not _is_about(message["about"]):
            raise UserError(
                f"{file}: messages[{at}].about: it must have reason, prompt_tokens, tokens and seconds, as xp writes "
                "them; leave it out"
            )
    return messages


def _is_about(about: Any) -> bool:
    """Whether it is what `Talk.answer` notes."""
    numbers = [about.get(name) for name in ("prompt_tokens", "tokens", "seconds")] if isinstance(about, dict) else [""]
    return all(type(each) in (int, float) for each in numbers) and isinstance(about.get("reason"), str)
