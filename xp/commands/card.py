"""Card: the README.md of a trained model, by which whoever finds its folder knows what it is."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from xp.adapter import NETWORK, NEW, kind_of
from xp.adapter.folder import BESIDE
from xp.commands.closing import beside, trained_adapter
from xp.run import Run

if TYPE_CHECKING:
    from xp.model import Loaded


HUB = re.compile(r"[\w.-]+(/[\w.-]+)?")
"""A repository's id on the hub."""


def write_card(
    run: Run, loaded: Loaded, folder: Path, how: str, result: dict[str, Any], base: str | None = None
) -> None:
    """Say in a model's folder what it was made from, how, and how good it is.

    The first lines are the hub's metadata (https://huggingface.co/docs/hub/model-cards).

    Args:
        run: that made it.
        loaded: the model.
        folder: where it was saved.
        how: it was made, as a sentence.
        result: of the run: ``metrics`` and ``baseline``.
        base: what it was made from, if that is not ``model.path``.
    """
    network: Any = loaded.network
    name = folder.parent.name
    about: dict[str, Any] = {"library_name": "transformers", "tags": ["xp", run.task.name]}
    base = str(getattr(run.model, "path", "")) if base is None else base
    lines = [f"# {name}", "", f"`{type(network).__name__}`, made by xp."]
    opening = f"{type(network).__name__}.from_pretrained(folder)"
    if hasattr(network, "peft_config"):
        config = network.peft_config[trained_adapter(run)]
        base = str(config.base_model_name_or_path)
        kind = kind_of(config)
        about |= {"library_name": "peft", "tags": [*about["tags"], kind.lower()]}
        lines[2] = f"An adapter ({kind}) of `{base}`, made by xp."
        own = f'config=AutoConfig.from_pretrained(folder + "/{NETWORK}")'
        opening = f"model = {type(network.get_base_model()).__name__}.from_pretrained({json.dumps(base)}, {own})"
        opening += "\n    model = PeftModel.from_pretrained(model, folder)"
        if loaded.footprint is not None:
            lines[2] += f" The base was in {loaded.footprint.how} while it was trained; without, the scores are others."
        if others := beside(network, trained_adapter(run)):
            lines[2] += f" It was trained beside {', '.join(others)}, which take part."
            loads = [f'model.load_adapter(folder + "/{BESIDE}/{each}", "{each}")' for each in others]
            opening = "\n    ".join([opening, *loads, f"model.base_model.set_adapter({json.dumps([NEW, *others])})"])
    if HUB.fullmatch(base) and base != "bundled" and not Path(base).exists():
        about["base_model"] = base
    lines += [
        *([f"Base: `{base}`."] if base else []),
        how,
        "",
        "| metric | value | baseline |",
        "|---|---|---|",
        *(f"| {key} | {_shown(value)} | {_shown(result['baseline'].get(key))} |"
          for key, value in result["metrics"].items()),
        "",
        "All settings are in the run's `run.yaml`. To open it without xp:",
        "",
        f"    {opening}",
        "",
    ]  # fmt: skip
    front = yaml.safe_dump(about, sort_keys=False, allow_unicode=True)
    (folder / "README.md").write_text(f"---\n{front}---\n\n" + "\n".join(lines), encoding="utf-8")


def _shown(value: float | None) -> str:
    return "" if value is None else f"{value:.4f}"
