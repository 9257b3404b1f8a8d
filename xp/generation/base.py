"""Generation: the kind, and the settings that every way of writing has."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import Field, NonNegativeInt, PositiveFloat, PositiveInt, model_validator

from xp.component import Component
from xp.error import UserError
from xp.generation import caching
from xp.generation.compilation import Compile
from xp.generation.habits import base, without_habits
from xp.generation.told import told
from xp.generation.watermark import Watermark

if TYPE_CHECKING:
    from torch import Tensor, nn

    from xp.generation.answer import Answer
    from xp.generation.drafts import Draft


class Generation(Component):
    """A way to write text. Its fields have the names of transformers' ``GenerationConfig``."""

    do_sample: ClassVar[bool] = False
    """Whether tokens are drawn at random."""

    max_new_tokens: PositiveInt
    """Most tokens that are written, beside those that were given."""

    min_new_tokens: NonNegativeInt
    """Fewest tokens that are written before the end token may come."""

    max_time: PositiveFloat | None
    """Seconds after which a batch ends with the token it is at; null: never."""

    stop_strings: list[str]
    """Writing ends once one of these was written, beside at the end token; it is not part of the answer."""

    num_return_sequences: PositiveInt
    """How many answers each input gets."""

    repetition_penalty: PositiveFloat
    """Above 1, what was written already becomes less likely (Keskar et al., 2019); 1 changes nothing."""

    encoder_repetition_penalty: PositiveFloat
    """Above 1, what is in the input becomes likelier, against inventions; 1 changes nothing."""

    no_repeat_ngram_size: NonNegativeInt
    """No run of this many tokens is written twice; 0 allows it."""

    encoder_no_repeat_ngram_size: NonNegativeInt
    """No run of this many tokens of the input is written; 0 allows it."""

    exponential_decay_length_penalty: Annotated[list[float], Field(min_length=2, max_length=2)] | None
    """``[start, factor]``: from that many new tokens on, the end token becomes likelier by this power; null: not."""

    bad_words_ids: list[str | list[int]]
    """What is never written, as texts or as ids of tokens, beside what the model itself never writes."""

    sequence_bias: list[Annotated[list[str | list[int] | float], Field(min_length=2, max_length=2)]]
    """Pairs of a text, or ids of tokens, and what is added to the score of the token that completes it: ``[[foo, -5]]``
    makes ``foo`` less likely."""

    suppress_tokens: list[str | NonNegativeInt]
    """Tokens, as texts or ids, that are never written, beside those that the model itself never writes."""

    begin_suppress_tokens: list[str | NonNegativeInt]
    """Tokens, as texts or ids, that no answer begins with, likewise."""

    forced_bos_token_id: str | NonNegativeInt | None
    """The token, as text or id, that answers are made to begin with; null: as the model or the task says."""

    forced_eos_token_id: str | NonNegativeInt | None
    """The token, as text or id, that an answer of the greatest length is made to end with; null: none."""

    guidance_scale: Annotated[float, Field(gt=1)] | None
    """How far the prompt is followed beyond what the model makes of it (Sanchez et al., 2023); null: no further."""

    renormalize_logits: bool
    """Whether scores become logarithms of probabilities again after all that changes them."""

    remove_invalid_values: bool
    """Whether scores that are no numbers are replaced, which costs time."""

    watermarking_config: Watermark | None
    """A mark in what is written; null: none."""

    use_cache: bool
    """Whether what the network has computed of earlier tokens is kept; without, each token costs all before it."""

    cache_implementation: Literal["dynamic", "static", "offloaded", "offloaded_static", "quantized"] | None
    """How it is kept: growing, at full size from the start, or both with layers in the CPU's memory; null: the model's
    way, which mostly is dynamic."""

    cache_config: dict[str, Any] | None
    """Options of the quantized cache (backend, nbits, ...); null: transformers' own."""

    max_cache_len: PositiveInt | None
    """Tokens that a static cache has room for at least, so that calls share one; null: as many as a call needs."""

    prefill_chunk_size: PositiveInt | None
    """Tokens of a long prompt that go through the network at once, to save memory; null: all."""

    compile_config: Compile | None
    """How a static cache's network is compiled; null: as transformers does it on GPUs."""

    disable_compile: bool
    """Whether it is not compiled."""

    @model_validator(mode="before")
    @classmethod
    def _explains_keys(cls, values: Any) -> Any:
        from xp.generation.decided import why

        for key in values if isinstance(values, dict) else ():
            if key not in cls.model_fields and (reason := why(str(key))):
                raise ValueError(f"{key}: {reason}")
        return values

    @model_validator(mode="after")
    def _fits_together(self) -> Generation:
        if self.min_new_tokens > self.max_new_tokens:
            raise ValueError(
                f"min_new_tokens={self.min_new_tokens}: it must not exceed max_new_tokens={self.max_new_tokens}"
            )
        if not all(self.stop_strings):
            raise ValueError("stop_strings: an empty text ends every answer before it begins; leave it out")
        for text, bias in self.sequence_bias:
            if isinstance(text, float) or not isinstance(bias, float):
                raise ValueError(f"sequence_bias: a pair is a text and a number, not {[text, bias]}")
        if not all(self.bad_words_ids) or not all(text for text, _ in self.sequence_bias):
            name = "sequence_bias" if all(self.bad_words_ids) else "bad_words_ids"
            raise ValueError(f"{name}: an empty text stands for no token; leave it out")
        if self.exponential_decay_length_penalty is not None:
            start, factor = self.exponential_decay_length_penalty
            if start < 0 or start % 1 or factor <= 0:
                raise ValueError(
                    f"exponential_decay_length_penalty=[{start:g}, {factor:g}]: it must be a whole number of tokens, 0 "
                    "or more, and a factor above 0"
                )
        caching.fit(self)
        return self

    @property
    def beams(self) -> int:
        """How many beginnings are followed at once."""
        return 1

    @property
    def drafts(self) -> bool:
        """Whether something drafts the next tokens."""
        return False

    @property
    def alone(self) -> bool:
        """Whether each input is answered by itself: several at once would change each other's answers, or cannot be."""
        return False

    def check_files(self) -> None:
        """See whether the folders that the settings name are there; raises a `UserError` where one is not."""

    def arguments(self, network: nn.Module, processor: Any) -> dict[str, Any]:
        """What transformers' ``generate`` is to be told, beside the inputs and `stopping`.

        Args:
            network: its own generation config says which tokens it never writes.
            processor: the tokenizer.

        Raises:
            UserError: a text is to be one token and is several.
        """
        return told(self, network, processor)

    def generate(
        self,
        network: nn.Module,
        inputs: dict[str, Tensor],
        processor: Any,
        *,
        first: int | None = None,
        seeds: Sequence[Sequence[int]] | None = None,
        draft: Draft | None = None,
        streamer: Any = None,
        criteria: Sequence[Any] = (),
    ) -> Tensor:
        """The new tokens alone, (rows x num_return_sequences, longest answer), filled up with the padding token.

        Habits of the model's own generation config (``num_beams``, ``max_length``, ...) have no say, its special
        tokens do.

        Args:
            network: with a ``generate`` method, in evaluation mode.
            inputs: ``input_ids`` and ``attention_mask`` (rows, longest), padded on the left for a decoder, and
                whatever else the network takes.
            processor: the tokenizer.
            first: token that each answer is made to begin with, for example that of a language.
            seeds: for each answer the numbers that decide what is drawn for it, so that it does not depend on the
                rows beside it; None: torch's own random state decides.
            draft: the model that ``assistant_model`` names.
            streamer: of transformers; is given the prompt and then each token.
            criteria: more of transformers' stopping criteria.

        Raises:
            UserError: ``max_new_tokens`` is more than the positions of an encoder-decoder reach, or a setting that
                this model cannot honour.
        """
        from xp.generation.drawing import drawn
        from xp.generation.stopping import stopping

        config: Any = network.config
        reach = getattr(config, "max_position_embeddings", None)
        if config.is_encoder_decoder and reach is not None and self.max_new_tokens >= reach:
            raise UserError(
                f"generation.max_new_tokens={self.max_new_tokens}: this model writes at most {reach - 1} tokens"
            )
        if config.is_encoder_decoder and self.guidance_scale is not None:
            raise UserError(
                "generation.guidance_scale: it is for decoders, and this model has an encoder; leave it null"
            )
        more = self.arguments(network, processor) | {"pad_token_id": processor.pad_token_id}
        if base(network).generation_config.eos_token_id is None:
            more["eos_token_id"] = processor.eos_token_id
        if first is not None:
            if self.forced_bos_token_id not in (None, first):
                raise UserError(
                    f"generation.forced_bos_token_id={self.forced_bos_token_id}: the task has answers begin with token "
                    f"{first}, that of their language; leave it null"
                )
            more["forced_bos_token_id"] = first
        if self.do_sample and seeds is not None and not self.alone:
            more["custom_generate"] = drawn(seeds, streamer)
        start = 1 if config.is_encoder_decoder else inputs["input_ids"].shape[1]
        more |= {"stopping_criteria": stopping(self.stop_strings, start, processor, criteria), "streamer": streamer}
        if draft is not None:
            more |= draft.arguments(network, processor, self)
        with without_habits(network):
            tokens = network.generate(**inputs, **more)  # type: ignore[operator]
        # An encoder-decoder's answer begins with its start token, a decoder's with all that it was given.
        answer: Tensor = tokens[:, start:]
        return answer

    def answers(self, network: nn.Module, rows: Sequence[Sequence[int]], processor: Any) -> list[Answer]:
        """What the rows of new tokens say that `generate` gave, and what ended each."""
        from xp.generation.answer import answered, ending

        ends = ending(network, processor)
        return [answered(row, ends, self, processor) for row in rows]
