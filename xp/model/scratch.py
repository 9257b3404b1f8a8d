"""Random weights in an architecture of one's own choosing."""

from __future__ import annotations

from pydantic import PositiveInt

from xp.error import UserError, nearest
from xp.model.base import Loaded, Model, Wish, loading
from xp.model.tokenizer import settle_pad, train_tokenizer


class Scratch(Model, name="scratch"):
    """Random weights in an architecture of one's own choosing."""

    type: str
    """transformers' model type: llama, gpt2, bert, ..."""

    tokenizer: str | None
    """Folder or hub id of a tokenizer; null trains a byte-level BPE on the training texts."""

    vocabulary: PositiveInt
    """Tokens of the trained tokenizer; with a tokenizer given, the model has at least this many embeddings."""

    def load(self, wish: Wish) -> Loaded:
        """A new network, initialised by its architecture's own rule from torch's current random state."""
        import transformers
        from transformers.models.auto.configuration_auto import CONFIG_MAPPING_NAMES

        if self.type not in CONFIG_MAPPING_NAMES:
            raise UserError(
                f"model.type={self.type}: transformers has no such type.{nearest(self.type, CONFIG_MAPPING_NAMES)}"
            )
        if not wish.train:
            raise UserError("model=scratch has random weights: there is nothing to evaluate; give model.path=<folder>")
        self._check_config(transformers.AutoConfig.for_model(self.type))
        if self.tokenizer is None:
            tokenizer = train_tokenizer(wish.texts(), self.vocabulary, wish.special_tokens)
        else:
            with loading(self.tokenizer):
                tokenizer = transformers.AutoTokenizer.from_pretrained(wish.locate(self.tokenizer))
        values = {"vocab_size": max(len(tokenizer), self.vocabulary)}
        values |= {f"{name}_token_id": getattr(tokenizer, f"{name}_token_id") for name in ("bos", "eos", "pad")}
        with loading(f"scratch {self.type}"):
            config = transformers.AutoConfig.for_model(self.type, **values | wish.config(wish.labels) | self.config)
        settle_pad(tokenizer, config)
        with loading(f"scratch {self.type}", wish.auto_class):
            network = getattr(transformers, wish.auto_class).from_config(config)
        import torch

        dtype = self._dtype(wish)
        return Loaded(network.to(torch.float32 if dtype == "auto" else dtype), tokenizer, wish.labels)
