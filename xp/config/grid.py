"""Grid: the configs of many jobs, most of which share their yamls, composed in a tenth of the time."""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy
from functools import cache
from typing import Any

from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from omegaconf import DictConfig, OmegaConf

from xp.config import compose
from xp.config.complaint import composing


class Composer:
    """Composes as `compose.values` does, and reads the same yamls once.

    Which yamls a config is made of is decided by those of its overrides that choose from groups. Hydra applies the
    others to what the yamls give, in their order, and so does this, by the same function.
    """

    def __init__(self, config_dir: str | None, said: Sequence[str] | None = None) -> None:
        """Compose nothing yet.

        Args:
            config_dir: one more folder of configs.
            said: by the command line; a config's ``hydra.sweeper.params`` may say more of a job.
        """
        self.config_dir, self.said = config_dir, said
        self._composed = cache(self._compose)
        self._groups = {
            str(group.relative_to(folder))
            for folder in compose.folders(config_dir)
            for group in folder.rglob("*")
            if group.is_dir()
        }

    def values(self, overrides: Sequence[str]) -> dict[str, Any]:
        """All settings as plain values.

        Raises:
            UserError: what `compose.values` raises.
        """
        with composing([*overrides], compose.conf_folder()):
            spelled = compose.checked([*overrides], None)
            if any(self._is_mapping_of_group(text) for text in spelled):  # It has its place in the order of all.
                return compose.values([*overrides], self.config_dir, self.said)
            changes = {text for text in spelled if self._changes_a_value(text)}
            config, choices = self._composed(tuple(text for text in spelled if text not in changes))
            config = deepcopy(config)
            ConfigLoaderImpl._apply_overrides_to_config([_parsed(text) for text in spelled if text in changes], config)
            plain = OmegaConf.to_container(config, resolve=True, throw_on_missing=True)
        return compose.settled(plain, choices, self.config_dir, overrides if self.said is None else self.said)

    def _compose(self, overrides: tuple[str, ...]) -> tuple[DictConfig, dict[str, str]]:
        return compose.composed([*overrides], self.config_dir)

    def _is_mapping_of_group(self, text: str) -> bool:
        override = _parsed(text)
        return override.key_or_group in self._groups and isinstance(override.value(), dict)

    def _changes_a_value(self, text: str) -> bool:
        """Whether an override leaves the yamls as they are; where that is not certain, it does not."""
        override = _parsed(text)
        group = override.package is not None or override.key_or_group in self._groups
        return not (group or override.is_sweep_override() or override.key_or_group.startswith("hydra"))


@cache
def _parsed(text: str) -> Override:
    (override,) = OverridesParser.create().parse_overrides([text])
    return override
