"""Heads: the classes of an adapter whose folder has no config of its network, as of what peft alone saves."""

from __future__ import annotations

from pathlib import Path

from xp.adapter.folder import WEIGHTS, Folder

HEADS = {"classifier", "score"}
"""What transformers calls the heads of classifiers."""


def classes(folder: Folder) -> int | None:
    """How many classes the head has that an adapter holds; None where a config says so, or it holds no head."""
    file = Path(folder.path, WEIGHTS[0])
    if folder.has_config or folder.task_type not in ("SEQ_CLS", "TOKEN_CLS") or not file.is_file():
        return None
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(file, "np") as weights:
            names = [name for name in weights.keys() if folder.holds(name) and HEADS & {*name.split(".")}]  # noqa: SIM118
            shapes = [weights.get_slice(name).get_shape() for name in names]
    except SafetensorError:  # What loads it says what is wrong with it.
        return None
    return min((shape[0] for shape in shapes if len(shape) == 2), default=None)


def head_labels(folder: Folder | None) -> list[str]:
    """The names that transformers gives classes without any, of such a head; empty where there is none."""
    return [f"LABEL_{number}" for number in range((classes(folder) if folder else None) or 0)]
