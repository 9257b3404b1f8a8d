"""Habits: what a model's own generation config says of how to write, which has no say here."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from copy import deepcopy
from typing import Any

KNOWLEDGE = (
    "pad_token_id", "bos_token_id", "eos_token_id", "decoder_start_token_id", "forced_bos_token_id",
    "suppress_tokens", "begin_suppress_tokens", "bad_words_ids",
)  # fmt: skip
"""What such a config knows of the model's tokens; these stay, and settings add to them."""


def base(network: Any) -> Any:
    """The network itself, without adapters around it."""
    return network.get_base_model() if hasattr(network, "get_base_model") else network


@contextmanager
def without_habits(network: Any) -> Iterator[Any]:
    """The network's generation config for the time being: its own, without what `Generation` decides.

    Whatever a call leaves open, transformers takes from the network's config: a summarizer of the hub would follow
    four beams and write 56 tokens at least although the yaml says greedy, and warn of the contradiction.
    """
    inner = base(network)
    own = inner.generation_config
    known = type(own)()
    inner.generation_config = deepcopy(own)
    for name in vars(known):
        if name not in KNOWLEDGE and not name.startswith("_") and name != "transformers_version":
            setattr(inner.generation_config, name, None)
    try:
        yield own
    finally:
        inner.generation_config = own
