"""Foreign: what a model's own files may not say, whoever wrote them, unless its code is trusted anyway."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from xp.error import UserError

if TYPE_CHECKING:
    from transformers import PretrainedConfig

DEEPEST = 10_000
"""Layers of a network at most."""


def check_config(config: PretrainedConfig, path: str, trusted: bool) -> None:
    """Refuse kernels that a config has transformers download and run.

    Raises:
        UserError: it names a repository of kernels, or so many layers that to make them would never end.
    """
    for key, value in vars(config).items():
        if hasattr(value, "to_dict") and hasattr(value, "model_type"):
            check_config(value, path, trusted)
        if key.endswith("layers") and isinstance(value, int) and value > DEEPEST:
            raise UserError(f"model.path={path}: its config has {key}={value}; no network has so many")
        if "implementation" in key and not trusted and "/" in str(value):
            raise UserError(
                f"model.path={path}: its config wants to run the code of {value}; read that code, then set "
                "model.trust_remote_code=true"
            )


def check_templates(processor: Any, path: str) -> None:
    """Refuse names of chat templates that could not be names of files, which they become where a model is saved.

    Raises:
        UserError: such a name.
    """
    for part in (processor, getattr(processor, "tokenizer", None)):
        templates = getattr(part, "chat_template", None)
        for name in templates if isinstance(templates, dict) else ():
            if not re.fullmatch(r"[\w-][\w.-]*", str(name)):
                raise UserError(f"model.path={path}: a chat template called {name!r} cannot be saved; rename it")
