"""Closed: the parts of Hydra's own config that could run code or write anywhere; a short list is open."""

from __future__ import annotations

import json
import re
from dataclasses import asdict
from functools import cache
from typing import Any

import yaml
from hydra.conf import HydraConf
from hydra.core.plugins import Plugins
from omegaconf import MISSING, DictConfig, OmegaConf

from xp.consent import CODE, leaves
from xp.error import UserError, nearest

OPEN = ("hydra.launcher.slots", "hydra.sweeper.params", "hydra.sweeper.max_batch_size", "hydra/sweeper",
        "hydra/launcher")  # fmt: skip
"""What of Hydra's own config may be set."""

SLOTS, GRID = "hydra_plugins.xp.Slots", "hydra_plugins.xp.Grid"
"""The launcher and the sweeper of xp.sweep.launcher, which is imported when there is a sweep."""

FILLED = re.compile(
    r"(defaults|launcher|sweeper|overrides|runtime\.(version\w*|cwd|config_sources|choices)|searchpath)\b.*"
    r"|job\.(override_dirname|id|num|config_name)"
)
"""What Hydra fills in itself or takes from the main config alone, and what `_check_plugins` looks at."""

LOGS = ("help", "hydra_help", "hydra_logging", "job_logging")
INSTANTIATES = re.compile(r"\._\w*_(\.|$)")
"""A key like ``_target_``, which Hydra acts upon."""


def check_override(key: str) -> None:
    """Refuse a key of the command line that would change a closed part.

    Raises:
        UserError: it would.
    """
    options = re.fullmatch(r"hydra\.sweeper\.\w+(\.[^_].*)?", key) and not INSTANTIATES.search(key)
    if key.startswith("hydra") and key not in OPEN and not options:
        raise UserError(f"{key}: this part of Hydra's config is closed.{nearest(key, OPEN)}")
    if "@" in key and "hydra" in key:
        raise UserError(f"{key}: Hydra's own config is closed; give the group without @")


def check(hydra: DictConfig) -> None:
    """Refuse what a config file could make Hydra execute, or write.

    Raises:
        UserError: a key that is closed, with its value.
    """
    _check_plugins(hydra)
    ours, now = dict(leaves(_pristine())), dict(leaves(OmegaConf.to_container(hydra, resolve=False)))
    for key in sorted({*ours, *now}):
        value = now.get(key)
        if value not in (ours.get(key), MISSING) and not FILLED.fullmatch(key):
            said = json.dumps(value, default=str)
            raise UserError(f"hydra.{key}={said}: this part of Hydra's config is closed to configs")
    for key, choice in hydra.runtime.choices.items():
        if key.startswith("hydra/") and key not in OPEN and choice not in ("default", None):
            raise UserError(f"{key}={choice}: this part of Hydra's config is closed to configs")


def _check_plugins(hydra: DictConfig) -> None:
    """Refuse another launcher than xp's, a sweeper that is no plugin, and objects among their settings."""
    for group in ("launcher", "sweeper"):
        # Resolved, for Hydra will do that: an interpolation may point to an object that stands elsewhere.
        for key, value in leaves(OmegaConf.to_container(hydra[group], resolve=True), f"hydra.{group}"):
            known = (SLOTS, GRID, *Plugins.instance().class_name_to_class)
            top, plugin = key == f"hydra.{group}._target_", str(value) in known
            if top and group == "launcher" and plugin and str(value) != SLOTS:
                raise UserError(f"hydra/launcher: {value} does not check all jobs before the first one; choose pool")
            if (top and not plugin) or (not top and INSTANTIATES.search(key)):
                raise UserError(f"{key}={value}: this would run code; choose hydra/{group}=<name>")
    for key in hydra.sweeper.get("params") or ():
        name = str(key).lstrip("+~")
        if name == "imports" or name.startswith("hydra") or CODE.fullmatch(name):
            raise UserError(f"hydra.sweeper.params.{key}: this could run code; only the command line itself can say it")


@cache
def _pristine() -> dict[str, Any]:
    """Hydra's own config as it is where nobody changes it."""
    from importlib.resources import files

    def own(group: str) -> Any:
        return yaml.safe_load(files("hydra.conf").joinpath("hydra", group, "default.yaml").read_text())

    plain: dict[str, Any] = (
        asdict(HydraConf()) | own("output") | {group: own(group) for group in LOGS} | {"output_subdir": None}
    )
    plain["job"]["name"] = "xp"
    return plain
