"""What an adapter's folder says of itself; anyone may have written it, so it is checked before it is believed."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from xp.error import UserError, nearest

CONFIG = "adapter_config.json"
NETWORK = "network"
"""Folder beside an adapter with the config of the network that it is for: its labels, most of all."""

WEIGHTS = ("adapter_model.safetensors", "adapter_model.bin")
SIZES = ("model_type", "vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size")
"""Values of a model's config that its adapters depend on."""

BESIDE = "adapters"
"""Folder inside an adapter's with a folder for each one that it was trained beside, by its name."""

LIBRARIES = ("transformers", "peft")
"""Whose classes an adapter may say that its base is of: others would be imported."""


@dataclass(frozen=True)
class Folder:
    """An adapter's folder that was found sound."""

    path: str
    key: str
    """The setting that names it, with its value, for messages."""

    kind: str
    """The method, as peft spells it."""

    task_type: str | None
    base: str | None
    """What it was trained on, a folder or an id of the hub, as it says."""

    revision: str | None
    """Of the base, on the hub."""

    values: dict[str, Any]
    """All that its config says."""

    @property
    def has_config(self) -> bool:
        """Whether it has the config of the network along with it, as what xp saves has."""
        return Path(configured(self.path), "config.json").is_file()

    @property
    def origin(self) -> str | None:
        """Where the config of the network is that it was trained on: along with it, or in its base's folder if any."""
        if self.has_config or self.base is None:
            return self.path if self.has_config else None
        base = os.path.expanduser(self.base)
        return base if Path(base, "config.json").is_file() else None

    @property
    def kept(self) -> tuple[str, ...]:
        """Layers that it holds in full."""
        return tuple(self.values.get("modules_to_save") or ())

    @property
    def give(self) -> str:
        """What to do where the network is not its base; where others share it, it is the model itself."""
        setting = "model.base" if self.key.startswith("model.path=") else "model.path"
        return f"give {setting}=<the one that it was trained on>"

    def check_task(self, kind: str | None, who: str) -> None:
        """Refuse it where ``who`` asks is for another ``kind`` of task, as peft spells those.

        Raises:
            UserError: says both.
        """
        if self.task_type not in (None, kind):
            raise UserError(f"{self.key}: this adapter is for {self.task_type}, {who} for {kind}; give another one")

    def beside(self) -> dict[str, Folder]:
        """The adapters that took part while it was trained, which lie in it, by their names.

        Raises:
            UserError: one of them cannot be read.
        """
        there = sorted(each for each in Path(self.path, BESIDE).glob("*") if is_adapter(str(each)))
        return {each.name: read(str(each), f"{self.key}: {BESIDE}/{each.name}") for each in there}

    @property
    def half(self) -> list[str]:
        """What to know of it where it is put on a network by itself, a line; none where it was trained alone."""
        names = ", ".join(self.beside())
        return [f"{self.key}: it was trained beside {names}, without which it is not what it was"] if names else []

    def holds(self, name: str) -> bool:
        """Whether the weights of this name are in a layer that it holds in full."""
        return any(layer in name.split(".") or name.startswith(layer) for layer in self.kept)


def configured(path: str) -> str:
    """Where the network's config is of what is in a folder: there, or in a folder of its own beside an adapter.

    transformers takes a folder that has both for a whole model, and would miss its weights.
    """
    own = Path(path, NETWORK)
    return str(own) if is_adapter(path) and own.is_dir() else path


def kind_of(config: Any) -> str:
    """The method of a ``PeftConfig``, as peft spells it."""
    return str(getattr(config.peft_type, "value", config.peft_type))


def beyond_lora(values: Mapping[str, Any]) -> list[str]:
    """What an adapter's settings have that is no product of two matrices alone, and peft neither adds up nor mixes."""
    found = [name for name in ("use_dora", "lora_bias", "modules_to_save") if values.get(name)]
    return found + (["bias"] if values.get("bias", "none") != "none" else [])


def is_adapter(path: str) -> bool:
    """Whether a path is an adapter's folder."""
    return Path(path, CONFIG).is_file()


def located(path: str, setting: str, locate: Callable[[str], str]) -> str:
    """The folder of an adapter.

    Args:
        path: a folder, or ``mlflow:<run id>``.
        setting: that names it.
        locate: turns the latter into a folder.

    Raises:
        UserError: MLflow has no such run, or no model of it.
    """
    try:
        return os.path.expanduser(locate(path))
    except UserError as error:
        raise UserError(str(error).replace("model.path=", f"{setting}=", 1)) from error


def read(path: str, key: str, weights: bool = True) -> Folder:
    """What the adapter in a folder says of itself.

    Args:
        path: the folder.
        key: the setting that names it, with its value.
        weights: whether they must be there.

    Raises:
        UserError: there is none, it cannot be read, or it asks for what an adapter has no business with.
    """
    file = Path(path, CONFIG)
    if not file.is_file():
        raise UserError(f"{key}: there is no adapter in {path} (no {CONFIG})")
    try:
        values = json.loads(file.read_text())
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{key}: {CONFIG} cannot be read: {error}") from error
    if not isinstance(values, dict):
        raise UserError(f"{key}: {CONFIG} holds no settings")
    for name in ("peft_type", "task_type", "base_model_name_or_path", "revision"):
        if not isinstance(values.get(name), str | None):
            raise UserError(f"{key}: {CONFIG} says {name}={json.dumps(values[name])[:80]}, which is no name")
    kind = values.get("peft_type") or ""
    if kind not in methods():
        raise UserError(f"{key}: the installed peft has no method {kind!r}.{nearest(kind, methods())}")
    _check_harmless(values, key)
    if weights and not any(Path(path, name).is_file() for name in WEIGHTS):
        raise UserError(f"{key}: the adapter has no weights ({WEIGHTS[0]} is missing)")
    base = values.get("base_model_name_or_path") or None
    return Folder(str(path), key, kind, values.get("task_type"), base, values.get("revision"), values)


def _check_harmless(values: dict[str, Any], key: str) -> None:
    """Refuse what would import a module, or load from elsewhere than the folder and its base."""
    mapping = values.get("auto_mapping")
    library = mapping.get("parent_library") if isinstance(mapping, dict) else mapping
    if library is not None and str(library).partition(".")[0] not in LIBRARIES:
        raise UserError(
            f"{key}: {CONFIG} wants {str(library)[:80]} imported (auto_mapping); an adapter has no business with that"
        )
    if values.get("megatron_config") is not None:
        raise UserError(f"{key}: {CONFIG} wants {str(values.get('megatron_core'))[:80]} imported (megatron_config)")
    if values.get("shadow_model", "mirror") != "mirror":
        raise UserError(f"{key}: {CONFIG} wants another model loaded (shadow_model={values['shadow_model']})")
    kwargs = values.get("tokenizer_kwargs")
    if isinstance(kwargs, dict) and kwargs.get("trust_remote_code"):
        raise UserError(f"{key}: {CONFIG} wants remote code to be trusted (tokenizer_kwargs)")


@cache
def source() -> Path:
    """Where the installed peft is; found without importing it, which takes seconds."""
    spec = find_spec("peft")
    assert spec is not None
    assert spec.origin is not None
    return Path(spec.origin).parent


@cache
def methods() -> list[str]:
    """Every method of the installed peft as it spells it, such as ``LORA``; read from its source."""
    files = sorted((source() / "tuners").glob("*/__init__.py"))
    return [file.parent.name.upper() for file in files if "register_peft_method(" in file.read_text()]


def where(folder: Folder, given: str | None) -> str:
    """The base of an adapter: what was given, or what it says itself.

    Raises:
        UserError: it says nothing, or its base is not where it was, no model, or an adapter too.
    """
    base = given or folder.base
    if base is None:
        raise UserError(f"{folder.key}: the adapter does not say what it was trained on; give model.base=<its base>")
    base = os.path.expanduser(base)
    if is_adapter(base):
        raise UserError(f"{folder.key}: its base {base} is an adapter itself; give model.base=<the network under both>")
    said, there = f"model.base={base}:" if given else f"{folder.key}: its base {base}", Path(base).is_dir()
    if there and not Path(base, "config.json").is_file():
        raise UserError(f"{said} has no model in it (no config.json); give model.base=<its base>")
    if not there and (Path(base).is_absolute() or base.startswith((".", "runs/"))):
        saved = Path(folder.path).parent / "base"
        place = saved if (saved / "config.json").is_file() else "<where it is now>"
        raise UserError(f"{said} is not there; give model.base={place}")
    return base


def check_sizes(folder: Folder, changed: dict[str, Any], there: Any, here: Any) -> None:
    """Refuse a base of other sizes than the one that an adapter was trained on.

    Args:
        folder: the adapter's.
        changed: values of the config that are set anew.
        there: the config that the adapter has along with it.
        here: that of the base.

    Raises:
        UserError: what differs.
    """
    for name in SIZES:
        old, new = getattr(there, name, None), getattr(here, name, None)
        if old != new and name not in changed:
            raise UserError(
                f"{folder.key}: it was trained on another base than {here.name_or_path}: {name} is {old} there, {new} "
                f"here; {folder.give}"
            )
