"""Windows: where answers are in a context, and the pieces that a long context is cut into."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from dataclasses import dataclass
from typing import Any

from xp.error import UserError


@dataclass(frozen=True)
class Layout:
    """How a question and a piece of its context make one sequence: ``before question between context after``."""

    before: list[int]
    between: list[int]
    after: list[int]

    no_answer: int
    """Place of the token that stands for "no answer here"; below 0 it is counted from the end."""

    types: tuple[int, int, int, int, int] | None
    """``token_type_ids`` of the five parts; None for a model that tells question and context apart by position."""

    @property
    def size(self) -> int:
        """Tokens beside those of the question and the context."""
        return len(self.before) + len(self.between) + len(self.after)

    def joined(self, question: list[int], context: list[int]) -> list[int]:
        """One sequence of both."""
        return [*self.before, *question, *self.between, *context, *self.after]

    def type_ids(self, question: int, context: int) -> list[int]:
        """``token_type_ids`` of a sequence with this many tokens of question and context."""
        assert self.types is not None
        sizes = (len(self.before), question, len(self.between), context, len(self.after))
        return [kind for kind, size in zip(self.types, sizes, strict=True) for _ in range(size)]


@dataclass(frozen=True)
class Cut:
    """How contexts are cut into windows, in tokens."""

    max_length: int
    """Longest window."""

    max_question_tokens: int
    """Longest question; a longer one loses its end."""

    stride: int
    """What two neighbouring windows share."""


def layout(processor: Any) -> Layout:
    """The layout that a tokenizer has for pairs, if it gives "no answer" a token that has seen the context.

    That is its classification token (``[CLS]``, ``<s>`` of encoders), as in SQuAD 2.0, or else the end token after
    the context. The tokenizer of a decoder often adds neither: then the question and the context each get its end
    token, and the last one, which alone sees all of the context, stands for "no answer".

    Raises:
        UserError: a tokenizer that cannot say where in the text its tokens are, or has no end token.
    """
    if not getattr(processor, "is_fast", False):
        raise UserError(
            "task=question_answering: this model's tokenizer cannot say where in the text its tokens are, as the "
            "tokenizers of Hugging Face's Rust library can; choose a model that has a tokenizer.json"
        )
    pair = processor("a", "b")
    sides, tokens = pair.sequence_ids(0), pair["input_ids"]
    question, context = sides.index(0), sides.index(1)
    ends = len(sides) - sides[::-1].index(0), len(sides) - sides[::-1].index(1)
    before, between, after = tokens[:question], tokens[ends[0] : context], tokens[ends[1] :]
    mark = processor.cls_token_id
    if mark in before or after:
        types = pair.get("token_type_ids") or [0]
        where = [*after, *before].index(mark) if mark is not None and mark in (*after, *before) else len(after) - 1
        return Layout(
            before,
            between,
            after,
            no_answer=where - len(after),
            types=(0, types[question], types[ends[0]], types[context], types[-1]) if any(types) else None,
        )
    last = processor.sep_token_id if processor.sep_token_id is not None else processor.eos_token_id
    if last is None:
        raise UserError("task=question_answering: this model's tokenizer has no end token; choose another model")
    first = [] if processor.bos_token_id is None else [processor.bos_token_id]
    return Layout(first, [last], [last], no_answer=-1, types=None)


def golds(row: dict[str, Any]) -> list[tuple[str, int]]:
    """The right answers to a question, each with its first character in the context; none for one without.

    Args:
        row: with ``context`` and either ``answers`` (``{text: [...], answer_start: [...]}`` or a list of such pairs)
            or ``answer``, a text that is in the context just once.

    Raises:
        ValueError: an answer is not where the row says; the message begins with the column.
    """
    context = row["context"]
    if "answers" not in row:
        answer = row["answer"]
        if answer is None or answer == "":
            return []
        if not isinstance(answer, str) or not answer.strip():
            raise ValueError(f"answer: is {answer!r}, not text; leave it empty where there is none")
        if (times := context.count(answer)) != 1:
            hint = f"is in the context {times} times; say which by answers={{text: [...], answer_start: [...]}}"
            raise ValueError(f"answer: {_short(answer)} {hint if times else 'is not in the context'}")
        return [(answer, context.index(answer))]
    given = row["answers"]
    if isinstance(given, list) and all(isinstance(each, dict) for each in given):
        given = {name: [each.get(name) for each in given] for name in ("text", "answer_start")}
    texts, starts = (given.get(name) if isinstance(given, dict) else None for name in ("text", "answer_start"))
    if not isinstance(texts, list) or not isinstance(starts, list) or len(texts) != len(starts):
        raise ValueError("answers: needs {text: [...], answer_start: [...]}, as many of each; none for no answer")
    for text, start in zip(texts, starts, strict=True):
        if not isinstance(text, str) or not text.strip() or not isinstance(start, int):
            raise ValueError(f"answers: {text!r} at {start!r} is not a text and the number of its first character")
        if start < 0 or context[start : start + len(text)] != text:
            where = f"; it is at {context.index(text)}" if text in context else " nor anywhere in it"
            raise ValueError(f"answers: {_short(text)} is not in the context at character {start}{where}")
    return list(zip(texts, starts, strict=True))


def _short(text: str) -> str:
    return repr(text if len(text) <= 60 else text[:57] + "...")


def covered(offsets: list[tuple[int, int]], start: int, end: int) -> tuple[int, int] | None:
    """First and last of the tokens that hold the characters from ``start`` to before ``end``; None where none does.

    Args:
        offsets: first and one past the last character of each token, in order.
    """
    first = bisect_right(offsets, start, key=lambda place: place[1])
    last = bisect_left(offsets, end, key=lambda place: place[0]) - 1
    return (first, last) if first <= last else None


def pieces(tokens: int, room: int, stride: int) -> list[tuple[int, int]]:
    """First and one past the last token of each window over a context of ``tokens``, at most ``room`` in each.

    Neighbours share ``stride`` tokens; there is always one window, even over nothing.
    """
    return [(start, min(start + room, tokens)) for start in range(0, max(1, tokens - stride), room - stride)]


def windows(batch: dict[str, list[Any]], processor: Any, form: Layout, cut: Cut) -> dict[str, list[Any]]:
    """The columns of all windows of a batch of rows: a question beside each piece of its context.

    ``input_ids``, ``length``, ``items`` (1), ``token_type_ids`` where the layout has them; ``first`` (place of the
    first token of context), ``starts`` and ``ends`` (characters of each token of context in the ``passage``, which
    begins at the context's character ``offset``); ``none``, ``start``, ``end`` (places of "no answer" and of the answer
    in this window, which is "no answer" where it does not hold one wholly); ``example``, ``id``, ``question``,
    ``answers`` of the row, and whether its question was ``cut``.
    """
    made: list[dict[str, Any]] = []
    plain = {"add_special_tokens": False, "verbose": False}
    questions = processor(batch["question"], **plain)["input_ids"]
    contexts = processor(batch["context"], return_offsets_mapping=True, **plain)
    for at, whole in enumerate(questions):
        row = {name: batch[name][at] for name in batch}
        question = whole[: cut.max_question_tokens]
        tokens, offsets = contexts["input_ids"][at], contexts["offset_mapping"][at]
        gold = golds(row)
        spans = [covered(offsets, start, start + len(text)) for text, start in gold]
        room = cut.max_length - form.size - len(question)
        for begin, end in pieces(len(tokens), room, cut.stride):
            inside = [span for span in spans if span and begin <= span[0] and span[1] < end]
            sequence = form.joined(question, tokens[begin:end])
            first = len(form.before) + len(question) + len(form.between)
            none = form.no_answer % len(sequence)
            start, stop = (first + place - begin for place in inside[0]) if inside else (none, none)
            shift = offsets[begin][0] if end > begin else 0
            window = {
                "input_ids": sequence,
                "first": first,
                "starts": [place[0] - shift for place in offsets[begin:end]],
                "ends": [place[1] - shift for place in offsets[begin:end]],
                "none": none,
                "start": start,
                "end": stop,
                "passage": row["context"][shift : offsets[end - 1][1]] if end > begin else "",
                "offset": shift,
                "example": row["example"],
                "id": str(row.get("id", row["example"])),
                "question": row["question"],
                "answers": [text for text, _ in gold],
                "length": len(sequence),
                "items": 1,
                "cut": len(whole) > len(question),
            }
            if form.types is not None:
                window["token_type_ids"] = form.type_ids(len(question), end - begin)
            made.append(window)
    return {name: [window[name] for window in made] for name in made[0]}
