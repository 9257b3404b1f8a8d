"""Identity: all that decides what a row is encoded to, but for the row."""

from __future__ import annotations

import importlib.metadata
import inspect
import json
from functools import cache
from pathlib import Path
from typing import Any

from xp.cache import digest
from xp.task.base import Trainable

HERE = Path(__file__).parent.parent


def identity(task: Trainable) -> list[Any]:
    """What of the task and of the program decides the features."""
    settings = task.model_dump(mode="json", exclude={"metrics"})
    return [settings, _code(inspect.getsourcefile(type(task)) or ""), _versions()]


@cache
def _code(own: str) -> dict[str, str]:
    """Every file of the program that takes part in encoding, the task's own among them, by its content."""
    files = [*HERE.glob("task/*.py"), HERE / "features.py", *HERE.glob("assets/templates/*"), Path(own)]
    return {file.name: digest(file.read_text("utf-8")) for file in sorted({*files}) if file.is_file()}


@cache
def _versions() -> dict[str, str]:
    return {name: importlib.metadata.version(name) for name in ("tokenizers", "transformers", "datasets")}


def processor_identity(processor: Any) -> Any:
    """What of a tokenizer or another processor decides the features, as plain values."""
    parts = getattr(processor, "attributes", None)
    if parts:
        own = {"template": getattr(processor, "chat_template", None)}
        return {name: processor_identity(getattr(processor, name)) for name in parts} | own
    found: dict[str, Any] = {"class": type(processor).__name__}
    backend = getattr(processor, "backend_tokenizer", None)
    if backend is not None:
        state = json.loads(backend.to_str())
        # Left behind by the last call of the tokenizer, each sets its own.
        found["backend"] = digest({name: state[name] for name in state if name not in ("truncation", "padding")})
    elif hasattr(processor, "get_vocab"):
        found["vocabulary"] = digest(processor.get_vocab())
    elif hasattr(processor, "to_dict"):
        found["settings"] = json.loads(json.dumps(processor.to_dict(), default=str, sort_keys=True))
    for name in ("special_tokens_map", "chat_template", "model_max_length", "padding_side", "truncation_side",
                 "model_input_names"):  # fmt: skip
        found[name] = json.loads(json.dumps(getattr(processor, name, None), default=str))
    return found
