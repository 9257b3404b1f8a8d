"""Tokenizers: trained on texts, and made ready for batches."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from xp.error import UserError

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedTokenizerBase

SPECIAL_TOKENS = {"pad_token": "<|pad|>", "bos_token": "<|begin|>", "eos_token": "<|end|>"}


MORE_TOKENS = {"mask_token": "<|mask|>"}
"""Special tokens that only some tasks need."""


def train_tokenizer(texts: Iterable[str], vocabulary: int, more: Sequence[str] = ()) -> PreTrainedTokenizerBase:
    """A byte-level BPE (Sennrich et al., 2016, arXiv:1508.07909), for which no text is out of vocabulary.

    Args:
        texts: to train on.
        vocabulary: the most tokens, with the special ones.
        more: which of `MORE_TOKENS` it has too.
    """
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    special = SPECIAL_TOKENS | {name: MORE_TOKENS[name] for name in more}
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=list(special.values()),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    begin = SPECIAL_TOKENS["bos_token"]
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{begin} $A", special_tokens=[(begin, tokenizer.token_to_id(begin))]
    )
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, clean_up_tokenization_spaces=False, **special)


def settle_pad(tokenizer: PreTrainedTokenizerBase, config: PretrainedConfig) -> None:
    """Give a tokenizer without a padding token its end token for it; loss and attention are masked, so none is lost."""
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token or tokenizer.unk_token
    if tokenizer.pad_token_id is None:
        raise UserError("model: its tokenizer has neither a padding, an end nor an unknown token; add one to it")
    config.pad_token_id = tokenizer.pad_token_id  # By it a classifier on a decoder finds the last token of a row.
