"""Merge: how ``command=merge`` makes one network of a base and its adapters."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field, PositiveInt, model_validator

from xp.adapter import experts
from xp.adapter.folder import beyond_lora, kind_of
from xp.adapter.several import active
from xp.component import Settings
from xp.error import UserError

if TYPE_CHECKING:
    from transformers import PreTrainedModel

SUM = "_sum"
"""What a weighted sum is called on its network; no adapter of a user's has such a name."""

SPARSE = ("ties", "dare", "magnitude")
"""Beginnings of those combinations that keep a share of the values."""


class Merge(Settings):
    """What of the adapters becomes part of the weights."""

    weights: dict[str, float]
    """How much of each of ``peft.adapters``: ``{law: 0.7, verse: 0.3}``; ``{}`` takes those that are active, whole."""

    combination: Literal[
        "linear", "cat", "svd", "ties", "ties_svd", "dare_ties", "dare_linear", "dare_ties_svd", "dare_linear_svd",
        "magnitude_prune", "magnitude_prune_svd",
    ]  # fmt: skip
    """How peft combines weighted LoRAs. cat: exactly the sum; svd: the nearest to it of ``rank``; linear: factor by
    factor, which is rough; ties: Yadav et al., 2023, arXiv:2306.01708; dare: Yu et al., 2023, arXiv:2311.03099."""

    density: Annotated[float, Field(gt=0, le=1)] | None
    """Share of the values that ties, dare and magnitude_prune keep."""

    rank: PositiveInt | None
    """Rank of what a combination with svd gives; null: the largest of the adapters'."""

    @model_validator(mode="after")
    def _fits_together(self) -> Merge:
        if not self.weights and self.combination != "cat":
            raise ValueError(f"combination={self.combination}: it is for merge.weights; give some, or set it to cat")
        sparse, svd = self.combination.startswith(SPARSE), "svd" in self.combination
        if sparse and self.density is None:
            raise ValueError(f"density: combination={self.combination} needs one; give merge.density=0.5, or so")
        if not sparse and self.density is not None:
            raise ValueError(f"density={self.density}: combination={self.combination} keeps all values; set it to null")
        if not svd and self.rank is not None:
            raise ValueError(f"rank={self.rank}: combination={self.combination} has its own rank; set it to null")
        return self


def merged(network: Any, merge: Merge, key: str) -> tuple[PreTrainedModel, float]:
    """The base network with adapters in its weights, and how much the weight has changed that has changed most.

    Args:
        network: a ``PeftModel``.
        merge: what of its adapters; by default those that are active.
        key: the setting that has brought the adapters, for messages.

    Raises:
        UserError: what this method learns is no change of weights, or cannot be combined.
    """
    names = [*merge.weights] or active(network)
    kinds = {kind_of(network.peft_config[name]) for name in names}
    mixed = any(kind_of(config) == experts.KIND for config in network.peft_config.values())
    if not names:
        raise UserError("peft.active=[]: none of the adapters is active, so there is nothing to merge; give some")
    try:
        if mixed:
            raise NotImplementedError("X-LoRA mixes them anew for each token")
        if not hasattr(network, "merge_and_unload"):
            raise NotImplementedError("it lies outside of the weights")
        if merge.weights:
            _combine(network, merge)
        changes = _watched(network)
        whole: PreTrainedModel = network.merge_and_unload(safe_merge=True)
    except (NotImplementedError, AttributeError, TypeError, ValueError) as error:
        raise UserError(
            f"{key}: {' and '.join(sorted(kinds))} cannot be merged into the base: {_said(error)}"
        ) from error
    return whole, max(changes, default=0.0)


def _said(error: Exception) -> str:
    """What peft says, and what helps where it is known."""
    said = " ".join(str(error).split())[:200]
    if "must have the same r" in said:
        return "those with unequal ranks are not summed up so; give merge.combination=cat, or one with svd"
    return said


def _watched(network: Any) -> list[float]:
    """A list that will hold how much each layer changes that is merged; one at a time, for memory's sake."""
    from peft.tuners.tuners_utils import BaseTunerLayer

    changes: list[float] = []

    def watch(layer: Any) -> None:
        merge = layer.merge

        def watched(*arguments: Any, **named: Any) -> None:
            before = layer.get_base_layer().weight.detach().clone()
            merge(*arguments, **named)
            changes.append(float((layer.get_base_layer().weight.detach() - before).abs().max()))

        layer.merge = watched

    for layer in network.modules():
        if isinstance(layer, BaseTunerLayer) and hasattr(layer, "merge") and hasattr(layer.get_base_layer(), "weight"):
            watch(layer)
    return changes


def _combine(network: Any, merge: Merge) -> None:
    """Add an adapter that is the weighted sum of others, and let it be the active one."""
    if not hasattr(network, "add_weighted_adapter"):
        raise NotImplementedError("peft has no weighted sum of such adapters; leave out merge.weights")
    for name in merge.weights:
        config = network.peft_config[name]
        rough = ["use_rslora"] if getattr(config, "use_rslora", False) else []
        odd = [*rough, *beyond_lora(vars(config))]
        if odd:
            raise NotImplementedError(f"peft has no weighted sum of adapters with {odd[0]}, as {name}")
    kind = kind_of(network.active_peft_config)
    more: dict[str, Any] = {}
    if kind == "LORA":
        more = {"combination_type": merge.combination, "density": merge.density, "svd_rank": merge.rank}
    elif merge.combination != "linear":
        raise NotImplementedError(f"peft sums up adapters of {kind} linearly; give merge.combination=linear")
    network.add_weighted_adapter([*merge.weights], [*merge.weights.values()], SUM, **more)
    network.set_adapter(SUM)
