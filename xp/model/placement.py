"""Placement: where the parts of a network are: on one device, or spread over several, the memory and the disk."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeVar

from xp.error import UserError, nearest
from xp.hardware import home

if TYPE_CHECKING:
    import torch
    from torch import nn

MAPS = ("auto", "balanced", "balanced_low_0", "sequential")
"""Ways in which accelerate spreads a network by itself."""

DEVICE = re.compile(r"cpu|disk|(cuda:)?\d+")
MEMORY = re.compile(r"\d+(\.\d+)?([KMGT]i?B)?", re.IGNORECASE)

Network = TypeVar("Network", bound="nn.Module")


def check(
    device_map: str | dict[str, str | int] | None,
    max_memory: dict[str | int, str | int] | None,
    offload_folder: str | None,
) -> None:
    """Refuse a device map that says nothing.

    Raises:
        ValueError: an unknown word, device or size.
    """
    if isinstance(device_map, str) and device_map not in MAPS:
        raise ValueError(
            f"device_map={device_map}: it must be null, {', '.join(MAPS)}, or a mapping of modules to devices."
            f"{nearest(device_map, MAPS)}"
        )
    if isinstance(device_map, dict):
        if not device_map:
            raise ValueError("device_map={}: it names no module; give auto, or null")
        for module, device in device_map.items():
            if not DEVICE.fullmatch(str(device)):
                raise ValueError(f"device_map.{module}={device}: it must be cpu, disk, or the number of a GPU")
    if offload_folder is not None and device_map is None:
        raise ValueError(f"offload_folder={offload_folder}: nothing is put on disk; give model.device_map=auto")
    if max_memory is None:
        return
    if not isinstance(device_map, str):
        raise ValueError("max_memory: it bounds what is spread by itself; give model.device_map=auto")
    for device, memory in max_memory.items():
        if not DEVICE.fullmatch(str(device)) or device == "disk":
            raise ValueError(f"max_memory.{device}: it must be cpu, or the number of a GPU")
        if not MEMORY.fullmatch(str(memory)):
            raise ValueError(f"max_memory.{device}={memory}: it must be a size, for example 10GiB")


def arguments(
    network: nn.Module,
    device_map: str | dict[str, str | int],
    max_memory: dict[str | int, str | int] | None,
    offload_folder: str | None,
) -> dict[str, Any]:
    """What ``from_pretrained`` is told.

    Args:
        network: on the meta device, for its names.

    Raises:
        UserError: a mapping names a module that there is not, or leaves one out, or has all on one device, or the
            same weights in two places, or a GPU that there is not.
    """
    if isinstance(device_map, dict) and "" not in device_map:
        names = [name for name, _ in network.named_modules() if name]
        for module in device_map:
            if module not in names:
                raise UserError(f"model.device_map.{module}: this model has no such module.{nearest(module, names)}")
        for name, _ in network.named_parameters():
            if not any(name.startswith(f"{module}.") for module in device_map):
                raise UserError(f"model.device_map: it says nothing of {name.rpartition('.')[0]}; name all modules")
    if isinstance(device_map, dict) and len(places := {*numbered(device_map).values()}) == 1 and places != {0}:
        one = next(iter(device_map.values()))
        raise UserError(f"model.device_map: all is on {one}; name a second device, or set null and device=cpu or cuda")
    if isinstance(device_map, dict):
        _check_tied(network, device_map)
    spread = device_map if isinstance(device_map, str) else numbered(device_map)
    bounds = None if max_memory is None else numbered(max_memory)
    _check_there("max_memory", bounds or {})
    _check_there("device_map", () if isinstance(spread, str) else spread.values())
    return {"device_map": spread, "max_memory": bounds, "offload_folder": offload_folder}


def _check_there(key: str, places: Iterable[str | int]) -> None:
    """Refuse GPUs that this machine has not."""
    import torch

    there = torch.cuda.device_count()
    for place in places:
        if isinstance(place, int) and place >= there:
            seen = f"the last one is {there - 1}" if there else "there is none; leave it out"
            raise UserError(f"model.{key}: torch sees no GPU {place} here: {seen}")


def _check_tied(network: nn.Module, device_map: dict[str, str | int]) -> None:
    """Refuse weights of two modules that are the same ones, on the disk for one of them: accelerate finds but one."""

    def holder(weight: str) -> str:
        within = [module for module in device_map if not module or weight.startswith(f"{module}.")]
        return max(within, key=len, default="")

    tied: dict[str, str] = getattr(network, "all_tied_weights_keys", None) or {}
    for weight, source in tied.items():
        module, other = holder(weight), holder(source)
        here, there = device_map.get(module), device_map.get(other)
        if here is not None and here != there and "disk" in (here, there):
            raise UserError(
                f"model.device_map.{module}={here}: its weights are those of {source.rpartition('.')[0]}, which is on "
                f"{there}; put both in the same place"
            )


def check_adaptable(network: nn.Module, path: str, base: str) -> None:
    """Refuse to put an adapter on a network whose weights are not where it computes: peft would lose its own there.

    Raises:
        UserError: such a network.
    """
    if any(parameter.device.type == "meta" for parameter in network.parameters()):
        raise UserError(
            f"model.path={path}: an adapter cannot be put on {base} while parts of that are on the disk or the host; "
            "merge the two and give what comes of it, or raise model.max_memory, or use model.quantization=nf4"
        )


def numbered(mapping: dict[Any, Any]) -> dict[str | int, Any]:
    """A mapping of devices, or to devices, with GPUs as the numbers that accelerate knows them by."""

    def own(name: Any) -> Any:
        return int(name.removeprefix("cuda:")) if isinstance(name, str) and re.fullmatch(r"(cuda:)?\d+", name) else name

    return {own(name): own(value) for name, value in mapping.items()}


def spread(network: nn.Module) -> bool:
    """Whether accelerate moves a network's parts, so that nobody else may."""
    return getattr(network, "hf_device_map", None) is not None


def place(network: Network, device: torch.device) -> Network:
    """The network on a device; where it is spread, it stays where its parts are."""
    return network if spread(network) else network.to(device)


@contextmanager
def shown_whole(network: Any) -> Iterator[torch.device | None]:
    """For a pipeline, which takes the first device of the map for its own, though it be the disk.

    Gives the device to make it with: None where the network is spread.
    """
    if not spread(network):
        yield home(network)
        return
    there = network.hf_device_map
    network.hf_device_map = {"": home(network)}
    try:
        yield None
    finally:
        network.hf_device_map = there


def told(network: Any) -> str:
    """Where a spread network's parts are, in one line."""
    from collections import Counter

    counts = Counter(
        f"cuda:{place}" if isinstance(place, int) else str(place) for place in network.hf_device_map.values()
    )
    return "spread: " + ", ".join(f"{number} parts on {place}" for place, number in counts.items())
