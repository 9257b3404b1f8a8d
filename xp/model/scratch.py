"""Random weights in an architecture of one's own choosing."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pydantic import PositiveInt, model_validator

from xp.error import UserError, nearest
from xp.model.base import Described, Loaded, Model, Wish, loading
from xp.model.processor import check_options, load_processor, new_processor
from xp.model.tokenizer import settle_pad, train_tokenizer

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedTokenizerBase

WRAPPING = {"mbart", "plbart"}
"""Types whose decoder is trained to begin with the last token of the target, the end token, whatever is configured."""


class Scratch(Model, name="scratch"):
    """Random weights in an architecture of one's own choosing."""

    type: str
    """transformers' model type: llama, gpt2, bert, vit, wav2vec2, ..."""

    tokenizer: str | None
    """Folder or hub id of a tokenizer; null trains a byte-level BPE on the training texts."""

    vocabulary: PositiveInt | None
    """Tokens of the trained tokenizer, or, with one given, the least number of embeddings; null: it reads no texts."""

    @model_validator(mode="before")
    @classmethod
    def _has_nothing_to_quantize(cls, values: Any) -> Any:
        if isinstance(values, dict) and values.get("quantization") is not None:
            raise ValueError(
                f"quantization={values['quantization']}: model=scratch has random weights, which are to be trained, "
                "and quantized ones cannot be; use peft=lora or none instead of qlora, or a model that is trained"
            )
        return values

    def describe(self, wish: Wish) -> Described:
        """The config of the new network, and its tokenizer: the given one, or one trained on the texts."""
        import transformers
        from transformers.models.auto.configuration_auto import CONFIG_MAPPING_NAMES

        if self.type not in CONFIG_MAPPING_NAMES:
            raise UserError(
                f"model.type={self.type}: transformers has no such type.{nearest(self.type, CONFIG_MAPPING_NAMES)}"
            )
        if not wish.train:
            raise UserError(
                "model: weights from scratch have learned nothing yet; train them first, or give model.path=<folder>"
            )
        described = transformers.AutoConfig.for_model(self.type)
        self._check_config(described)
        tokenizer, values = None, dict[str, Any]()
        if wish.processor_class == "AutoTokenizer":
            tokenizer, values = self._tokenizer(wish)
            if described.is_encoder_decoder:
                values["decoder_start_token_id"] = self._start(described, tokenizer)
        with loading(f"scratch {self.type}"):
            config = transformers.AutoConfig.for_model(self.type, **values | wish.config(wish.labels) | self.config)
        if tokenizer is not None:
            processor: Any = tokenizer
            settle_pad(tokenizer, config)
        else:
            with loading(f"scratch {self.type}"):
                processor = new_processor(wish.processor_class, config, self.processor)
        return Described(processor, wish.labels, config)

    def load(self, wish: Wish) -> Loaded:
        """A new network, initialised by its architecture's own rule from torch's current random state."""
        import torch
        import transformers

        described = self.describe(wish)
        auto_class = wish.auto_class if isinstance(wish.auto_class, str) else wish.auto_class[0]
        with loading(f"scratch {self.type}", auto_class):
            network = getattr(transformers, auto_class).from_config(described.config)

        dtype = self._dtype(wish)
        return Loaded(network.to(torch.float32 if dtype == "auto" else dtype), described.processor, described.labels)

    def _start(self, config: PretrainedConfig, tokenizer: PreTrainedTokenizerBase) -> Any:
        """Id of the token that the decoder begins with; a config from scratch may not say."""
        if self.type in WRAPPING:
            return tokenizer.eos_token_id
        # Targets begin with the begin token too. Without absolute positions, as in T5, a decoder could not count how
        # many of it there are, and would write it for ever.
        counts = hasattr(config, "max_position_embeddings")
        return tokenizer.bos_token_id if counts and tokenizer.bos_token_id is not None else tokenizer.pad_token_id

    def _tokenizer(self, wish: Wish) -> tuple[PreTrainedTokenizerBase, dict[str, Any]]:
        """The tokenizer, and the values of the model's config that follow from it."""
        if self.vocabulary is None:
            raise UserError(
                f"model.vocabulary=null: a {self.type} that reads texts needs a number; this task is one of texts"
            )
        if self.tokenizer is None:
            tokenizer = train_tokenizer(wish.texts(), self.vocabulary, wish.special_tokens)
            check_options(tokenizer, self.processor)
            for name, value in self.processor.items():
                setattr(tokenizer, name, value)
        else:
            with loading(self.tokenizer):
                tokenizer = load_processor("AutoTokenizer", wish.locate(self.tokenizer), self.processor)
        values = {"vocab_size": max(len(tokenizer), self.vocabulary)}
        return tokenizer, values | {
            f"{name}_token_id": getattr(tokenizer, f"{name}_token_id") for name in ("bos", "eos", "pad")
        }
