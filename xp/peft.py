"""Peft: which of a network's weights are trained: all of them, or a small adapter."""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field, PositiveInt

from xp.component import Component
from xp.error import UserError, nearest

if TYPE_CHECKING:
    from torch import nn
    from transformers import PreTrainedModel


class Peft(Component):
    """Parameter-efficient fine-tuning, or none."""

    @abstractmethod
    def apply(self, network: PreTrainedModel, task_type: str | None, new: list[str]) -> PreTrainedModel:
        """The network with just the weights trainable that are to be trained.

        Args:
            network: as loaded; a ``PeftModel`` where the model's path was an adapter folder.
            task_type: peft's name for the task, by which a head stays trainable.
            new: names of random weights that the pretrained model had none for; they are trained and saved in full.

        Raises:
            UserError: the settings fit no layer of this network.
        """


class NoPeft(Peft, name="none"):
    """Train every weight."""

    def apply(self, network: PreTrainedModel, task_type: str | None, new: list[str]) -> PreTrainedModel:
        """The network itself; an adapter it came with is merged into it first."""
        if hasattr(network, "merge_and_unload"):
            network = network.merge_and_unload()
        for parameter in network.parameters():
            parameter.requires_grad_(parameter.is_floating_point())
        return network


class Lora(Peft, name="lora"):
    """Train low-rank updates of chosen layers (Hu et al., 2021, arXiv:2106.09685)."""

    rank: PositiveInt
    """Width of the update; the number of trained weights grows with it."""

    alpha: PositiveInt
    """Scale of the update: it is multiplied by alpha / rank."""

    dropout: Annotated[float, Field(ge=0, lt=1)]
    """Share of the update's inputs that is dropped in training."""

    target_modules: str | list[str]
    """Layers to adapt: ``all-linear``, a regular expression over full names, or a list of name endings."""

    bias: Literal["none", "all", "lora_only"]
    """Which bias weights are trained along."""

    def apply(self, network: PreTrainedModel, task_type: str | None, new: list[str]) -> PreTrainedModel:
        """A ``peft.PeftModel`` around the network; an adapter that it came with is trained further."""
        from peft import LoraConfig, get_peft_model

        if hasattr(network, "peft_config"):
            return self._further(network)
        heads = _heads(network, task_type, new) if self.target_modules == "all-linear" else []
        config = LoraConfig(
            task_type=task_type,
            r=self.rank,
            lora_alpha=self.alpha,
            lora_dropout=self.dropout,
            target_modules=self.target_modules,
            exclude_modules=heads or None,
            bias=self.bias,
            modules_to_save=sorted({name.rpartition(".")[0] for name in new}) or None,
        )
        try:
            adapted = get_peft_model(network, config)
        except ValueError as error:
            if "not found in the base model" not in str(error) and "No modules were targeted" not in str(error):
                raise UserError(f"peft=lora: {' '.join(str(error).split())}") from error
            layers = _linear_layers(network)
            first = self.target_modules if isinstance(self.target_modules, str) else self.target_modules[0]
            raise UserError(
                f"peft.target_modules={self.target_modules}: no layer of this model matches.{nearest(first, layers)} "
                f"Its linear layers: {', '.join(layers)}; or all-linear"
            ) from error
        return _trained_in_float32(adapted)

    def _further(self, network: PreTrainedModel) -> PreTrainedModel:
        """The adapter that the network came with, if it is one of these settings."""
        there = network.active_peft_config
        if there.peft_type != "LORA":
            raise UserError(f"peft=lora: model.path has an adapter of type {there.peft_type}; peft=none merges it")
        saved = {"rank": there.r, "alpha": there.lora_alpha, "dropout": there.lora_dropout, "bias": there.bias}
        if isinstance(self.target_modules, list):
            saved["target_modules"] = sorted(there.target_modules)
        for name, value in saved.items():
            wanted = getattr(self, name)
            if value != (sorted(wanted) if name == "target_modules" else wanted):
                raise UserError(
                    f"peft.{name}={wanted}: the adapter in model.path has {value}; "
                    "give the same to train it further, or peft=none to merge it and train all weights"
                )
        return _trained_in_float32(network)


def _heads(network: PreTrainedModel, task_type: str | None, new: list[str]) -> list[str]:
    """Linear layers that peft trains in full for a task, and that ``all-linear`` would adapt beside that, and fail."""
    names = {"QUESTION_ANS": ["qa_outputs"], "TOKEN_CLS": ["classifier", "score"]}.get(task_type or "", [])
    saved = [*names, *(name.rpartition(".")[0] for name in new)]
    layers = [name for name, _ in network.named_modules()]
    return sorted({head for head in saved if any(f".{name}".endswith(f".{head}") for name in layers)})


def _trained_in_float32(network: PreTrainedModel) -> PreTrainedModel:
    """The network with its trainable weights in float32: updates of a few 1e-5 vanish in bfloat16's 8 bits."""
    for parameter in network.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.float()
    return network


def count(network: nn.Module) -> tuple[int, int]:
    """Numbers of trainable and of all weights; of those in 4 bits, two in a byte, each one."""
    shapes = [getattr(getattr(each, "quant_state", None), "shape", each.shape) for each in network.parameters()]
    sizes = [(shape.numel(), each.requires_grad) for shape, each in zip(shapes, network.parameters(), strict=True)]
    return sum(size for size, trained in sizes if trained), sum(size for size, _ in sizes)


def _linear_layers(network: nn.Module) -> list[str]:
    from torch import nn

    return sorted({name.rpartition(".")[2] for name, part in network.named_modules() if isinstance(part, nn.Linear)})
