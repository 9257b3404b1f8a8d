"""Adapters in folders put on a network, the first as the network's only one, others beside it."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from xp.adapter import experts
from xp.adapter.folder import Folder, kind_of
from xp.adapter.surroundings import surround
from xp.error import UserError
from xp.unpickled import Pickled, unpickled

if TYPE_CHECKING:
    from transformers import PreTrainedModel

HARMLESS = re.compile(
    "fan_in_fan_out is set to|`is_gradient_checkpointing` is deprecated|Failed to load the CUDA extension"
    "|Unsupported layer type|Detected that the base layer has no bias term|Sparse invariant checks"
    "|lora with eva initialization|The PEFT config's `base_model_name_or_path` was renamed"
    "|Adapter name '[^']*' should not be contained in the prefix|The following rank_pattern keys did not match"
)
"""Beginnings of peft's warnings that tell a user nothing: what it has set right itself, or does on every such layer."""

CONVERT = (
    "its weights are a pickle, which can hold code, and xp reads none; where you trust it, convert it once, in its "
    "folder: python -c \"import torch, safetensors.torch as s; s.save_file(torch.load('adapter_model.bin', 'cpu', "
    "weights_only=True), 'adapter_model.safetensors')\""
)
"""What to do with an adapter of an older peft."""

RESTORED = ("PROMPT_TUNING", "PREFIX_TUNING", "CARTRIDGE")
"""Methods of virtual tokens whose folder holds what was trained, and not only what came of it."""

SHARED = re.compile("vblora_vector_bank|prompt_encoder|unilora_theta_d|trainable_tokens_delta")
"""Weights of an adapter that several layers share, which are in its folder once, or not at all."""


def put_on(
    network: PreTrainedModel, folder: Folder, trainable: bool, notes: list[str], name: str = "default"
) -> PreTrainedModel:
    """The network with an adapter of this name.

    Args:
        network: its base.
        folder: where it is.
        trainable: whether it will be trained further.
        notes: gets what peft says of it.
        name: what it is called there.

    Raises:
        UserError: the network is not its base, or it cannot be trained further.
    """
    from peft import PeftModel

    virtual = "num_virtual_tokens" in folder.values
    config = None
    if folder.kind == experts.KIND:
        experts.check_network(network, folder.key)
        config = experts.config(folder)
        notes.append(f"xlora: {len(config.adapters)} experts; peft has it write without a cache")
    with explained(folder, network, notes):
        adapted = PeftModel.from_pretrained(
            network, folder.path, name, trainable and not virtual, config, torch_device=str(network.device)
        )
    if trainable and virtual:
        _trainable(adapted, folder)
    if folder.kind == experts.KIND:
        experts.restore(adapted, folder)
    return surround(adapted)


def put_on_another(network: Any, folder: Folder, name: str, notes: list[str]) -> None:
    """Put one more adapter on a network that has one, frozen and not active.

    Raises:
        UserError: it is of another method, or for another base.
    """
    first, other = next(iter(network.peft_config.items()))
    if kind_of(other) != folder.kind:
        raise UserError(
            f"{folder.key}: this is {folder.kind}, and {first} is {kind_of(other)}; peft has adapters of one method "
            "beside each other: use them one at a time, or command=merge on one and the other on what it saves"
        )
    with explained(folder, network, notes):
        found = network.load_adapter(folder.path, name, torch_device=str(network.device))
        lost = [each for each in found.missing_keys if name in each.split(".")[-2:] and not SHARED.search(each)]
        if lost:  # Of the first adapter, peft says it itself.
            warnings.warn(f"Found missing adapter keys while loading the checkpoint: {lost}.", stacklevel=1)


def _trainable(network: Any, folder: Folder) -> None:
    """Let virtual tokens be trained further, which peft does by itself for no such adapter."""
    from peft.utils import ModulesToSaveWrapper

    if folder.kind not in RESTORED or folder.values.get("prefix_projection"):
        raise UserError(
            f"{folder.key}: an adapter of {folder.kind} cannot be trained further: its folder has the virtual tokens, "
            "and not the network that made them; start from its base"
        )
    network.active_peft_config.inference_mode = False
    network.prompt_encoder.requires_grad_(True)
    for part in network.modules():
        if isinstance(part, ModulesToSaveWrapper):
            part.modules_to_save.requires_grad_(True)


@contextmanager
def explained(folder: Folder, network: Any, notes: list[str]) -> Iterator[None]:
    """Turns what peft raises, or warns of, on an adapter that does not fit into a `UserError`; keeps other warnings."""
    base = getattr(network, "name_or_path", "") or "this model"
    other = f"it was trained on another base than {base}"
    try:
        with warnings.catch_warnings(record=True) as caught, unpickled():
            warnings.simplefilter("always")
            yield
    except UserError:
        raise
    except (ValueError, TypeError, KeyError, AttributeError, RuntimeError, OSError, ImportError) as error:
        said = " ".join(str(error).split())
        size = re.search(r"size mismatch for (\S+): .*? shape torch.Size\((.*?)\) .*?torch.Size\((.*?)\)", said)
        if size:
            name = size[1].removeprefix("base_model.model.")
            raise UserError(
                f"{folder.key}: {other}: {name} is {size[2]} there, {size[3]} here; {folder.give}"
            ) from error
        if "not found in the base model" in said:
            raise UserError(f"{folder.key}: {other}, which has none of its layers; {folder.give}") from error
        said = CONVERT if isinstance(error, Pickled) else said[:300]
        raise UserError(f"{folder.key}: the {folder.kind} adapter cannot be loaded: {said}") from error
    for line in (" ".join(str(each.message).split()) for each in caught):
        if "Found missing adapter keys" in line:  # Not at the beginning where peft says what may have been the cause.
            lost = re.search(r"\['([^']+)'", line)
            raise UserError(
                f"{folder.key}: the adapter has no weights for {lost[1] if lost else line}; {other}; {folder.give}"
            )
        if not HARMLESS.match(line):
            notes.append(f"peft: {line}")
