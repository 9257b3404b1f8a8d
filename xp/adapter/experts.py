"""Experts: the LoRAs that an X-LoRA mixes for each token; they lie in its own folder, and nowhere else."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

from xp.adapter.folder import CONFIG, WEIGHTS, Folder, beyond_lora, read
from xp.error import UserError

if TYPE_CHECKING:
    from transformers import PreTrainedModel

KIND = "XLORA"
"""X-LoRA (Buehler and Buehler, 2024, arXiv:2402.07148), as peft spells it."""

FOLDER = "experts"
"""Folder inside the adapter's with a folder for each expert, by its number: what the config says instead, peft would
follow to anywhere."""

INSIDE = "base_model.model.model."
"""How the names of an expert's weights must begin; peft puts others to where nothing is, or never ends over them."""


def read_expert(path: str, key: str) -> Folder:
    """What the folder of an expert says of itself.

    Raises:
        UserError: it is no LoRA, or one that peft cannot mix.
    """
    from safetensors import SafetensorError, safe_open

    folder = read(path, key)
    if folder.kind != "LORA":
        raise UserError(f"{key}: X-LoRA mixes LoRAs, and this is {folder.kind}; leave it out")
    if odd := beyond_lora(folder.values):
        raise UserError(f"{key}: X-LoRA mixes plain LoRAs, and this one has {odd[0]}; leave it out")
    file = Path(path, WEIGHTS[0])
    if not file.is_file():
        raise UserError(f"{key}: an expert of X-LoRA needs {WEIGHTS[0]}, which is missing")
    try:
        with safe_open(file, "numpy") as weights:
            names = [*weights.keys()]
    except (SafetensorError, OSError) as error:
        raise UserError(f"{key}: {file.name} cannot be read: {error}") from error
    for name in names:
        if not name.startswith(INSIDE):
            raise UserError(
                f"{key}: peft mixes LoRAs of layers inside of the network's `model`, as Llama's are; this one has "
                f"{name[:100]}"
            )
    return folder


def own(folder: Folder) -> dict[str, str]:
    """The folders of the experts that an adapter's folder has, by number.

    Raises:
        UserError: one is not there, or not sound.
    """
    said = folder.values.get("adapters")
    numbers = [str(number) for number in range(len(said))] if isinstance(said, dict) else []
    if not said or set(said) != set(numbers):
        raise UserError(
            f"{folder.key}: {CONFIG} says adapters={json.dumps(said)[:80]}; the names of the experts are 0, 1, ..."
        )
    found = {number: Path(folder.path, FOLDER, number) for number in numbers}
    for number, path in found.items():
        if not path.is_dir():
            raise UserError(f"{folder.key}: its expert {number} is not in {path}; copy that LoRA's folder to there")
        read_expert(str(path), f"{folder.key}: expert {number}")
    return {number: str(path) for number, path in found.items()}


def config(folder: Folder) -> Any:
    """The configuration of an X-LoRA's folder, with the experts that lie in it."""
    from peft import PeftConfig

    made = PeftConfig.from_pretrained(folder.path)
    made.adapters = own(folder)
    return made


def check_network(network: PreTrainedModel, key: str) -> None:
    """Have a network be one that experts can be mixed in: it then computes without a cache.

    Raises:
        UserError: it is not, whatever is set.
    """
    if getattr(network, "quantization_method", None) is not None:
        raise UserError(f"{key}: X-LoRA has no layers for quantized weights; set model.quantization to null")
    network.config.use_cache = False


def _classifier(network: Any) -> dict[str, Any]:
    """The weights of what mixes the experts, by the names that they have in its file."""
    prefix = "base_model.internal_xlora_classifier."
    return {prefix + name: value for name, value in network.internal_xlora_classifier.state_dict().items()}


def restore(network: Any, folder: Folder) -> None:
    """Have what mixes the experts as it was saved: peft makes it of the base's type, which may hold fewer digits.

    Raises:
        UserError: it was not saved, or for another number of experts or layers.
    """
    from safetensors.torch import load_file

    network.internal_xlora_classifier.float()
    weights, there = load_file(Path(folder.path, WEIGHTS[0])), _classifier(network)
    for name, value in there.items():
        if name not in weights:
            raise UserError(
                f"{folder.key}: {WEIGHTS[0]} lacks {name}, which mixes the experts; peft 0.21 does not save it, xp does"
            )
        if weights[name].shape != value.shape:
            sizes = (", ".join(map(str, each.shape)) for each in (weights[name], value))
            raise UserError(f"{folder.key}: {name} is {next(sizes)} in the file, {next(sizes)} in this network")
        value.copy_(weights[name])


def keep(network: Any, part: Path, folder: Path) -> None:
    """Put the experts, and what mixes them, into an adapter's folder that peft has just written.

    peft leaves out what has an expert's number in its name, such as ``layers.0.weight`` of what mixes them.

    Args:
        network: a ``PeftModel``.
        part: the folder.
        folder: what it will be called.
    """
    from safetensors.torch import save_file

    experts: dict[str, str] = network.active_peft_config.adapters
    save_file(
        {name: value.contiguous() for name, value in _classifier(network).items()}, part / WEIGHTS[0], {"format": "pt"}
    )
    for number, path in experts.items():
        inside = part / FOLDER / number
        inside.mkdir(parents=True)
        for name in (CONFIG, WEIGHTS[0]):
            shutil.copy(Path(path, name), inside / name)
    values = json.loads((part / CONFIG).read_text())
    values["adapters"] = {number: str((folder / FOLDER / number).absolute()) for number in experts}
    (part / CONFIG).write_text(json.dumps(values, indent=2, sort_keys=True))
