"""Drafts: a cheap guess of the next tokens, which the network then checks all at once (Leviathan et al., 2022)."""

from __future__ import annotations

import inspect
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field, PositiveInt, model_validator

from xp.error import UserError, check_folder
from xp.generation.base import Generation
from xp.generation.habits import base

if TYPE_CHECKING:
    from torch import nn

DRAFTERS = ("assistant_model", "prompt_lookup_num_tokens", "assistant_early_exit", "use_mtp")
"""Settings that each make drafts."""

OF_ASSISTANT = (
    "num_assistant_tokens", "num_assistant_tokens_schedule", "assistant_confidence_threshold", "assistant_lookbehind",
    "target_lookbehind",
)  # fmt: skip
"""Settings that transformers reads from the draft model's own generation config."""


class Drafted(Generation):
    """A way to write one token after the other, which drafts can make faster and leave as it is."""

    assistant_model: str | None
    """The model that drafts, as ``model.path`` names one: smaller, best with the same tokenizer; null: none."""

    num_assistant_tokens: PositiveInt | None
    """Tokens of a draft at most; null: 20."""

    num_assistant_tokens_schedule: Literal["constant", "heuristic", "heuristic_transient"] | None
    """Whether it stays, or grows with each draft that was right and shrinks with each that was not, over all inputs or
    within each; null: constant."""

    assistant_confidence_threshold: Annotated[float, Field(ge=0, le=1)] | None
    """A draft ends at a token that the draft model is less sure of; null: 0.4."""

    assistant_lookbehind: PositiveInt | None
    """Tokens of the draft model that are looked at again to fit two tokenizers together; null: 10."""

    target_lookbehind: PositiveInt | None
    """Tokens of the model, likewise; null: 10."""

    assistant_ensemble_weight: Annotated[float, Field(gt=0, lt=1)] | None
    """Share of the model's own word where drafts are judged by a mixture: faster, and no longer the model's text; null:
    its own word alone."""

    speculation_type: Literal["dflash"] | None
    """Another kind of draft model, which writes a block at once; null: one that writes token by token."""

    prompt_lookup_num_tokens: PositiveInt | None
    """Tokens of a draft that is copied from what came after the same words before, without any model; null: none."""

    max_matching_ngram_size: PositiveInt | None
    """Tokens that must be the same for that, at most; null: 2."""

    assistant_early_exit: PositiveInt | None
    """Layer of the network itself that drafts, for networks that were trained for it; null: none."""

    use_mtp: bool
    """Whether the network's own heads for several tokens draft, where it has them."""

    @model_validator(mode="after")
    def _drafts_fit(self) -> Drafted:
        said = [name for name in DRAFTERS if getattr(self, name) not in (None, False)]
        if len(said) > 1:
            raise ValueError(f"{said[1]}: {said[0]} drafts already; set one of them")
        if said and self.num_return_sequences > 1:
            raise ValueError(f"num_return_sequences={self.num_return_sequences}: drafts are for one; unset {said[0]}")
        if said and not self.use_cache:
            raise ValueError(f"use_cache=false: {said[0]} needs the cache; use true")
        for name in (*OF_ASSISTANT, "assistant_ensemble_weight", "speculation_type"):
            if getattr(self, name) is not None and self.assistant_model is None:
                raise ValueError(f"{name}: there is no draft model; give generation.assistant_model=<path>")
        if self.max_matching_ngram_size is not None and self.prompt_lookup_num_tokens is None:
            raise ValueError("max_matching_ngram_size: nothing is looked up; give generation.prompt_lookup_num_tokens")
        return self

    @property
    def drafts(self) -> bool:
        """Whether a draft model, the text itself or a part of the network drafts."""
        return any(getattr(self, name) not in (None, False) for name in DRAFTERS)

    @property
    def alone(self) -> bool:
        """Whether something drafts: transformers drafts for one row at a time."""
        return self.drafts

    def check_files(self) -> None:
        """The draft model's folder, where its path is one."""
        path = os.path.expanduser(self.assistant_model or "")
        if path.startswith((".", "/", "runs/")):
            check_folder(f"generation.assistant_model={self.assistant_model}", path)

    def arguments(self, network: nn.Module, processor: Any) -> dict[str, Any]:
        """Without what is the draft model's, see `Draft.arguments`.

        Raises:
            UserError: as for any way, or the network cannot draft, or cannot be drafted for.
        """
        config: Any = network.config
        if self.use_mtp and getattr(config.get_text_config(), "num_mtp_layers", None) is None:
            raise UserError("generation.use_mtp=true: this model has no heads for several tokens; use false")
        if self.drafts and base(network).device.type == "meta":
            said = next(name for name in DRAFTERS if getattr(self, name))
            raise UserError(
                f"generation.{said}: drafts are for a model whose first weights are in memory, not on the disk; raise "
                "model.max_memory, or draft nothing"
            )
        if self.assistant_early_exit is not None:
            _check_exit(base(network), self.assistant_early_exit)
        ours = ("assistant_model", *OF_ASSISTANT)
        return {name: value for name, value in super().arguments(network, processor).items() if name not in ours}


def _check_exit(network: Any, layer: int) -> None:
    """Refuse an early exit that leaves out no layer: transformers only lowers ``num_hidden_layers`` for a draft.

    Raises:
        UserError: networks of this kind do not look at that, or it has no more layers.
    """
    inner = getattr(network, network.base_model_prefix, network)
    if "num_hidden_layers" not in inspect.unwrap(type(inner).forward).__code__.co_names:
        raise UserError(
            f"generation.assistant_early_exit={layer}: a {network.config.model_type} model goes through all of its "
            "layers; leave it null, or draft by generation.prompt_lookup_num_tokens"
        )
    if layer >= inner.config.num_hidden_layers:
        raise UserError(
            f"generation.assistant_early_exit={layer}: it must be less than {inner.config.num_hidden_layers}, the "
            "layers of this model"
        )


@dataclass(frozen=True)
class Draft:
    """A draft model in memory."""

    network: Any
    processor: Any

    def arguments(self, network: Any, processor: Any, generation: Generation) -> dict[str, Any]:
        """What ``generate`` is to be told of it; sets its own generation config, where transformers looks for more.

        Raises:
            UserError: it cannot draft for this network, or its tokenizer is another one and the network has an encoder,
                or it is the same one and settings are to fit two together.
        """
        from copy import deepcopy

        inner = base(self.network)
        self._check(network, generation)
        config = type(inner.generation_config)()
        for name in ("pad_token_id", "bos_token_id", "eos_token_id", "decoder_start_token_id"):
            setattr(config, name, deepcopy(getattr(inner.generation_config, name)))
        for name in OF_ASSISTANT:
            if (value := getattr(generation, name, None)) is not None:
                setattr(config, name, value)
        inner.generation_config = config
        found = {"assistant_model": inner}
        if self.processor.get_vocab() != processor.get_vocab():
            if network.config.is_encoder_decoder:
                raise UserError(
                    "generation.assistant_model: its tokenizer is not the model's, which only decoders can bridge; "
                    "take one of the same family"
                )
            return found | {"tokenizer": processor, "assistant_tokenizer": self.processor}
        for name in ("assistant_lookbehind", "target_lookbehind"):
            if getattr(generation, name, None) is not None:
                raise UserError(f"generation.{name}: the draft model has the model's own tokenizer; leave it null")
        return found

    def _check(self, network: Any, generation: Generation) -> None:
        """Refuse a draft model that transformers would fail with."""
        path = getattr(generation, "assistant_model", None)
        key = f"generation.assistant_model={path}"
        inner = base(self.network)
        encodes = network.config.is_encoder_decoder
        if inner.config.is_encoder_decoder != encodes:
            kinds = ("has no encoder, and the model has one", "has an encoder, and the model has none")
            raise UserError(f"{key}: it {kinds[not encodes]}; take another one, or set it to null")
        if inner.device.type == "meta":
            raise UserError(f"{key}: its first weights are on the disk; raise model.max_memory, or set it to null")
        kind = getattr(generation, "speculation_type", None)
        if kind == "dflash" and not hasattr(inner.config, "target_layer_ids"):
            raise UserError(
                f"generation.speculation_type={kind}: {path} was not made for it; take a draft model that was, or set "
                "it to null"
            )
