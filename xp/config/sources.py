"""Sources: the yaml files that Hydra composes, read faster than it does, and refused where they are no settings."""

from __future__ import annotations

import os
from functools import cache
from pathlib import PurePath
from typing import Any

import yaml
from hydra._internal.core_plugins.file_config_source import FileConfigSource
from hydra._internal.sources_registry import SourcesRegistry
from hydra.plugins.config_source import ConfigLoadError, ConfigResult
from omegaconf import OmegaConf
from omegaconf._utils import get_yaml_loader
from omegaconf.errors import OmegaConfBaseException

from xp.error import UserError

LARGEST = 1 << 20
"""Bytes of a config file at most."""

VALUES = 50_000
"""Values in a config file at most, aliases counted as often as they are used: a few lines can stand for billions."""

DEEPEST = 100
"""Mappings and lists within each other at most."""


class Files(FileConfigSource):
    """A folder of configs."""

    def load_config(self, config_path: str) -> ConfigResult:
        """The content of a file.

        Raises:
            UserError: it is not below the folder, no text, no mapping of settings, or too much of one.
        """
        name = self._normalize_file_name(config_path)
        if ".." in PurePath(name).parts:
            raise UserError(f"{name}: a config's name cannot lead out of {self.path}")
        path = os.path.join(self.path, name)
        if not os.path.isfile(path):
            raise ConfigLoadError(f"Config not found : {path}")
        text = read(path)
        return ConfigResult(
            config=_config(parsed(text, path), path),
            path=f"{self.scheme()}://{self.path}",
            provider=self.provider,
            header=self._get_header_dict(text[:512]),
        )


def _config(values: dict[Any, Any], path: str) -> Any:
    try:
        return OmegaConf.create(values)
    except OmegaConfBaseException as error:
        key = f"{error.full_key}: " if error.full_key else ""
        raise UserError(f"{path}: {key}{str(error).splitlines()[0]}") from error


def register() -> None:
    """Have Hydra read its files through `Files`."""
    SourcesRegistry.instance().types["file"] = Files


def read(path: str) -> str:
    """The text of a config file.

    Raises:
        UserError: it cannot be read, is no UTF-8, or has more than `LARGEST` bytes.
    """
    try:
        with open(path, "rb") as file:
            content = file.read(LARGEST + 1)
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}") from error
    if len(content) > LARGEST:
        raise UserError(f"{path}: more than {LARGEST >> 20} MB are no config")
    try:
        return content.decode()
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        raise UserError(f"{path}: it is no UTF-8 (line {line}); save it as that") from error


def parsed(text: str, path: str) -> dict[Any, Any]:
    """The settings in a yaml text.

    Raises:
        UserError: it does not parse, is no mapping, or stands for more than a config can be.
    """
    if text.count("[") + text.count("{") > DEEPEST or len(text) > 20_000:
        _check_depth(text, path)
    loader = _loader()(text)
    loader.name = path
    try:
        node = loader.get_single_node()
        if node is None:
            return {}
        if not isinstance(node, yaml.MappingNode):
            raise UserError(f"{path}: it is no mapping of settings, which a config is: <key>: <value>")
        if _size(node, path, {}) > VALUES:
            raise UserError(f"{path}: its anchors stand for more than {VALUES:,} values")
        found = loader.construct_document(node)
    except yaml.YAMLError as error:
        raise UserError(_told(error, path)) from error
    except RecursionError as error:
        raise UserError(f"{path}: it is nested too deeply") from error
    except UserError:
        raise
    except TypeError as error:
        raise UserError(f"{path}: a key is no word: {error}") from error
    except ValueError as error:
        raise UserError(f"{path}: {error}") from error
    finally:
        loader.dispose()
    assert isinstance(found, dict)
    return found


def _check_depth(text: str, path: str) -> None:
    """Refuse what would exhaust the stack of a parser that calls itself for each level."""
    depth = 0
    try:
        for event in yaml.parse(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader)):
            depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
            if depth > DEEPEST:
                raise UserError(f"{path}: it is nested too deeply")
    except yaml.YAMLError as error:
        raise UserError(_told(error, path)) from error


def _size(node: yaml.Node, path: str, known: dict[int, int]) -> int:
    """How many values a node stands for, its aliases followed."""
    if isinstance(node, yaml.ScalarNode):
        return 1
    if id(node) in known:
        if known[id(node)] < 0:
            raise UserError(f"{path}: an anchor holds itself (line {node.start_mark.line + 1})")
        return known[id(node)]
    known[id(node)] = -1
    parts = node.value if isinstance(node, yaml.SequenceNode) else [part for pair in node.value for part in pair]
    known[id(node)] = size = 1 + sum(_size(part, path, known) for part in parts)
    return size


def _told(error: yaml.YAMLError, path: str) -> str:
    """What is wrong with a yaml, and in which line."""
    mark = getattr(error, "problem_mark", None) or getattr(error, "context_mark", None)
    problem = getattr(error, "problem", None) or " ".join(str(error).split())
    return f"{path}{f', line {mark.line + 1}' if mark else ''}: it does not parse: {problem}"


@cache
def _loader() -> Any:
    """OmegaConf's reading of yaml (its numbers, no dates, no key twice), by libyaml where that is there."""
    base = get_yaml_loader()

    class Loader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]
        yaml_implicit_resolvers = base.yaml_implicit_resolvers

        def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
            seen = set()
            for key, _ in node.value:
                if key.value in seen and key.tag == yaml.resolver.BaseResolver.DEFAULT_SCALAR_TAG:
                    raise yaml.constructor.ConstructorError(
                        "while constructing a mapping",
                        node.start_mark,
                        f"{key.value} stands here twice",
                        key.start_mark,
                    )
                seen.add(key.value if isinstance(key.value, str) else id(key))
            made: dict[Any, Any] = super().construct_mapping(node, deep=deep)
            return made

    return Loader
