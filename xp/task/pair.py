"""Texts and pairs of texts as tokens."""

from __future__ import annotations

from collections.abc import Sequence
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
    made = {
        name: [cut[name][row] if long else whole[name][row] for row, long in enumerate(over)] for name in names
    }
    # An empty text without special tokens would be no sequence at all: it is its end alone.
    end = [processor.eos_token_id if processor.eos_token_id is not None else processor.pad_token_id]
    made["input_ids"] = [tokens or end for tokens in made["input_ids"]]
    return made, over


def settle_pair(processor: Any) -> None:
    """Give a tokenizer that runs pairs together a template: the single text's, with a separator in the middle.

    The separator is the tokenizer's separator token, else its end token. The template is saved with the tokenizer:
    whoever loads the model encodes a pair as it was trained.

    Raises:
        UserError: the tokenizer has neither token, or takes no template.
    """
    before = processor("a")["input_ids"]
    inner = processor("a", add_special_tokens=False)["input_ids"]
    pair = processor("a", "a")["input_ids"]
    second = processor("a", "a", add_special_tokens=False)["input_ids"]
    starts = [at for at in range(len(pair) - len(second) + 1) if pair[at : at + len(second)] == second]
    if not starts:  # Something stands between the two.
        return
    separator = processor.sep_token or processor.eos_token
    if separator is None or not processor.is_fast:
        raise UserError(
            "data.columns.text_pair: this model's tokenizer puts nothing between the texts of a pair, and has no "
            "separator or end token for it; join them in one column"
        )
    from tokenizers.processors import TemplateProcessing

    tokenizer = processor.backend_tokenizer
    at = next(at for at in range(len(before) - len(inner) + 1) if before[at : at + len(inner)] == inner)
    first, last = (processor.convert_ids_to_tokens(ids) for ids in (before[:at], before[at + len(inner) :]))
    middle = last or [separator]
    tokenizer.post_processor = TemplateProcessing(
        single=[*first, "$A", *last],
        pair=[*first, "$A", *middle, "$B:1", *last],
        special_tokens=[(token, processor.convert_tokens_to_ids(token)) for token in {*first, *middle, *last}],
    )
