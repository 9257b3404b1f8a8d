"""Prompts: texts to go on from and conversations that wait for an answer, as the tokens that a model is given."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

from xp.error import UserError
from xp.task import Task
from xp.task.conversation import prompt
from xp.task.messages import Message, asked, is_talk, question, tools
from xp.task.rendering import render
from xp.task.template import CONTROL

Kind = Literal["text", "rendered", "conversation"]
"""What a prompt is: a plain text, a text that holds the template already, or messages."""

CONVERSATIONS = ("messages", "conversations")


class Prompts(Task):
    """What command=generate takes; no task that a run could choose."""

    takes: ClassVar[str] = "a text to go on from, or a conversation"
    gives: ClassVar[str] = "what follows it"
    generates: ClassVar[bool] = True

    def understood(self, value: Any, columns: Mapping[str, str]) -> dict[str, Any] | None:
        """A conversation, in a list or in a column of messages; a column ``prompt`` of either if there is no text."""
        if isinstance(value, list):
            return {"messages": asked(value)}
        if not isinstance(value, dict):
            return None
        names = {columns.get(part, part): part for part in (*CONVERSATIONS, "system", "tools")}
        row: dict[str, Any] = {names.get(str(name), str(name)): each for name, each in value.items()}
        text = columns.get("text", "text")
        talks = (*CONVERSATIONS, "prompt") if text not in row and is_talk(row.get("prompt")) else CONVERSATIONS
        if any(name in row for name in talks):
            few = {name: row[name] for name in (*talks, "system") if name in row}
            return {"messages": question(few)} | ({"tools": tools(row)} if tools(row) else {})
        if text not in row and isinstance(row.get("prompt"), str) and row["prompt"].strip():
            return {"text": row["prompt"]}
        name = next((each for each in (text, "prompt") if each in row), next(iter(row), text))
        if isinstance(row.get(name), list):
            raise UserError(f"{name}: is a list; it must be a text, or a list of messages in a column messages")
        return None


class Reader:
    """Makes tokens of prompts, with a tokenizer whose template is settled."""

    def __init__(self, processor: Any) -> None:
        self.processor = processor
        self._beginnings = _beginnings(processor) if processor.chat_template else set()

    def tokens(self, row: dict[str, Any]) -> tuple[list[int], Kind]:
        """The tokens of a prompt, and what it is.

        A text that begins as the template does, alone or as the one message of a conversation, goes in as it stands:
        neither is the template put around it again, nor a begin token before its own.

        Args:
            row: with ``text``, or ``messages`` and perhaps ``tools``.

        Raises:
            UserError: a conversation for a tokenizer without a template, or one that the template refuses.
        """
        messages: list[Message] = row.get("messages", [])
        text: str = messages[0]["content"] if len(messages) == 1 else row.get("text", "")
        if "text" in row or self._rendered(text):
            rendered = self._rendered(text)
            begins = self.processor.bos_token is not None and text.startswith(self.processor.bos_token)
            found = self.processor(text, add_special_tokens=not (rendered or begins), verbose=False)["input_ids"]
            return list(found), "rendered" if rendered else "text"
        if not self.processor.chat_template:
            raise UserError(
                "messages: this model's tokenizer has no chat template; give task=chat, which has some, or a text"
            )
        return prompt(messages, self.processor, row.get("tools")), "conversation"

    def _rendered(self, text: str) -> bool:
        bare = text.lstrip()
        if self.processor.bos_token is not None:
            bare = bare.removeprefix(self.processor.bos_token).lstrip()
        return any(bare.startswith(each) for each in self._beginnings)


def _beginnings(processor: Any) -> set[str]:
    """What a template puts before a system message and before a user's, and its control tokens."""
    marker = "\u2402\u2403"
    user: Message = {"role": "user", "content": marker}
    found = set()
    for messages in ([user], [{"role": "system", "content": marker}, user]):
        try:
            text, _ = render(messages, processor)
        except UserError:  # Some templates take no system message.
            continue
        text = text.lstrip().removeprefix(processor.bos_token or "").lstrip()
        found |= {text.partition(marker)[0].rstrip(), *CONTROL.findall(text)}
    return found - {"", processor.eos_token, processor.bos_token}
