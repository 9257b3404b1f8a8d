"""No adapter: every weight is trained."""

from __future__ import annotations

from typing import TYPE_CHECKING

from xp.peft.base import Peft, Purpose

if TYPE_CHECKING:
    from transformers import PreTrainedModel


class NoPeft(Peft, name="none"):
    """Train every weight."""

    def apply(self, network: PreTrainedModel, purpose: Purpose) -> PreTrainedModel:
        """The network itself; an adapter it came with is merged into it first."""
        if hasattr(network, "peft_config"):
            from xp.peft.merging import merged

            network = merged(network)
        for parameter in network.parameters():
            parameter.requires_grad_(parameter.is_floating_point())
        return network
