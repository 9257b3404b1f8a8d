"""Texts, pairs of texts and sentences of words as tokens."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from itertools import accumulate
from typing import Any

from xp.error import UserError


def encode_texts(
    processor: Any, texts: Sequence[str], pairs: Sequence[str] | None, max_length: int
) -> tuple[dict[str, list[list[int]]], list[bool]]:
    """``input_ids`` and ``token_type_ids`` of texts, or of each with its pair, cut to ``max_length``.

    Args:
        processor: a tokenizer; its ``truncation_side`` says where texts are cut.
        texts: the first, or only, text of each row.
        pairs: the second texts.
        max_length: tokens with the special ones; of a pair, the longer text is cut first.

    Returns:
        The columns, and which rows were too long.

    Raises:
        UserError: ``max_length`` has no room for a token beside the special ones.
    """
    both = (list(texts),) if pairs is None else (list(texts), list(pairs))
    whole = processor(*both, truncation=False, verbose=False)
    over = [len(tokens) > max_length for tokens in whole["input_ids"]]
    room = max_length - processor.num_special_tokens_to_add(pair=pairs is not None)
    if any(over) and room < len(both):
        raise UserError(
            f"task.max_length={max_length}: with {max_length - room} special tokens no token of the text is left; "
            "raise it"
        )
    cut = processor(*both, truncation="longest_first", max_length=max_length) if any(over) else whole
    names = [name for name in ("input_ids", "token_type_ids") if name in whole]
    made = {name: [cut[name][row] if long else whole[name][row] for row, long in enumerate(over)] for name in names}
    # An empty text without special tokens would be no sequence at all: it is its end alone.
    end = [processor.eos_token_id if processor.eos_token_id is not None else processor.pad_token_id]
    made["input_ids"] = [tokens or end for tokens in made["input_ids"]]
    return made, over


def settle_pair(processor: Any) -> None:
    """Give a tokenizer that runs pairs together a template: the single text's, with a separator in the middle.

    The separator is the tokenizer's separator token, else its end token; without either, nothing is done. Single
    texts are encoded as before. The template is saved with the tokenizer: whoever loads the model encodes a pair as it
    was trained.
    """
    separator = processor.sep_token or processor.eos_token
    if separator is None or not processor.is_fast or not _run_together(processor):
        return
    from tokenizers.processors import TemplateProcessing

    first, last = (processor.convert_ids_to_tokens(ids) for ids in frame(processor))
    middle = last or [separator]
    processor.backend_tokenizer.post_processor = TemplateProcessing(
        single=[*first, "$A", *last],
        pair=[*first, "$A", *middle, "$B:1", *last],
        special_tokens=[(token, processor.convert_tokens_to_ids(token)) for token in {*first, *middle, *last}],
    )


def check_pair(processor: Any) -> None:
    """Refuse a tokenizer that runs pairs together.

    Raises:
        UserError: it puts nothing between two texts, and `settle_pair` found nothing to put there.
    """
    if _run_together(processor):
        raise UserError(
            "data.columns.text_pair: this model's tokenizer puts nothing between the texts of a pair, and has no "
            "separator or end token for it; choose another model, or join the texts in one column"
        )


def _run_together(processor: Any) -> bool:
    """Whether nothing stands between the texts of a pair."""
    pair = processor("a", "a")["input_ids"]
    plain = processor("a", "a", add_special_tokens=False)["input_ids"]
    return any(pair[at : at + len(plain)] == plain for at in range(len(pair) - len(plain) + 1))


def frame(processor: Any) -> tuple[list[int], list[int]]:
    """The special tokens that a tokenizer puts before and after a text."""
    whole, inner = processor("a")["input_ids"], processor("a", add_special_tokens=False)["input_ids"]
    at = next(at for at in range(len(whole)) if whole[at : at + len(inner)] == inner)
    return whole[:at], whole[at + len(inner) :]


def encode_words(processor: Any, sentences: Sequence[Sequence[str]]) -> list[tuple[list[int], list[int]]]:
    """Tokens of sentences, without special ones, and the number of the word that each token is of.

    The words are put together with a space in between and encoded as one text, as the model knows text from its
    pre-training, whether or not its tokenizer takes the space for part of the word after it; a token is of the word
    that its first character is of. A token that is nothing but space is of none (-1). A word that the tokenizer makes
    nothing of is its unknown token, if it has one. Tokenizers without offsets encode each word by itself.
    """
    if not processor.is_fast:
        return [_by_word(processor, words) for words in sentences]
    texts = [" ".join(words) for words in sentences]
    encoded = processor(texts, add_special_tokens=False, return_offsets_mapping=True, verbose=False)
    made = []
    for text, words, ids, offsets in zip(
        texts, sentences, encoded["input_ids"], encoded["offset_mapping"], strict=True
    ):
        starts = [0, *accumulate(len(word) + 1 for word in words)][:-1]
        tokens, owners = list(ids), []
        for start, end in offsets:
            inside = text[start:end]
            at = start + len(inside) - len(inside.lstrip())
            owners.append(bisect_right(starts, at) - 1 if inside.strip() else -1)
        if processor.unk_token_id is not None:
            for number in sorted({*range(len(words))} - {*owners}):
                place = next((at for at, owner in enumerate(owners) if owner > number), len(owners))
                tokens.insert(place, processor.unk_token_id)
                owners.insert(place, number)
        made.append((tokens, owners))
    return made


def _by_word(processor: Any, words: Sequence[str]) -> tuple[list[int], list[int]]:
    parts = [processor(word, add_special_tokens=False)["input_ids"] for word in words]
    return [token for part in parts for token in part], [at for at, part in enumerate(parts) for _ in part]


def word_windows(owners: Sequence[int], words: int, room: int) -> Iterator[tuple[int, int, int, int]]:
    """Parts of a sentence that fit: first token and last, first word and last (ends exclusive), cut between words.

    Args:
        owners: the word of each token, -1 for none.
        words: how many there are; those without a token are in the part where they would be.
        room: the most tokens of a part; of a word that is longer, the first ones are taken.
    """
    starts = [at for at, owner in enumerate(owners) if owner >= 0 and (at == 0 or owners[at - 1] != owner)]
    edges = [*starts[1:], len(owners)]
    begin, word = 0, 0
    for number, edge in enumerate(edges):
        if edge - begin > room and number and starts[number] > begin:
            yield begin, min(starts[number], begin + room), word, owners[starts[number]]
            begin, word = starts[number], owners[starts[number]]
    yield begin, min(len(owners), begin + room), word, words
