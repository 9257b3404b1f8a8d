"""Languages: for tokenizers that know several, which one a text is in and which one an answer is to be in."""

from __future__ import annotations

from typing import Any

from xp.error import UserError, nearest


def settle(processor: Any, source: str | None, target: str | None) -> None:
    """Tell the tokenizer its languages; they are saved with it.

    Raises:
        UserError: the tokenizer has no languages and one is given, or the reverse, or there is no such language.
    """
    given = {"src_lang": source, "tgt_lang": target}
    names = {"src_lang": "source_language", "tgt_lang": "target_language"}
    if not hasattr(processor, "src_lang"):
        for attribute, code in given.items():
            if code is not None:
                raise UserError(
                    f"task.{names[attribute]}={code}: this model's tokenizer knows no languages; set it to null, "
                    "or say the language in task.prefix"
                )
        return
    codes = sorted(getattr(processor, "lang_code_to_id", None) or processor.added_tokens_encoder)
    for attribute, code in given.items():
        if code not in codes:
            hint = nearest(str(code), [each for each in codes if not each.startswith("<")])
            raise UserError(f"task.{names[attribute]}={code}: this model's tokenizer needs one it knows.{hint}")
        setattr(processor, attribute, code)


def first_token(processor: Any, target: str | None) -> int | None:
    """The token that an answer in a language begins with; None for tokenizers without languages."""
    if target is None:
        return None
    if hasattr(processor, "get_lang_id"):
        return int(processor.get_lang_id(target))
    return int(processor.convert_tokens_to_ids(target))
