"""Conversations as tokens: the one way that training, evaluation and chatting go.

Which tokens the assistant says comes from the template's ``{% generation %}`` marks. A template without marks is
rendered again up to each of the assistant's turns, and what the turn adds is what it says (prefix difference).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from xp.error import UserError
from xp.task.messages import Message
from xp.task.template import marked

if TYPE_CHECKING:
    from transformers import BatchEncoding

Span = tuple[int, int]
"""Start and end of what one turn of the assistant says, in characters or in tokens."""

Tools = list[Any] | None


@dataclass(frozen=True)
class Conversation:
    """A conversation as the model sees it."""

    text: str = ""
    tokens: list[int] = field(default_factory=list)
    trained: list[bool] = field(default_factory=list)
    """For each token, whether the assistant says it."""

    notes: frozenset[str] = frozenset()
    """What is odd about it; see `xp.task.chat.WARNINGS`."""

    fault: str = ""
    """Why it cannot be trained on; empty if it can."""


def encode(messages: list[Message], processor: Any, tools: Tools = None, *, train_end: bool = True) -> Conversation:
    """One conversation as the model sees it.

    Args:
        messages: OpenAI's, see `xp.task.messages.messages`.
        processor: a tokenizer with a template.
        tools: functions that the conversation may call, as JSON schemas.
        train_end: whether the token that ends a turn counts as said where the template's marks leave it out.

    Raises:
        UserError: the template refuses it, or its turns cannot be told apart.
    """
    (made,) = encode_all([(messages, tools)], processor, train_end=train_end)
    if made.fault:
        raise UserError(made.fault)
    return made


def prompt(messages: list[Message], processor: Any, tools: Tools = None) -> list[int]:
    """The tokens that the assistant's next turn goes on from.

    Raises:
        UserError: the template refuses the conversation.
    """
    text = _render(messages, processor, tools, prompt=True)[0]
    tokens: list[int] = processor(text, add_special_tokens=False, verbose=False)["input_ids"]
    return tokens


def stops(processor: Any) -> list[int]:
    """The tokens at which a turn of the assistant ends: the template's, and the tokenizer's own end token."""
    found = [processor.convert_tokens_to_ids(token) for token in _ends(processor)]
    return list(dict.fromkeys([*found, *([processor.eos_token_id] if processor.eos_token_id is not None else [])]))


def encode_all(
    conversations: Sequence[tuple[list[Message], Tools]],
    processor: Any,
    *,
    train_end: bool,
    by: Literal["marks", "difference"] | None = None,
) -> list[Conversation]:
    """Several conversations, as `encode` does one, but with the reason in ``fault`` where it cannot.

    Args:
        conversations: messages and tools of each.
        processor: a tokenizer with a template.
        train_end: as in `encode`.
        by: how to find what the assistant says; None takes the template's marks where it has some.
    """
    ends = _ends(processor)
    texts: list[str] = []
    spans: list[list[Span]] = []
    notes: list[set[str]] = []
    faults: list[str] = []
    for messages, tools in conversations:
        odd: set[str] = set()
        text, found, fault = "", list[Span](), ""
        try:
            marks = by == "marks" or (by is None and marked(processor, tools))
            text, found = _render(messages, processor, tools, marks=marks)
            if not marks:
                found = _differences(messages, processor, tools, text, ends, odd)
            odd |= _lost(messages, tools, text, "".join(text[start:end] for start, end in found))
            odd |= {"control"} * any(token in (each.get("content") or "") for each in messages for token in specials(processor))
            if not found:
                fault = "the template marks nothing of it as said by the assistant"
        except UserError as error:
            fault = str(error)
        texts.append(text)
        spans.append(found)
        notes.append(odd)
        faults.append(fault)
    tokens = _TokenSpans(texts, processor, exact=by != "marks" and not marked(processor))
    begins = processor.bos_token_id is not None and processor("")["input_ids"][:1] == [processor.bos_token_id]
    return [
        tokens.conversation(row, spans[row], notes[row], faults[row], ends, begins, train_end)
        for row in range(len(texts))
    ]
