"""Rendering: a conversation's text, and which of its characters the assistant says."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from xp.error import UserError
from xp.task.messages import Message

Span = tuple[int, int]
"""Start and end of something, in characters or in tokens."""

Tools = list[Any] | None
"""Functions that a conversation may call, as JSON schemas."""


BOUNDS = (ArithmeticError, RecursionError, MemoryError, SyntaxError)
"""What a template runs into that asks for too much; Jinja's sandbox lets no range be longer than 100,000."""


def render(
    messages: list[Message], processor: Any, tools: Tools = None, *, prompt: bool = False, marks: bool = False
) -> tuple[str, list[Span]]:
    """A conversation's text, and the spans of it that the template marks as the assistant's.

    Args:
        messages: OpenAI's.
        processor: a tokenizer with a template.
        tools: functions that may be called.
        prompt: whether to end with what the assistant's next turn goes on from.
        marks: whether the spans are wanted; else there are none.

    Raises:
        UserError: the template refuses the conversation; says why in the template's words.
    """
    from jinja2 import TemplateError
    from transformers.utils.chat_template_utils import render_jinja_template

    try:
        texts, spans = render_jinja_template(
            conversations=[messages],
            tools=tools,
            chat_template=processor.get_chat_template(tools=tools),
            return_assistant_tokens_mask=marks,
            add_generation_prompt=prompt,
            **processor.special_tokens_map,
        )
    except (TemplateError, TypeError, ValueError, LookupError, AttributeError, *BOUNDS) as error:
        raise UserError(f"the template says: {' '.join(str(error).split()) or type(error).__name__}") from error
    return texts[0], [(start, end) for start, end in spans[0] if start < end] if marks else []


def specials(processor: Any) -> dict[int, str]:
    """The tokens that are not text, by their ids."""
    added = processor.added_tokens_decoder.items()
    tokens = {number: str(token) for number, token in added if token.special}
    return tokens | dict(zip(processor.all_special_ids, processor.all_special_tokens, strict=True))


def ends(processor: Any) -> list[str]:
    """The special token that the template writes after an answer; nothing where it writes none."""
    question, answer = "What is it?", "Nothing."
    try:
        text, _ = render([{"role": "user", "content": question}, {"role": "assistant", "content": answer}], processor)
    except UserError:
        text = ""
    if answer not in text:  # It takes no such conversation, or changes what is said.
        return [] if processor.eos_token is None else [processor.eos_token]
    after = text.rpartition(answer)[2].lstrip()
    return [token for token in sorted(specials(processor).values(), key=len, reverse=True) if after.startswith(token)][
        :1
    ]


def differences(
    messages: list[Message], processor: Any, tools: Tools, text: str, last: list[str], notes: set[str]
) -> list[Span]:
    """The spans of ``text`` that each of the assistant's turns adds: from what it goes on from, through its end token.

    Where the text up to a turn is not how the whole begins (some templates rewrite earlier turns), the turn's own
    words are looked for instead.

    Args:
        messages: the conversation.
        processor: a tokenizer with a template.
        tools: functions that may be called.
        text: the whole conversation, rendered.
        last: tokens that end a turn, see `ends`.
        notes: gets ``prompt`` where the template's generation prompt is not what a turn goes on from.

    Raises:
        UserError: a turn cannot be found either way.
    """
    closing = re.compile(rf"\s*(?:{'|'.join(map(re.escape, last)) or '(?!)'})")
    spans: list[Span] = []
    at = 0
    for number, turn in enumerate(messages):
        if turn["role"] != "assistant":
            continue
        before, _ = render(messages[:number], processor, tools, prompt=True)
        whole = text if number + 1 == len(messages) else render(messages[: number + 1], processor, tools)[0]
        starts, reaches = text.startswith(before) and len(before) >= at, text.startswith(whole)
        said = turn["content"].strip()
        found = text.find(said, len(before) if starts else at) if said else -1
        if reaches and found >= len(whole):
            found = -1  # These words are another turn's; the template has changed this one's.
        if (not starts and found < 0) or (not reaches and found < 0):
            raise UserError(
                f"the template renders turn {number + 1} otherwise once the conversation goes on, "
                "so what the assistant says there cannot be told apart"
            )
        if not starts:
            notes.add("prompt")
        start = len(before) if starts else found
        closed = closing.match(text, found + len(said)) if found >= 0 else None
        if closed:
            end = closed.end()
        elif reaches:
            bare = whole.rstrip()
            end = len(bare) if any(bare.endswith(token) for token in last) else len(whole)
        else:
            end = found + len(said)
        spans.append((start, end))
        at = end
    return spans


def lost(messages: list[Message], tools: Tools, text: str, said: str) -> Iterator[str]:
    """The roles whose messages are not in the text as they stand, or ``tools``.

    Args:
        messages: the conversation.
        tools: functions that may be called.
        text: the conversation, rendered.
        said: of it what the assistant says.
    """
    at = 0
    for message in messages:
        content, role = message["content"].strip(), message["role"]
        if role == "assistant":
            found = said.find(content, at)
            called = [call.get("function", call).get("name", "") for call in message.get("tool_calls") or []]
            if found < 0 or not all(name in said for name in called):
                yield role
            else:
                at = found + len(content)
        elif content not in text:
            yield role
    for tool in tools or []:
        if isinstance(tool, dict) and str(tool.get("function", tool).get("name", "")) not in text:
            yield "tools"
