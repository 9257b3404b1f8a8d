"""Initialisations of LoRA that look at the weights, or at what the layers see; what is saved is an ordinary LoRA."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from xp.adapter import NEW
from xp.error import UserError
from xp.process import world

if TYPE_CHECKING:
    from xp.peft.base import Purpose

FOLDER = "initial"
"""Folder of a run in which an adapter is kept as it began, where its base gave it something; until it is saved."""


def takes_from_base(word: Any) -> bool:
    """Whether an initialisation moves a part of the base's weights into the adapter."""
    return str(word).startswith(("pissa", "olora"))


def before(word: Any) -> Any:
    """What peft is told at first; LoftQ is done to an adapter that is there."""
    return True if word == "loftq" else word


def finish(network: Any, word: Any, purpose: Purpose) -> None:
    """Do what of an initialisation peft leaves to its caller.

    Args:
        network: with its new adapter.
        word: ``init_lora_weights``.
        purpose: what it is for.

    Raises:
        UserError: it needs what this network or these rows do not have.
    """
    if takes_from_base(word):
        if purpose.folder is not None and world.rank() == 0:
            network.save_pretrained(purpose.folder / FOLDER)
        purpose.say(
            f"{word}: a part of the base is in the adapter while it is trained; what is saved is an ordinary LoRA of "
            "twice the rank, for the base as it was"
        )
    elif word == "eva":
        _look(network, purpose)
    elif word == "loftq":
        _make_up(network, purpose)


def _look(network: Any, purpose: Purpose) -> None:
    """EVA (Paischer et al., 2024, arXiv:2410.07170): begin with the main directions of what the layers see."""
    from peft import initialize_lora_eva_weights

    batches = list(purpose.batches())
    if not batches or "input_ids" not in batches[0]:
        raise UserError("peft.options.init_lora_weights=eva: it looks at train rows of tokens; this task has none here")
    config = network.active_peft_config
    if network.config.is_encoder_decoder:
        raise UserError("peft.options.init_lora_weights=eva: peft has it for networks of one part; take another one")
    least = round(max([config.r, *config.rank_pattern.values()]) * config.eva_config.rho)
    # peft would go on looking for more of those that have fewer, for ever.
    enough = [batch for batch in batches if int(batch["attention_mask"].sum()) >= least]
    seen = [{name: batch[name] for name in ("input_ids", "attention_mask")} for batch in enough]
    if not seen:
        raise UserError(
            f"peft.options.init_lora_weights=eva: it looks at {least} tokens at a time, and 16 train rows have fewer; "
            "give a lower peft.rank"
        )
    there = _adapted(network)
    initialize_lora_eva_weights(network, seen, gather_distributed_inputs=False, show_progress_bar=False)
    if (left := _adapted(network)) != there:  # From 20 layers on, peft names those that it left no rank as the others.
        config.target_modules = left
    rows = sum(len(each["input_ids"]) for each in seen)
    purpose.say(f"eva: the adapter begins with what the layers see of {rows} rows")


def _adapted(network: Any) -> set[str]:
    """The full names of the layers that LoRA is on."""
    from peft.tuners.lora import LoraLayer

    return {name for name, part in network.get_base_model().named_modules() if isinstance(part, LoraLayer)}


def _make_up(network: Any, purpose: Purpose) -> None:
    """LoftQ (Li et al., 2023, arXiv:2310.08659): begin with what the weights have lost in 4 bits."""
    import torch
    from peft import replace_lora_weights_loftq

    base = network.get_base_model()
    if not getattr(base, "is_loaded_in_4bit", False):
        raise UserError(
            "peft.options.init_lora_weights=loftq: it makes up for what weights lose in 4 bits, and these are whole; "
            "give model.quantization=nf4, or another initialisation"
        )
    if not torch.cuda.is_available():
        raise UserError(
            "peft.options.init_lora_weights=loftq: peft computes it on a GPU, and there is none; take another one"
        )
    path = str(base.name_or_path)
    replace_lora_weights_loftq(network, path if Path(path).is_dir() else None)
    for layer in network.modules():  # peft leaves out that a layer multiplies its update by its scale.
        if NEW in getattr(layer, "lora_B", {}):
            layer.lora_B[NEW].weight.data /= layer.scaling[NEW]
    purpose.say("loftq: the adapter begins with what the weights have lost in 4 bits")
