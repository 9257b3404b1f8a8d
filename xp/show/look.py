"""What there is to see of a split: some of its rows, and the lengths of all."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

from xp.error import UserError
from xp.task import Encoded, Trainable
from xp.task.base import IGNORE

if TYPE_CHECKING:
    from datasets import Dataset

LIMIT = 1 << 30
"""A length that no row has."""

Kind = Literal["seen", "trained", "cut"]


@dataclass(frozen=True)
class Token:
    """One token of a row."""

    text: str
    kind: Kind = "seen"
    """seen: the model reads it; trained: it learns to say it, too; cut: it never sees it."""

    special: bool = False
    blank: bool = False
    """Whether this is no token at all but the space between an input and its answer."""

    note: str = ""
    """What is to be predicted here, where that is not the token itself: a tag, or the token behind a mask."""


@dataclass(frozen=True)
class Example:
    """A row as the model sees it."""

    row: int
    tokens: list[Token]
    facts: list[str]
    """What else there is to say of it, for example its label."""


@dataclass(frozen=True)
class Shown:
    """What there is to see of a split."""

    encoded: Encoded
    lengths: list[int]
    """Tokens of each row before anything is cut; empty where rows are not tokens."""

    examples: list[Example]
    refused: str = ""
    """Why training would refuse the split; empty where it would not."""


def look(task: Trainable, rows: Dataset, processor: Any, labels: list[str], examples: int) -> Shown:
    """What there is to see of a split: rows as the model sees them, and the lengths they have.

    Args:
        task: as it would be trained.
        rows: of the split, with the task's columns.
        processor: of the task's class.
        labels: names of the classes.
        examples: how many rows to look at; one that is too long is among them if there is one.
    """
    uncut = _uncut(task)
    whole = uncut.encode(rows, processor, labels)
    lengths = list(whole.rows["length"]) if "input_ids" in whole.rows.column_names else []
    refused = ""
    try:
        encoded = task.encode(rows, processor, labels)
    except UserError as error:
        encoded, refused = whole, str(error)
    chosen = _chosen(len(rows), examples, lengths if len(lengths) == len(rows) else [], task.longest)
    return Shown(encoded, lengths, [_example(task, uncut, rows, at, processor, labels) for at in chosen], refused)


def _uncut(task: Trainable) -> Trainable:
    """The task with no bound to the length of its rows."""
    lifted: dict[str, Any] = {name: LIMIT for name, value in task if name.startswith("max_") and isinstance(value, int)}
    return task.model_copy(update=lifted)


def _chosen(number: int, examples: int, lengths: list[int], longest: int | None) -> list[int]:
    """Rows from all over the split, and one that is too long."""
    chosen = [at * number // min(examples, number) for at in range(min(examples, number))]
    over = [row for row, length in enumerate(lengths) if longest is not None and length > longest]
    if chosen and over and not set(chosen) & set(over):
        chosen[-1] = over[0]
    return sorted(set(chosen))


def _example(task: Trainable, uncut: Trainable, rows: Dataset, at: int, processor: Any, labels: list[str]) -> Example:
    row = rows.select([at])
    facts: list[str] = []
    encoded = uncut.encode(row, processor, labels)
    whole = encoded.rows
    try:
        kept = task.encode(row, processor, labels).rows
    except UserError:  # What a whole split is refused for is told with the split.
        kept = whole.select([])
    if not len(kept):
        facts.append("left out" + "".join(f": {reason}" for _, reason in encoded.faults))
        return (
            Example(at, _without(whole[0].get("input_ids", []), processor), facts)
            if len(whole)
            else Example(at, [], facts)
        )
    if len(kept) > 1:
        facts.append(f"split into {len(kept)} sequences, this is the first")
    tokens, more = _seen(task, kept[0], at, processor, labels)
    if len(kept) == 1 and tokens and len(whole):
        tokens = _with_cut(tokens, kept[0]["input_ids"], whole[0]["input_ids"], processor)
    return Example(at, tokens, facts + more)


def _without(tokens: list[int], processor: Any) -> list[Token]:
    return [replace(token, kind="cut") for token in pieces(tokens, processor)]


def _seen(
    task: Trainable, row: dict[str, Any], at: int, processor: Any, labels: list[str]
) -> tuple[list[Token], list[str]]:
    """The tokens of an encoded row as its batch has them, and what is no token of them."""
    import numpy as np

    batch = task.collate([[task.draw(row, np.random.default_rng([at]), processor)]], processor)
    facts = [f"{name} {tuple(value.shape)}" for name, value in batch.items() if "input_ids" not in batch]
    if "input_ids" not in batch:
        return [], facts + _label(row, labels)
    if batch["input_ids"].ndim == 3:  # Choices, of which one is right.
        return list(_choices(row, processor)), facts + _label(row, labels)
    tokens = pieces(batch["input_ids"][0].tolist(), processor)
    if {"start", "end"} <= set(batch):  # An answer is from one token to another, or there is none.
        start, end = int(batch["start"][0]), int(batch["end"][0])
        return [
            replace(each, kind="trained") if start <= place <= end else each for place, each in enumerate(tokens)
        ], facts
    target = batch.get("labels")
    whole = target is not None and target.ndim == 2 and not target.is_floating_point()
    wanted = target[0].tolist() if target is not None and whole else []
    if wanted and "Seq2Seq" in task.auto_class:
        answer = pieces([token for token in wanted if token != IGNORE], processor)
        return [*tokens, Token("\n", blank=True), *(replace(each, kind="trained") for each in answer)], facts
    if len(wanted) != len(tokens):
        return tokens, facts + _label(row, labels)
    return _targets(tokens, batch["input_ids"][0].tolist(), wanted, labels, processor), facts


def _targets(
    tokens: list[Token], given: list[int], wanted: list[int], labels: list[str], processor: Any
) -> list[Token]:
    """The tokens with what is to be predicted at each of them: a label, the token itself, or the one behind a mask."""
    made = []
    for each, token, target in zip(tokens, given, wanted, strict=True):
        if target == IGNORE:
            made.append(each)
            continue
        other = labels[target] if labels else "" if target == token else pieces([target], processor)[0].text
        made.append(replace(each, kind="trained", note=other))
    return made


def _choices(row: dict[str, Any], processor: Any) -> Iterator[Token]:
    """The tokens of each choice on a line of their own; the right one's are marked."""
    for number, choice in enumerate(row["input_ids"]):
        if number:
            yield Token("\n", blank=True)
        kind: Kind = "trained" if number == row["label"] else "seen"
        yield from (replace(each, kind=kind) for each in pieces(choice, processor))


def _label(row: dict[str, Any], labels: list[str]) -> list[str]:
    value = row.get("label")
    if value is None:
        return []
    if isinstance(value, list):  # One number for each of several labels.
        chosen = [name for name, there in zip(labels, value, strict=False) if there]
        return [f"labels: {', '.join(chosen) or 'none'}"]
    return [f"label: {labels[value] if labels and isinstance(value, int) else value}"]


def _with_cut(tokens: list[Token], kept: list[int], whole: list[int], processor: Any) -> list[Token]:
    """The tokens with those that were cut put back in their place, marked so."""
    if len(tokens) != len(kept) or len(kept) >= len(whole):
        return tokens
    start = next((at for at, (one, other) in enumerate(zip(kept, whole, strict=False)) if one != other), len(kept))
    end = len(kept) - start
    if end and kept[start:] != whole[-end:]:  # Not cut in one place; what is gone is at the end.
        start, end = len(kept), 0
    return [*tokens[:start], *_without(whole[start : len(whole) - end], processor), *tokens[start:]]


def pieces(tokens: list[int], processor: Any) -> list[Token]:
    """Each token's own text; where it is no whole character, the vocabulary's name for it."""
    names = processor.convert_ids_to_tokens(tokens)
    special = set(processor.all_special_ids)
    special |= {number for number, added in processor.added_tokens_decoder.items() if added.special}
    made = []
    for number, name in zip(tokens, names, strict=True):
        text = processor.decode([number], skip_special_tokens=False, clean_up_tokenization_spaces=False)
        if name.startswith("▁") and not text.startswith(" "):  # SentencePiece's space, which decoding takes away.
            text = f" {text}"
        made.append(Token(name if "\ufffd" in text or not text else text, special=number in special))
    return made
