"""Generation: how a model that writes text chooses the next token, and when it stops."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from copy import deepcopy
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field, NonNegativeInt, PositiveFloat, PositiveInt

from xp.component import Component
from xp.error import UserError

if TYPE_CHECKING:
    from torch import Tensor, nn

HABITS = (
    "max_length", "max_new_tokens", "min_length", "min_new_tokens", "max_time", "do_sample", "num_beams",
    "early_stopping", "length_penalty", "temperature", "top_k", "top_p", "min_p", "top_h", "typical_p",
    "epsilon_cutoff", "eta_cutoff", "repetition_penalty", "encoder_repetition_penalty", "no_repeat_ngram_size",
    "encoder_no_repeat_ngram_size", "exponential_decay_length_penalty", "penalty_alpha", "num_beam_groups",
    "diversity_penalty", "num_return_sequences", "guidance_scale", "forced_eos_token_id",
)  # fmt: skip
"""What a model's own generation config may say of how to write; here a run's ``generation`` says it."""


class Generation(Component):
    """A way to write text. Its fields have the names of transformers' ``GenerationConfig``."""

    max_new_tokens: PositiveInt
    """Most tokens that are written, beside those that were given."""

    min_new_tokens: NonNegativeInt
    """Fewest tokens that are written before the end token may come."""

    repetition_penalty: PositiveFloat
    """Above 1, what was written already becomes less likely (Keskar et al., 2019); 1 changes nothing."""

    no_repeat_ngram_size: NonNegativeInt
    """No run of this many tokens is written twice; 0 allows it."""

    def settings(self) -> dict[str, Any]:
        """What transformers' ``generate`` is to be told."""
        return self.model_dump(exclude={"name"})

    def generate(
        self, network: nn.Module, inputs: dict[str, Tensor], processor: Any, *, first: int | None = None
    ) -> Tensor:
        """The new tokens alone, (rows, longest answer), filled up with the padding token.

        Habits of the model's own generation config (``num_beams``, ``max_length``, ...) have no say, its special
        tokens do.

        Args:
            network: with a ``generate`` method, in evaluation mode.
            inputs: ``input_ids`` and ``attention_mask`` (rows, longest), padded on the left for a decoder.
            processor: the tokenizer.
            first: token that each answer is made to begin with, for example that of a language.

        Raises:
            UserError: ``max_new_tokens`` is more than the positions of an encoder-decoder reach.
        """
        config: Any = network.config
        reach = getattr(config, "max_position_embeddings", None)
        if config.is_encoder_decoder and reach is not None and self.max_new_tokens >= reach:
            raise UserError(
                f"generation.max_new_tokens={self.max_new_tokens}: this model writes at most {reach - 1} tokens"
            )
        more = {} if first is None else {"forced_bos_token_id": first}
        with _without_habits(network) as own:
            if own.eos_token_id is None:
                more["eos_token_id"] = processor.eos_token_id
            tokens = network.generate(  # type: ignore[operator]
                **inputs,
                **self.settings(),
                **more,
                pad_token_id=processor.pad_token_id,
                use_cache=True,  # A training has switched it off in the model's config.
            )
        # An encoder-decoder's answer begins with its start token, a decoder's with all that it was given.
        answer: Tensor = tokens[:, 1 if config.is_encoder_decoder else inputs["input_ids"].shape[1] :]
        return answer


@contextmanager
def _without_habits(network: Any) -> Iterator[Any]:
    """The network's generation config for the time being: its own, without what `Generation` decides.

    Whatever a call leaves open, transformers takes from the network's config: a summarizer of the hub would follow
    four beams and write 56 tokens at least although the yaml says greedy, and warn of the contradiction.
    """
    base = network.get_base_model() if hasattr(network, "get_base_model") else network
    own = base.generation_config
    base.generation_config = deepcopy(own)
    for name in HABITS:
        setattr(base.generation_config, name, None)
    try:
        yield own
    finally:
        base.generation_config = own


class Greedy(Generation, name="greedy"):
    """Always the most likely next token."""

    def settings(self) -> dict[str, Any]:
        """Neither sampling nor beams."""
        return super().settings() | {"do_sample": False, "num_beams": 1}


class Sample(Generation, name="sample"):
    """Draw the next token at random from the model's distribution, or from the likely part of it."""

    temperature: PositiveFloat
    """Below 1 the likely tokens become more likely still, above 1 less."""

    top_k: NonNegativeInt
    """Draw from this many most likely tokens (Fan et al., 2018); 0 draws from all."""

    top_p: Annotated[float, Field(gt=0, le=1)]
    """Draw from the most likely tokens that together have this probability (Holtzman et al., 2020)."""

    def settings(self) -> dict[str, Any]:
        """Sampling, without beams."""
        return super().settings() | {"do_sample": True, "num_beams": 1}


class Beam(Generation, name="beam"):
    """Follow the likeliest few beginnings at once and end with the likeliest whole."""

    num_beams: Annotated[int, Field(ge=2)]
    """How many beginnings are followed."""

    length_penalty: float
    """Above 0 longer answers are preferred, below 0 shorter ones: the score is divided by length to this power."""

    early_stopping: bool
    """Whether to end as soon as there are as many whole answers as beams."""

    def settings(self) -> dict[str, Any]:
        """Beams, without sampling."""
        return super().settings() | {"do_sample": False}
