"""Compose ``conf/`` and the command line into values, with Hydra, and say in one line what is wrong with them."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from hydra.core.config_search_path import ConfigSearchPath
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from hydra.core.plugins import Plugins
from hydra.plugins.search_path_plugin import SearchPathPlugin
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from xp import consent
from xp.config import closed, naming, sources
from xp.config.complaint import composing, no_such_key
from xp.config.naming import LITERAL, literal, names, task_name
from xp.error import UserError

OPEN = re.compile(
    r"(data(\.sources\.\w+)?\.columns|data\.weights|model\.config|model\.processor|model\.quantization_options"
    r"|model\.device_map|model\.max_memory|training\.optimizer_options|peft\.options"
    r"|peft\.adapters|merge\.weights|training\.schedule_options|generation\.(cache_config|watermarking_config|compile_config))[.=]"
)
"""Mappings that take keys of the user's own, without Hydra's plus sign before them."""


IMPLIED = {"chat": {"task": "chat", "generation": "chat"}}
"""What a command chooses of a group where the command line chooses nothing."""


def conf_folder() -> Path:
    """The folder of xp's own configs: beside the package in a checkout, inside it when installed from a wheel."""
    package = Path(__file__).parent.parent
    return package / "conf" if (package / "conf").is_dir() else package.parent / "conf"


class OwnConfigs(SearchPathPlugin):
    """Adds ``conf/`` of the current folder, if it is not xp's own, to where Hydra looks for configs."""

    def manipulate_search_path(self, search_path: ConfigSearchPath) -> None:
        """Append the folder."""
        if own := _own_folder():
            search_path.append("current folder", f"file://{own}")


def register() -> None:
    """Make what xp adds to Hydra known: one's own configs, and the launcher and sweeper of xp.sweep."""
    Plugins.instance().register(OwnConfigs)
    sources.register()
    node: dict[str, Any] = {"_target_": closed.SLOTS, "slots": 1}
    ConfigStore.instance().store(group="hydra/launcher", name="pool", node=node, provider="xp")
    node = {"_target_": closed.GRID, "max_batch_size": None, "params": None}
    ConfigStore.instance().store(group="hydra/sweeper", name="grid", node=node, provider="xp")


def initialize(config_dir: str | None) -> None:
    """Let Hydra know where configs are.

    Args:
        config_dir: one more folder of configs, from ``--config-dir``.
    """
    register()
    GlobalHydra.instance().clear()
    if config_dir is not None and not Path(config_dir).is_dir():
        raise UserError(f"--config-dir={config_dir}: no such folder")
    initialize_config_dir(str(conf_folder().absolute()), job_name="xp", version_base="1.3")


def values(
    overrides: list[str], config_dir: str | None = None, said: Iterable[str] | None = None, whole: bool = True
) -> dict[str, Any]:
    """All settings as plain values, and under ``choices`` which yaml was chosen of each group.

    A model whose path is not the one that its yaml states is called after the path.

    Args:
        overrides: as on the command line, without sweeps.
        config_dir: one more folder of configs.
        said: those of the overrides that the command line says, where others come from a config.
        whole: whether a value that is missing is an error; else it is ``???``.

    Raises:
        UserError: an unknown group choice or key, a value that does not parse, a value that is missing.
    """
    with composing(overrides, conf_folder()):
        config, choices = composed(overrides, config_dir)
        plain = OmegaConf.to_container(config, resolve=True, throw_on_missing=whole)
    return settled(plain, choices, config_dir, overrides if said is None else said)


def composed(overrides: list[str], config_dir: str | None) -> tuple[DictConfig, dict[str, str]]:
    """A config without Hydra's part of it, which is checked, and which yaml was chosen of each group."""
    config = compose("config", checked(overrides, config_dir), return_hydra_config=True)
    _check_hydra(config, overrides, config_dir)
    chosen = config.hydra.runtime.choices.items()
    choices = {group: choice for group, choice in chosen if not group.startswith("hydra/") and choice}
    own = _without_hydra(config)
    OmegaConf.set_struct(own, True)  # As it was: it takes no key that there is not.
    return own, choices


def settled(found: Any, choices: dict[str, str], config_dir: str | None, said: Iterable[str]) -> dict[str, Any]:
    """A composed config's plain values with its choices, as `values` gives them, once the command line agrees."""
    assert isinstance(found, dict)
    plain: dict[str, Any] = {str(key): value for key, value in found.items()}
    model = plain.get("model")
    path = model.get("path") if isinstance(model, dict) else None
    if isinstance(path, str) and path != naming.stated("model.path", choices["model"], folders(config_dir)):
        choices = choices | {"model": naming.model_name(path) or choices["model"]}
    _check_method(plain.get("peft"), choices, config_dir)
    if "choices" in plain:
        raise UserError("choices: xp fills this in; choose with <group>=<choice>, or in a defaults list")
    consent.check(plain, said)
    return plain | {"choices": choices}


def _check_method(peft: Any, choices: dict[str, str], config_dir: str | None) -> None:
    """Refuse another method under the name of one that has a yaml: the run would be called after what it is not."""
    kind = str(peft.get("type")) if isinstance(peft, dict) and "type" in peft else None
    own = naming.stated("peft.type", choices["peft"], folders(config_dir)) if kind is not None else None
    if kind is None or own in (None, "???") or "${" in str(own):
        return
    if len({each.upper().replace("-", "_") for each in (kind, str(own))}) > 1:
        raise UserError(f"peft.type={kind}: peft={choices['peft']} is {own}; give peft=any peft.type={kind}")


def shown(overrides: list[str], config_dir: str | None, package: str | None, resolve: bool) -> str:
    """The composed config as yaml, or one package of it: what ``--cfg job`` prints.

    Raises:
        UserError: as `values`, but a missing value is shown, not refused.
    """
    with composing(overrides, conf_folder()):
        config: Any = compose("config", checked(overrides, config_dir), return_hydra_config=True)
        _check_hydra(config, overrides, config_dir)
        config = _without_hydra(config)
        if resolve:
            OmegaConf.resolve(config)
        if package:
            config = OmegaConf.select(config, package)
            if config is None:
                raise UserError(no_such_key(package, overrides, conf_folder()))
        return OmegaConf.to_yaml(config) if OmegaConf.is_config(config) else f"{config}\n"


def check_sweep(overrides: list[str], config_dir: str | None) -> DictConfig:
    """Refuse what is closed in Hydra's config of a sweep, before Hydra acts on it; gives what its jobs share."""
    hydra = GlobalHydra.instance().hydra
    assert hydra is not None
    config = hydra.compose_config(
        "config", checked(overrides, config_dir), RunMode.MULTIRUN, with_log_configuration=False
    )
    _check_hydra(config, overrides, config_dir)
    return config


def checked(overrides: list[str], config_dir: str | None) -> list[str]:
    """The overrides as Hydra takes them, with the folder of ``--config-dir``."""
    for override in overrides:
        key = override.lstrip("+~").partition("=")[0]
        if key.startswith("choices"):
            raise UserError("choices: xp fills this in; choose with <group>=<choice>")
        closed.check_override(key)
    search = [f"hydra.searchpath=[file://{Path(config_dir).absolute()}]"] if config_dir else []
    spelled = [_spelled(override) for override in overrides]
    given = {override.lstrip("+").partition("=")[0]: override.partition("=")[2] for override in overrides}
    implied = [f"{group}={choice}" for group, choice in IMPLIED.get(given.get("command", ""), {}).items()
               if group not in given]  # fmt: skip
    return search + implied + [f"++{override}" if OPEN.match(override) else override for override in spelled]


def _spelled(override: str) -> str:
    """An override whose value a person may type in ways of their own: names of tasks and runs, a text."""
    key, equals, value = override.partition("=")
    if equals and key.lstrip("+") == "task":
        return f"{key}={','.join(task_name(each) for each in value.split(','))}"
    as_typed = literal if key.lstrip("+") in LITERAL else names if key.lstrip("+") == "runs" else None
    return f"{key}={as_typed(value)}" if equals and as_typed else override


def has(group: str, choice: str, config_dir: str | None) -> bool:
    """Whether a group has a yaml of this name, in xp's configs or the user's own."""
    return any((folder / group / f"{choice}.yaml").is_file() for folder in folders(config_dir))


def tasks(config_dir: str | None) -> list[dict[str, str]]:
    """The rows of ``command=tasks``: what is in ``task/`` of every folder of configs."""
    return naming.tasks(folders(config_dir))


def folders(config_dir: str | None) -> list[Path]:
    """The folders of configs, in the order that Hydra looks through them."""
    return [conf_folder(), Path("conf"), *([Path(config_dir)] if config_dir else [])]


def _check_hydra(config: DictConfig, overrides: list[str], config_dir: str | None) -> None:
    """Refuse what a config file, or a group put elsewhere, could make Hydra execute; xp's own configs are known."""
    if config_dir or _own_folder() or any("hydra" in each for each in overrides):
        closed.check(config.hydra)
    for group, choice in config.hydra.runtime.choices.items():
        if isinstance(choice, str) and not naming.CHOICE.fullmatch(choice):
            raise UserError(f"{group}={choice}: a choice is the name of a file in {group}/, and leads nowhere else")
    for group in ("backend", "data", "generation", "model", "peft", "task", "tracking", "training"):
        listed = any(re.match(rf"\+*{group}=\s*\[", each) for each in overrides)
        if listed or (
            group in config and group not in config.hydra.runtime.choices
        ):  # Hydra puts all of them together.
            raise UserError(f"{group}: it takes one choice and no list; give {group}=<choice>, or sweep with -m")


def _without_hydra(config: DictConfig) -> DictConfig:
    keys: list[Any] = [key for key in config if key != "hydra"]
    return OmegaConf.masked_copy(config, keys)


def _own_folder() -> Path | None:
    """``conf/`` of the current folder, if it is there and not xp's own."""
    own = Path("conf").absolute()
    return own if own.is_dir() and own != conf_folder().absolute() else None
