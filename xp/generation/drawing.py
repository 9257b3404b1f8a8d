"""Drawing: the next token at random, as a function of a row's own seed and of nothing beside it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor


def drawn(seeds: Sequence[Sequence[int]], streamer: Any) -> Callable[..., Tensor]:
    """A ``custom_generate`` for transformers: its own sampling, but that each row draws from a stream of its own.

    The last of all that changes the scores leaves one token: where a row's next number between 0 and 1 falls among
    the probabilities laid end to end (inverse transform sampling). So a row's text does not depend on what it
    shares a batch with, and is the same on every device, but for the last bits of its probabilities.

    Args:
        seeds: the numbers that decide a row's stream.
        streamer: what transformers would have given its own sampling.
    """

    def sample(model: Any, input_ids: Tensor, logits_processor: Any, **more: Any) -> Tensor:
        import numpy as np
        import torch

        start = input_ids.shape[1]
        longest = more["generation_config"].max_length - start
        numbers = np.stack([np.random.default_rng(list(seed)).random(longest) for seed in seeds])
        uniform = torch.from_numpy(numbers).to(input_ids.device)

        def pick(input_ids: Tensor, scores: Tensor) -> Tensor:
            step = input_ids.shape[1] - start
            reached = scores.double().softmax(-1).cumsum(-1)
            chosen = (reached <= uniform[:, step : step + 1] * reached[:, -1:]).sum(-1, keepdim=True)
            chosen.clamp_(max=scores.shape[-1] - 1)
            return torch.full_like(scores, -torch.inf).scatter_(1, chosen, 0.0)

        logits_processor.append(pick)
        tokens: Tensor = model._sample(input_ids, logits_processor=logits_processor, streamer=streamer, **more)
        return tokens

    return sample
