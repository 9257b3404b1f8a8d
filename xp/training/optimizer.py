"""Optimizer: update rules by name, those of torch and transformers, and bitsandbytes' with states in 8 bits."""

from __future__ import annotations

from inspect import signature
from typing import TYPE_CHECKING, Any, Literal

from xp.error import UserError, nearest

if TYPE_CHECKING:
    import torch
    from torch import nn

Optimizer = Literal[
    "adamw",
    "adafactor",
    "sgd",
    "adamw_8bit",
    "paged_adamw",
    "paged_adamw_8bit",
    "lion",
    "lion_8bit",
    "paged_lion",
    "paged_lion_8bit",
    "ademamix",
    "ademamix_8bit",
    "paged_ademamix",
    "paged_ademamix_8bit",
    "adagrad_8bit",
    "rmsprop_8bit",
    "sgd_8bit",
]

BITSANDBYTES = {
    "adamw_8bit": "AdamW8bit",
    "paged_adamw": "PagedAdamW",
    "paged_adamw_8bit": "PagedAdamW8bit",
    "lion": "Lion",
    "lion_8bit": "Lion8bit",
    "paged_lion": "PagedLion",
    "paged_lion_8bit": "PagedLion8bit",
    "ademamix": "AdEMAMix",
    "ademamix_8bit": "AdEMAMix8bit",
    "paged_ademamix": "PagedAdEMAMix",
    "paged_ademamix_8bit": "PagedAdEMAMix8bit",
    "adagrad_8bit": "Adagrad8bit",
    "rmsprop_8bit": "RMSprop8bit",
    "sgd_8bit": "SGD8bit",
}
"""bitsandbytes' classes. Paged: states move to the memory of the host where that of the GPU does not suffice."""

DECIDED = {"params", "lr", "weight_decay", "args", "optim_bits", "is_paged"}
"""Arguments that the recipe, or the optimizer's name, decides."""

WRAPPED = "__bnb_optimizer_quant_state__"
"""Where bitsandbytes' ``state_dict`` hides the tensors of a weight's state from FSDP."""


def check_device(name: str, device: torch.device) -> None:
    """Refuse an optimizer that has no code for a device.

    Raises:
        UserError: naming the device and the nearest optimizer that it has.
    """
    if name not in BITSANDBYTES:
        return
    if name.startswith("paged_") and device.type not in ("cuda", "xpu"):
        other = "adamw" if name == "paged_adamw" else name.removeprefix("paged_")
        raise UserError(
            f"training.optimizer={name}: states are paged between a GPU and its host, and this is "
            f"device={device.type}; use {other}"
        )
    import bitsandbytes  # noqa: F401
    from torch._C import _dispatch_has_kernel_for_dispatch_key as has_kernel

    operator = f"bitsandbytes::optimizer_update_{'8bit_blockwise' if name.endswith('_8bit') else '32bit'}"
    keys = (device.type.upper(), "CompositeExplicitAutograd", "CompositeImplicitAutograd")
    if not any(has_kernel(operator, key) for key in keys):
        raise UserError(
            f"training.optimizer={name}: bitsandbytes has no code of it for device={device.type}; use "
            f"{'sgd' if name.startswith('sgd') else 'adamw'}"
        )


def make(
    name: str, options: dict[str, Any], network: nn.Module, rate: float, decay: float, device: torch.device
) -> torch.optim.Optimizer:
    """The optimizer over a network's trainable weights, decay on matrices and embeddings only.

    Embeddings have states in 32 bits all the same, as bitsandbytes advises: few of their rows have a gradient
    (Dettmers et al., 2022, arXiv:2110.02861).

    Raises:
        UserError: an option that this optimizer does not have.
    """
    import torch
    from transformers import Adafactor

    trained = [parameter for parameter in network.parameters() if parameter.requires_grad]
    groups = [
        {"params": [p for p in trained if p.ndim >= 2], "weight_decay": decay},
        {"params": [p for p in trained if p.ndim < 2], "weight_decay": 0.0},
    ]
    groups = [group for group in groups if group["params"]]
    fused = {"fused": device.type in ("cuda", "cpu", "mps")}
    kinds: dict[str, tuple[Any, dict[str, Any]]] = {
        "adamw": (torch.optim.AdamW, fused),
        "sgd": (torch.optim.SGD, fused),
        "adafactor": (Adafactor, {"scale_parameter": False, "relative_step": False}),
    }
    if name in BITSANDBYTES:
        import bitsandbytes

        kinds[name] = getattr(bitsandbytes.optim, BITSANDBYTES[name]), {}
    kind, defaults = kinds[name]
    check_options("optimizer", name, kind, options, DECIDED)
    try:
        made: torch.optim.Optimizer = kind(groups, **{"lr": rate} | defaults | options)
    except (ValueError, TypeError, NotImplementedError) as error:
        raise UserError(f"training.optimizer_options: {name} refuses them: {error}") from error
    if name in BITSANDBYTES:
        _own_manager(made, network)
    return made


def _own_manager(optimizer: Any, network: nn.Module) -> None:
    """Give bitsandbytes' optimizer settings of its own for embeddings.

    Theirs are one registry for the whole process, by ``id``: what one run says may strike weights of a later one.
    """
    from bitsandbytes.optim import GlobalOptimManager
    from torch import nn

    manager = GlobalOptimManager.__new__(GlobalOptimManager)
    manager.initialize()
    tables = {id(part.weight) for part in network.modules() if isinstance(part, nn.Embedding)}
    for at, group in enumerate(optimizer.param_groups):
        for number, parameter in enumerate(group["params"]):
            if id(parameter) in tables:
                manager.index2config[at, number] = {"optim_bits": 32}
    optimizer.mng = manager


def state(optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    """An optimizer's ``state_dict`` with the state of each weight in one flat mapping."""
    found = optimizer.state_dict()
    flat = {number: {**values, **values.get(WRAPPED, {})} for number, values in found["state"].items()}
    for values in flat.values():
        values.pop(WRAPPED, None)
    return {"state": flat, "param_groups": found["param_groups"]}


def take_state(optimizer: Any, saved: dict[str, Any]) -> None:
    """Give an optimizer what `state` has taken from one like it; paged states are paged again."""
    import torch

    optimizer.load_state_dict(saved)
    own = getattr(optimizer, "optimizer", optimizer)  # accelerate's wrapper holds it.
    if not getattr(own, "is_paged", False):
        return
    for parameter, values in own.state.items():
        for name in ("state1", "state2"):
            value = values.get(name)
            if value is not None and value.shape == parameter.shape:
                paged = own.get_state_buffer(parameter, dtype=value.dtype)
                paged.copy_(value)
                values[name] = paged
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def check_options(group: str, name: str, function: Any, options: dict[str, Any], taken: set[str]) -> None:
    """Refuse options that a function does not take.

    Raises:
        UserError: naming the nearest one that it does.
    """
    known = set(signature(function).parameters) - taken
    for option in options:
        if option not in known:
            raise UserError(f"training.{group}_options.{option}: {name} has no such option.{nearest(option, known)}")
