"""Quantization: linear layers held in 8 or 4 bits by bitsandbytes, and what that leaves as it was."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Literal

from xp.error import UserError, nearest

if TYPE_CHECKING:
    import torch
    from torch import nn
    from transformers import BitsAndBytesConfig, PreTrainedModel

Quantization = Literal["int8", "nf4", "fp4"]

OPTIONS: dict[str, tuple[tuple[str, ...], str]] = {
    "bnb_4bit_compute_dtype": (("nf4", "fp4"), "float32, bfloat16 or float16"),
    "bnb_4bit_quant_storage": (("nf4", "fp4"), "uint8, int8, float16, bfloat16, float32 or float64"),
    "bnb_4bit_use_double_quant": (("nf4", "fp4"), "true or false"),
    "llm_int8_enable_fp32_cpu_offload": (("int8", "nf4", "fp4"), "true or false"),
    "llm_int8_has_fp16_weight": (("int8",), "true or false"),
    "llm_int8_skip_modules": (("int8", "nf4", "fp4"), "a list of names of modules"),
    "llm_int8_threshold": (("int8",), "a number of at least 0"),
}
"""The fields of transformers' ``BitsAndBytesConfig`` that ``model.quantization`` leaves open: for which, and what."""

DECIDED = ("load_in_8bit", "load_in_4bit", "bnb_4bit_quant_type")
"""Those that it decides."""


def check(word: str | None, options: dict[str, Any], device_map: Any) -> None:
    """Refuse options that ``model.quantization`` does not have.

    Raises:
        ValueError: an unknown option, one of another quantization, or a value that it cannot have.
    """
    for name, value in options.items():
        key = f"quantization_options.{name}"
        if name in DECIDED:
            raise ValueError(f"{key}: model.quantization says that; give int8, nf4 or fp4")
        if name not in OPTIONS:
            raise ValueError(f"{key}: bitsandbytes has no such option.{nearest(name, OPTIONS)}")
        words, values = OPTIONS[name]
        if word is None:
            raise ValueError(f"{key}: nothing is quantized; give model.quantization={' or '.join(words)}")
        if word not in words:
            fitting = [each for each, (whose, _) in OPTIONS.items() if word in whose]
            raise ValueError(f"{key}: an option of {' and '.join(words)}; {word} has: {', '.join(fitting)}")
        if not _fits(value, values):
            words = () if values.startswith(("a ", "true")) else tuple(values.replace(" or ", ", ").split(", "))
            hint = nearest(value, words) if isinstance(value, str) else ""
            raise ValueError(f"{key}={value}: it must be {values}.{hint}")
    if options.get("llm_int8_enable_fp32_cpu_offload") and not isinstance(device_map, dict):
        raise ValueError(
            "quantization_options.llm_int8_enable_fp32_cpu_offload: it needs to be told what is not on a GPU; give "
            "model.device_map={<module>: <device>, ...}"
        )


def check_trainable(model: Any, command: str, in_full: bool, save_dtype: str | None) -> None:
    """Refuse to train weights that cannot be trained as a model is to hold them.

    Args:
        model: a `Model`.
        command: what the model is for; only ``train`` is refused anything.
        in_full: whether all of its weights are trained.
        save_dtype: ``training.save_dtype``.

    Raises:
        ValueError: quantized weights in full, or weights that are spread over devices.
    """
    if command != "train":
        return
    if getattr(model, "device_map", None) is not None:
        raise ValueError(
            "model.device_map: only for models that are used as they are; to train one that is too large for a "
            "device, use peft=qlora, training.gradient_checkpointing=true, or a smaller training.micro_batch_size"
        )
    word = getattr(model, "quantization", None)
    if word is not None and in_full:
        raise ValueError(
            f"model.quantization={word}: quantized weights cannot be trained in full; train an adapter on them "
            "(peft=qlora), or set it to null"
        )
    if word is not None and save_dtype is not None:
        raise ValueError(
            f"training.save_dtype={save_dtype}: an adapter on quantized weights is saved as it was trained; "
            "set it to null"
        )


def _fits(value: Any, values: str) -> bool:
    if values.startswith("true"):
        return isinstance(value, bool)
    if values.startswith("a list"):
        return isinstance(value, list) and all(isinstance(each, str) and each for each in value)
    if values.startswith("a number"):
        return isinstance(value, (int, float)) and not isinstance(value, bool) and 0 <= value < math.inf
    return value in values.replace(" or ", ", ").split(", ")


def bits_and_bytes(word: str, options: dict[str, Any], compute: torch.dtype, skip: list[str]) -> BitsAndBytesConfig:
    """The config that transformers quantizes by.

    Args:
        word: ``model.quantization``.
        options: ``model.quantization_options``.
        compute: type that 4-bit layers compute in, where the options do not say.
        skip: names of layers that stay as they are, beside those of the options.
    """
    from transformers import BitsAndBytesConfig

    given = dict(options)
    skipped = [*skip, *given.pop("llm_int8_skip_modules", [])]
    if "llm_int8_threshold" in given:
        given["llm_int8_threshold"] = float(given["llm_int8_threshold"])
    kind = {"load_in_8bit": True} if word == "int8" else {"load_in_4bit": True, "bnb_4bit_quant_type": word}
    if word != "int8":
        given = {"bnb_4bit_compute_dtype": compute} | given
    return BitsAndBytesConfig(**kind, **given, llm_int8_skip_modules=skipped)


def kept_whole(network: PreTrainedModel, kept: tuple[str, ...], options: dict[str, Any]) -> list[str]:
    """Names of the layers that are not quantized: heads, output embeddings, and what is to be trained in full.

    transformers' own choice is the last module alone, which it overlooks where that has a bias, as BERT's classifier.

    Args:
        network: on any device, the meta device too.
        kept: names, or ends of names, of modules that an adapter trains in full.
        options: ``model.quantization_options``.

    Raises:
        UserError: ``llm_int8_skip_modules`` names a module that there is not, or nothing would be quantized.
    """
    from transformers.quantizers.base import get_keys_to_not_convert
    from transformers.quantizers.quantizers_utils import should_convert_module

    prefix = f"{network.base_model_prefix}."
    names = linear(network)
    own = {key.removesuffix(".bias") for key in get_keys_to_not_convert(network)}
    wanted = options.get("llm_int8_skip_modules", [])
    modules = [name for name, _ in network.named_modules() if name]
    for pattern in wanted:
        if all(should_convert_module(name, [pattern]) for name in modules):
            ends = {name.rpartition(".")[2] for name in names}
            raise UserError(
                f"model.quantization_options.llm_int8_skip_modules: this model has no module {pattern!r}."
                f"{nearest(pattern, ends)}"
            )
    whole = [
        name
        for name in names
        if not should_convert_module(name, [*own, *kept])
        or (hasattr(network, network.base_model_prefix) and not name.startswith(prefix))
    ]
    if set(names) <= set(whole):
        raise UserError("model.quantization: this model has no linear layer but its head; set it to null")
    if all(name in whole or not should_convert_module(name, wanted) for name in names):
        raise UserError(
            "model.quantization_options.llm_int8_skip_modules: it skips all linear layers, so that none is quantized; "
            "leave some out, or set model.quantization=null"
        )
    return whole


def linear(network: nn.Module) -> list[str]:
    """Names of a network's plain linear layers: those that bitsandbytes could quantize, or that it left."""
    from torch import nn
    from transformers.pytorch_utils import Conv1D

    return [name for name, part in network.named_modules() if type(part) is nn.Linear or isinstance(part, Conv1D)]


def quantized(network: nn.Module) -> list[Any]:
    """The layers of a network that bitsandbytes holds."""
    if not getattr(network, "is_quantized", False) and getattr(network, "quantization_method", None) is None:
        return []
    from bitsandbytes.nn import Linear4bit, Linear8bitLt

    return [part for part in network.modules() if isinstance(part, (Linear4bit, Linear8bitLt))]


def layers_of(network: nn.Module, weights: list[str]) -> list[str]:
    """Names of the quantized layers that these weights belong to."""
    held = {id(layer) for layer in quantized(network)}
    names = {name for name, part in network.named_modules() if id(part) in held}
    return sorted({weight.rpartition(".")[0] for weight in weights} & names)


def settle(network: nn.Module, computes_in: torch.dtype) -> None:
    """Make quantized layers give the same numbers every time, and keep them as they are.

    bitsandbytes 0.50 repacks 4-bit layers on CPUs with AVX512-BF16 at the first evaluation: it rounds their scales to
    bfloat16, computes in bfloat16 whatever was asked for, refuses widths that are no multiple of 32, and passes no
    gradient from then on. Its layers also round their own biases at the first call; here that is done before it.

    Args:
        network: just loaded.
        computes_in: what ``precision`` says.
    """
    for layer in quantized(network):
        layer.support_avx512bf16_for_cpu = False
        if type(layer).__name__ == "Linear8bitLt":
            layer.register_forward_pre_hook(_with_scales)
        if layer.bias is not None:
            compute = getattr(layer, "compute_dtype", None)
            layer.bias.data = layer.bias.data.to(computes_in if compute is None else compute)


def _with_scales(layer: Any, inputs: Any) -> None:
    """Gives an int8 weight its scales back: peft's DoRA puts a copy of it in its place, which has none."""
    weight = layer.weight
    if getattr(weight, "CB", None) is not None and weight.SCB is None:
        weight.SCB = layer.state.SCB


def check_trained(network: nn.Module, computes_in: torch.dtype) -> None:
    """Refuse to train a bias that its layer would round at each call.

    Args:
        network: its weights to train marked.
        computes_in: what ``precision`` says.

    Raises:
        UserError: such a layer's name.
    """
    import torch

    for layer in quantized(network):
        compute = getattr(layer, "compute_dtype", None) or computes_in
        if layer.bias is not None and layer.bias.requires_grad and compute != torch.float32:
            name = next(name for name, part in network.named_modules() if part is layer)
            raise UserError(
                f"peft.bias: bitsandbytes rounds the bias of {name} to {str(compute).removeprefix('torch.')} at each "
                "step; use peft.bias=none, or precision=fp32"
            )


def nothing_quantized(word: str) -> UserError:
    """That ``model.device_map`` has left nothing that could be quantized."""
    return UserError(
        f"model.quantization={word}: no layer was quantized, for none is on a GPU; give another model.device_map"
    )
