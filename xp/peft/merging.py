"""Adapters that become part of the weights they were trained on."""

from __future__ import annotations

from typing import TYPE_CHECKING

from xp.error import UserError

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def merged(network: PreTrainedModel) -> PreTrainedModel:
    """The base network with the adapter in its weights.

    Raises:
        UserError: what this method learns is no change of weights.
    """
    kind = network.active_peft_config.peft_type
    kind = getattr(kind, "value", kind)
    try:
        if not hasattr(network, "merge_and_unload"):
            raise NotImplementedError("it lies outside of the weights")
        whole: PreTrainedModel = network.merge_and_unload(safe_merge=True)
    except (NotImplementedError, AttributeError, TypeError, ValueError) as error:
        raise UserError(
            f"the {kind} adapter in model.path cannot be merged into its base: {' '.join(str(error).split())[:200]}; "
            "train it further with its own peft, or start from its base"
        ) from error
    return whole
