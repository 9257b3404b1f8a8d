"""Padding: settings under which it would count as a part of the prompt that it is put before."""

from __future__ import annotations

from xp.generation.base import Generation


def counts(generation: Generation) -> bool:
    """Whether transformers looks at padding as it writes, so that prompts share a batch with those of their size alone.

    Its processors of scores get no attention mask: the padding token, which often is the end token too, would be one
    of the input, a run of one token, or a part of what decides a watermark.
    """
    mark = generation.watermarking_config
    return (
        generation.encoder_repetition_penalty != 1
        or 1 in (generation.no_repeat_ngram_size, generation.encoder_no_repeat_ngram_size)
        or (mark is not None and mark.context_width > 1)
    )
