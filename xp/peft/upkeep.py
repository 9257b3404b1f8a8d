"""Upkeep: what a method does beside the gradient steps, the same on every backend, and what it remembers of it."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch
    from torch import Tensor

AVERAGES = ("ipt", "exp_avg_ipt", "exp_avg_unc")
"""What AdaLoRA's allocator remembers of each weight."""


class Upkeep:
    """AdaLoRA: factors kept nearly orthogonal, and the rank moved to the layers that need it (arXiv:2303.10512)."""

    def __init__(self, network: Any) -> None:
        self.network = network
        self.config = network.active_peft_config

    def attach(self, optimizer: torch.optim.Optimizer, done: Callable[[], int]) -> None:
        """Have peft weigh the factors after every step, while its gradients are still there, on every backend.

        Args:
            optimizer: of the training.
            done: gives the number of the step that was done before.
        """
        optimizer.register_step_post_hook(lambda *_: self.network.base_model.update_and_allocate(done() + 1))

    def penalty(self) -> Tensor:
        """Mean distance of the factors' Gram matrices from the identity; peft adds it only where it sees labels."""
        import torch

        distances = []
        for name, factor in self.network.named_parameters():
            if "lora_A" in name or "lora_B" in name:
                gram = factor @ factor.T if "lora_A" in name else factor.T @ factor
                distances.append(torch.linalg.matrix_norm(gram - torch.eye(len(gram), device=gram.device)))
        total: Tensor = self.config.orth_reg_weight * torch.stack(distances).mean()
        return total

    def tensors(self) -> dict[str, Tensor]:
        """The averages of the weights' importance."""
        allocator = self.network.base_model.rankallocator
        return {f"{kind}.{name}": value for kind in AVERAGES for name, value in getattr(allocator, kind).items()}

    def values(self) -> dict[str, Any]:
        """Which factors are left."""
        return {"rank_pattern": self.config.rank_pattern}

    def restore(self, tensors: dict[str, Tensor], values: dict[str, Any]) -> None:
        """Remember what `tensors` and `values` gave."""
        allocator = self.network.base_model.rankallocator
        where = dict(self.network.base_model.model.named_parameters())
        for kind in AVERAGES:
            found = {name.partition(".")[2]: value for name, value in tensors.items() if name.partition(".")[0] == kind}
            setattr(allocator, kind, {name: value.to(where[name].device) for name, value in found.items()})
        self.config.rank_pattern = values["rank_pattern"]


def upkeep(network: Any) -> Upkeep | None:
    """What a network's adapter needs; None where it has none, or its method needs nothing."""
    config = network.active_peft_config if hasattr(network, "peft_config") else None
    return Upkeep(network) if config is not None and config.peft_type == "ADALORA" else None


def settle(network: Any) -> None:
    """Have a network's adapter be saved with the ranks that its weights have: those kept may be of an earlier step."""
    config = network.active_peft_config
    if config.peft_type == "ADALORA" and config.rank_pattern:
        factors = {name: value for name, value in network.base_model.model.named_parameters() if "lora_E" in name}
        config.rank_pattern = {name: (value != 0).view(-1).tolist() for name, value in factors.items()}
