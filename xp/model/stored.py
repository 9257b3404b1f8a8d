"""Stored: models that are quantized on disk, and what is saved beside an adapter of one that is so in memory."""

from __future__ import annotations

from copy import deepcopy
from typing import TYPE_CHECKING, Any

from xp.error import UserError, nearest

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedModel


def method(config: PretrainedConfig) -> str | None:
    """How a model on disk is quantized: int8, nf4, fp4, or another method's name; None where it is not."""
    given = getattr(config, "quantization_config", None)
    if given is None:
        return None
    values: dict[str, Any] = given if isinstance(given, dict) else given.to_dict()
    if values.get("load_in_8bit") or values.get("_load_in_8bit"):
        return "int8"
    if values.get("load_in_4bit") or values.get("_load_in_4bit"):
        return str(values.get("bnb_4bit_quant_type", "fp4"))
    return str(getattr(values.get("quant_method"), "value", values.get("quant_method")))


def check(path: str, stored: str | None, word: str | None, options: dict[str, Any], in_full: bool) -> None:
    """Refuse what cannot be asked of a model that is stored quantized.

    Args:
        path: ``model.path``.
        stored: what `method` says of it.
        word: ``model.quantization``.
        options: ``model.quantization_options``.
        in_full: whether all weights are to be trained.

    Raises:
        UserError: a method that transformers does not know, another one than is asked for, or training in full.
    """
    if stored is None:
        return
    from transformers.quantizers.auto import AUTO_QUANTIZER_MAPPING

    if stored not in ("int8", "nf4", "fp4") and stored not in AUTO_QUANTIZER_MAPPING:
        raise UserError(
            f"model.path={path}: its config.json says quant_method={stored}, which transformers does not know."
            f"{nearest(stored, AUTO_QUANTIZER_MAPPING)}"
        )
    if in_full:
        raise UserError(
            f"model.path={path}: it is stored quantized ({stored}), and such weights cannot be trained in full; "
            "use peft=lora"
        )
    if word is not None and (word != stored or options):
        raise UserError(
            f"model.quantization={word}: {path} is stored quantized already ({stored}); set it to null, and its "
            "options to {}"
        )


def check_trains(path: str, network: PreTrainedModel) -> None:
    """Refuse to train an adapter on a network whose quantization passes no gradient.

    Raises:
        UserError: such a network.
    """
    quantizer = getattr(network, "hf_quantizer", None)
    if quantizer is not None and not quantizer.is_trainable:
        raise UserError(
            f"model.path={path}: adapters cannot be trained on {method(network.config)}; use a model that is not "
            "quantized, with peft=qlora"
        )


def plain_config(network: PreTrainedModel) -> PretrainedConfig:
    """The network's config as it is to be saved beside an adapter: that of its base as the base is stored.

    transformers notes in it how a network was quantized in memory, and would look for such weights on disk.
    """
    config = deepcopy(network.config)
    quantizer = getattr(network, "hf_quantizer", None)
    if quantizer is not None and not quantizer.pre_quantized:
        del config.quantization_config
    return config
