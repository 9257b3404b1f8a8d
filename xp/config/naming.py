"""Naming: tasks as transformers spells them, models by their paths, ``inputs`` as a person types it, keys there are."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from xp.error import UserError

ALIASES = {
    "sentiment_analysis": "text_classification",
    "ner": "token_classification",
    "fill_mask": "masked_lm",
    "text_generation": "causal_lm",
    "text_to_speech": "text_to_audio",
    "vqa": "visual_question_answering",
    "asr": "automatic_speech_recognition",
}
"""Other names of tasks, hyphens as underscores, and what they are called here."""

LITERAL = ("inputs", "task.hypothesis_template", "task.prediction.stop_sequence", "task.tesseract_config")
"""Keys whose value is a text as it is typed, commas, braces and all."""


CHOICE = re.compile(r"(?!\.)[\w.+-]+(/(?!\.)[\w.+-]+)*")
"""What a file of a group can be called, so that its name can also be that of a folder."""


def task_name(value: str) -> str:
    """A task's own name, from any spelling of it or of one of its aliases."""
    name = value.replace("-", "_")
    return ALIASES.get(name, name)


def literal(value: str) -> str:
    """A value as Hydra reads it: a list, a mapping or a quoted text as it is, all else as one text.

    So ``inputs=What a film, really!`` needs no quotes but those of the shell. Mappings may be JSON, which quotes keys.
    """
    bare = value.strip()
    if bare in ("", "null"):
        return value
    if bare[0] + bare[-1] in ("[]", "{}"):
        return _from_json(value) or _uninterpolated(value)
    if re.fullmatch(r"""'([^'\\]|\\.)*'|"([^"\\]|\\.)*\"""", bare, re.DOTALL):
        return _uninterpolated(value)
    return _quoted(value)


def _uninterpolated(value: str) -> str:
    """Without what OmegaConf would put something else in the place of."""
    return re.sub(r"(\\*)\$\{", lambda found: found[1] * 2 + r"\${", value)


def _quoted(value: str) -> str:
    value = re.sub(r"(\\*)'", lambda found: found[1] * 2 + r"\'", _uninterpolated(value))
    return "'" + re.sub(r"(\\+)$", lambda found: found[1] * 2, value) + "'"


def _from_json(value: str) -> str | None:
    """JSON with mappings in it, in Hydra's language; None for anything else, which Hydra reads itself."""

    def written(each: Any) -> str:
        if isinstance(each, dict):
            if not all(re.fullmatch(r"[A-Za-z_][\w-]*", key) for key in each):
                raise ValueError("a key that Hydra's language has no form for")
            return "{" + ",".join(f"{key}:{written(inner)}" for key, inner in each.items()) + "}"
        if isinstance(each, list):
            return "[" + ",".join(map(written, each)) + "]"
        return _quoted(each) if isinstance(each, str) else json.dumps(each)

    try:
        return written(json.loads(value)) if "{" in value else None
    except ValueError:
        return None


def names(value: str) -> str:
    """A list of names as Hydra reads it: each a text, also one that looks like a number, as beginnings of ids do."""
    parts = [each.strip().strip("'\"") for each in value.strip().removeprefix("[").removesuffix("]").split(",")]
    return f"[{','.join(literal(each) for each in parts if each)}]"


GENERIC = ("model", "models", "base", "adapter", "checkpoint", "final", "best", "last", "snapshots", "output", "out")
"""Names of folders that do not say which model is in them; the folder around them does."""

LONGEST = 40
"""Letters of a model's name at most: it begins the names of folders."""


def model_name(path: str) -> str:
    """A short name, safe for a folder, of the model at a path: the last part of it that says which one it is.

    ``runs/<run>/model`` is called ``<run>``, but for the digits of runs that this one went on from; a repository
    of the hub by its own name, ``mlflow:<run id>`` by the id's first digits. Empty where nothing can be made of it.
    """
    if path.startswith("mlflow:"):
        return f"mlflow-{_safe(path.removeprefix('mlflow:'))[:8]}"
    folder = Path(path).expanduser()
    parts = list((folder.resolve() if os.path.isdir(folder) else folder).parts)
    while len(parts) > 1 and (parts[-1].lower() in GENERIC or re.fullmatch(r"[0-9a-f]{40}", parts[-1])):
        parts.pop()  # Forty digits are a commit in the cache of the hub.
    name = parts[-1] if parts else ""
    if re.fullmatch(r"checkpoint-\d+", name) and len(parts) > 1:
        name = f"{parts[-2][: LONGEST - len(name) - 1]}-{name}"
    if os.path.isfile(Path(*parts, "run.yaml")):
        name = re.sub(r"-[0-9a-f]{6}(?=-)", "", name)
    return _safe(name.rpartition("--")[2] if name.startswith("models--") else name)


def _safe(name: str) -> str:
    return re.sub(r"[^\w.-]+", "-", name).strip("-.")[:LONGEST].rstrip("-.")


def stated(key: str, choice: str, folders: Iterable[Path]) -> str | None:
    """What a yaml states for a key, such as ``model.path``, or one of its group that it is based on; None: nothing."""
    import yaml

    known, (group, _, name) = [*folders], key.partition(".")
    file = next((each for folder in known if (each := folder / group / f"{choice}.yaml").is_file()), None)
    settings = (yaml.safe_load(file.read_text()) or {}) if file is not None else {}
    bases = [each for each in settings.get("defaults", []) if isinstance(each, str) and each != "_self_"]
    found = [settings.get(name), *(stated(f"{group}.{name}", base, known) for base in bases)]
    return next((value for value in found if value is not None), None)


def tasks(folders: Iterable[Path]) -> list[dict[str, str]]:
    """A row for each yaml of ``task/`` in these folders of configs, for a person to read.

    Raises:
        UserError: a yaml names a task that there is not.
    """
    import yaml

    from xp.task import Task, Trainable

    rows = {}
    for folder in folders:
        for file in sorted(folder.glob("task/*.yaml")):
            name = (yaml.safe_load(file.read_text()) or {}).get("name")
            kind: Any = Task.all().get(str(name))
            if kind is None:
                raise UserError(f"{file}: name={name}: there is no such task")
            others = sorted(alias for alias, own in ALIASES.items() if own == file.stem)
            rows[file.stem] = {
                "task": file.stem,
                "other names": ", ".join(others),
                "trains": "yes" if issubclass(kind, Trainable) else "",
                "predicts by": kind.pipeline or ("xp" if kind.answer is not Task.answer else "-"),
                "takes": kind.takes,
                "gives": kind.gives,
            }
    return [rows[name] for name in sorted(rows)]


def known_keys(overrides: list[str], folder: Path) -> list[str]:
    """The keys of the groups as chosen, read from the yamls in ``folder``: quicker than to compose once more."""
    import yaml

    root = yaml.safe_load((folder / "config.yaml").read_text())
    chosen = {group: choice for each in root["defaults"] if isinstance(each, dict) for group, choice in each.items()}
    chosen |= dict(each.split("=") for each in overrides if re.fullmatch(r"[a-z_]+=\w+", each))
    own = {key: value for key, value in root.items() if key not in ("defaults", "hydra")}
    keys = _paths(own, "")
    for group, choice in chosen.items():
        if group != "experiment" and (folder / group / f"{choice}.yaml").is_file():
            keys += [group, *_keys_of(group, str(choice), folder)]
    return keys


def choices_with(group: str, key: str, folder: Path) -> list[str]:
    """The choices of a group whose yamls state a key, but for those that only change a value of another one."""
    files = sorted((folder / group).glob("*.yaml")) if group.isidentifier() else []
    stated = [re.compile(rf"^{re.escape(each)}:", re.MULTILINE) for each in (key, "name")]
    return [file.stem for file in files if all(each.search(file.read_text()) for each in stated)]


def _keys_of(group: str, choice: str, folder: Path) -> list[str]:
    """The keys of a yaml and of those of its group that it is based on."""
    import yaml

    text = (folder / group / f"{choice}.yaml").read_text()
    settings = yaml.safe_load(text)
    bases = [each.partition("@")[0] for each in settings.get("defaults", []) if isinstance(each, str)]
    keys = [key for base in bases if base != "_self_" for key in _keys_of(group, base, folder)]
    return [*keys, *_paths(settings, "" if text.startswith("# @package _global_") else f"{group}.")]


def _paths(settings: dict[str, Any], prefix: str) -> list[str]:
    found = []
    for key, value in settings.items():
        if key != "defaults":
            found += [f"{prefix}{key}", *(_paths(value, f"{prefix}{key}.") if isinstance(value, dict) else [])]
    return found
