"""Generation: how a model that writes text chooses the next token, and when it stops."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field, NonNegativeInt, PositiveFloat, PositiveInt

from xp.component import Component

if TYPE_CHECKING:
    from torch import Tensor, nn


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

    def generate(self, network: nn.Module, inputs: dict[str, Tensor], processor: Any) -> Tensor:
        """The new tokens alone, (rows, longest answer), filled up with the padding token.

        Args:
            network: with a ``generate`` method, in evaluation mode.
            inputs: ``input_ids`` and ``attention_mask`` (rows, longest), padded on the left for a decoder.
            processor: the tokenizer.
        """
        tokens = network.generate(  # type: ignore[operator]
            **inputs,
            **self.settings(),
            pad_token_id=processor.pad_token_id,
            use_cache=True,  # A training has switched it off in the model's config.
        )
        decoder = not network.config.is_encoder_decoder  # type: ignore[union-attr]
        # An encoder-decoder's answer begins with its start token, a decoder's with all that it was given.
        answer: Tensor = tokens[:, inputs["input_ids"].shape[1] if decoder else 1 :]
        return answer


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
