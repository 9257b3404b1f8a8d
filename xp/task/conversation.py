"""Conversations as tokens: the one way that training, evaluation and chatting go.

Which tokens the assistant says comes from the template's ``{% generation %}`` marks. A template without marks is
rendered again up to each of the assistant's turns, and what the turn adds is what it says (prefix difference).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from xp.error import UserError
from xp.task.messages import Message
from xp.task.rendering import Span, Tools, differences, ends, lost, render, specials
from xp.task.template import marked


@dataclass
class Conversation:
    """A conversation as the model sees it."""

    text: str = ""
    tokens: list[int] = field(default_factory=list)
    trained: list[bool] = field(default_factory=list)
    """For each token, whether the assistant says it."""

    notes: set[str] = field(default_factory=set)
    """What is odd about it; `xp.task.chat.WARNINGS` says what each word means."""

    fault: str = ""
    """Why it cannot be trained on; empty if it can."""

    spans: list[Span] = field(default_factory=list)
    """What the assistant says, in characters of the text."""

    proven: bool = False
    """Whether the tokens before each span are to be those that its beginning has by itself."""


def encode(messages: list[Message], processor: Any, tools: Tools = None, *, train_end: bool = True) -> Conversation:
    """One conversation as the model sees it.

    Args:
        messages: OpenAI's, see `xp.task.messages.conversation`.
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
    text, _ = render(messages, processor, tools, prompt=True)
    tokens: list[int] = processor(text, add_special_tokens=False, verbose=False)["input_ids"]
    return tokens


def stops(processor: Any) -> list[int]:
    """The tokens at which a turn of the assistant ends: the template's, and the tokenizer's own end token."""
    found = [processor.convert_tokens_to_ids(token) for token in ends(processor)]
    own = [] if processor.eos_token_id is None else [processor.eos_token_id]
    return list(dict.fromkeys([*found, *own]))


def end_there(processor: Any, network: Any) -> None:
    """Let a network's generation end where a turn of the assistant does, beside where it ends anyway."""
    generation = getattr(network, "generation_config", None)
    if generation is not None:
        own = generation.eos_token_id
        known = own if isinstance(own, list) else [] if own is None else [own]
        every = list(dict.fromkeys([*stops(processor), *known]))
        generation.eos_token_id = every[0] if len(every) == 1 else every


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
    special, last = specials(processor), ends(processor)
    control = re.compile("|".join(map(re.escape, special.values())) or "(?!)")
    made = [_rendered(*each, processor, last, control, by) for each in conversations]
    encoding = processor([each.text for each in made], add_special_tokens=False, verbose=False)
    for each, tokens in zip(made, encoding["input_ids"], strict=True):
        each.tokens, each.trained = list(tokens), [False] * len(tokens)
    # A boundary is proven where the tokens of the text before it are those that the whole begins with.
    exact = [(row, at) for row, each in enumerate(made) if each.proven for span in each.spans for at in span]
    begun = (
        processor([made[row].text[:at] for row, at in exact], add_special_tokens=False, verbose=False) if exact else {}
    )
    beginnings = dict(zip(exact, begun.get("input_ids", []), strict=True))
    closing = [processor.convert_tokens_to_ids(token) for token in last]
    begin = processor.bos_token_id
    begins = begin is not None and processor("")["input_ids"][:1] == [begin]
    for row, each in enumerate(made):
        if each.fault:
            continue
        for span in each.spans:
            bounds = [beginnings.get((row, at)) for at in span]
            if all(tokens is not None and each.tokens[: len(tokens)] == tokens for tokens in bounds):
                first, after = (len(tokens) for tokens in bounds if tokens is not None)
            else:
                first, after = _offsets(encoding, row, span) if processor.is_fast else (0, 0)
            if first == after:
                each.fault = "the tokens of what the assistant says cannot be told from the others"
                break
            each.trained[first:after] = [True] * (after - first)
            if each.tokens[after - 1] in special:
                continue
            if train_end and each.tokens[after : after + 1] and each.tokens[after] in closing:
                each.trained[after] = True
                each.notes.add("extended")
            else:
                each.notes.add("unended")
        if begin is not None and each.tokens[:2] == [begin, begin]:
            each.fault = f"begins with {processor.bos_token} twice: take it out of the template or the text"
        elif begins and each.tokens[:1] != [begin]:
            each.notes.add("beginless")
    return made


def _rendered(
    messages: list[Message],
    tools: Tools,
    processor: Any,
    last: list[str],
    control: re.Pattern[str],
    by: Literal["marks", "difference"] | None,
) -> Conversation:
    """The text of a conversation, and its spans in characters."""
    made = Conversation()
    try:
        marks = by == "marks" or (by is None and marked(processor, tools))
        made.text, made.spans = render(messages, processor, tools, marks=marks)
        made.proven = not marks or not processor.is_fast
        if not marks:
            made.spans = differences(messages, processor, tools, made.text, last, made.notes)
        if not made.spans:
            raise UserError("the template marks nothing of it as said by the assistant")
    except UserError as error:
        return Conversation(fault=str(error))
    made.notes.update(lost(messages, tools, made.text, "".join(made.text[start:end] for start, end in made.spans)))
    if any(control.search(message["content"]) for message in messages):
        made.notes.add("control")
    return made


def _offsets(encoding: Any, row: int, span: Span) -> Span:
    """First token of a span of characters and the one after its last; a token across a boundary counts as inside."""
    start, end = span
    inside = (encoding.char_to_token(row, at) for at in range(start, end))
    first = next((token for token in inside if token is not None), None)
    outside = (encoding.char_to_token(row, at) for at in range(end - 1, start - 1, -1))
    last = next((token for token in outside if token is not None), None)
    return (0, 0) if first is None or last is None else (first, last + 1)
