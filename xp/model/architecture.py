"""Architecture: which class has a model's network, and how its weights are called in it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedModel

    from xp.model.base import Wish


def able(names: str | tuple[str, ...], config: PretrainedConfig) -> str:
    """The Auto class that has a model's architecture; where none of them has, the class that its config names.

    But not a class that belongs to another task: with MaskFormer's successors, which belong to none, it is the one.
    """
    if isinstance(names, str):
        return names
    import transformers
    from transformers.pipelines import SUPPORTED_TASKS

    own: list[str] = list(config.architectures or ())
    found: dict[str, list[str]] = {}
    for name in names:
        mapping = getattr(transformers, name)._model_mapping
        if type(config) in mapping:
            classes = mapping[type(config)]
            found[name] = [each.__name__ for each in (classes if isinstance(classes, tuple) else (classes,))]
    exact = [name for name, classes in found.items() if set(classes) & set(own)]
    autos = [auto for task in SUPPORTED_TASKS.values() for auto in task["pt"]]
    others = {getattr(auto._model_mapping, "_model_mapping", {}).get(config.model_type) for auto in autos}
    named = [] if found else [each for each in own if hasattr(transformers, each) and each not in others]
    remote = [name for name in names if name in (getattr(config, "auto_map", None) or {})]
    return [*exact, *found, *remote, *named, *names][0]


def on_meta(auto: Any, config: PretrainedConfig, trust_remote_code: bool) -> PreTrainedModel:
    """A network without weights, which costs next to nothing: to look at its layers."""
    import torch

    with torch.device("meta"):
        if hasattr(auto, "from_config"):
            return auto.from_config(config, trust_remote_code=trust_remote_code)
        return auto._from_config(config)


def label_names(config: PretrainedConfig) -> list[str]:
    """Names of a model's labels in the order of their ids."""
    return [name for _, name in sorted((config.id2label or {}).items())]


def lacking(report: dict[str, Any], spare: tuple[str, ...]) -> list[str]:
    """Names of a network's weights that its source has none for, or of another size.

    Args:
        report: of transformers on what it has loaded.
        spare: parts of the network that nobody needs.
    """
    mismatched = {name if isinstance(name, str) else name[0] for name in report["mismatched_keys"]}
    missing = set(report["missing_keys"]) | mismatched
    return sorted(name for name in missing if not set(spare) & set(name.split(".")))


def renamed_base(prefix: str, report: dict[str, Any]) -> dict[str, str]:
    """What to rename where a network expects the base model's weights under another name than they are stored.

    The question answering heads of Llama, Qwen and others call ``transformer`` what all else calls ``model``:
    loaded as they are, these networks would silently begin with random weights.

    Args:
        prefix: the network's name for the base model.
        report: transformers' loading info.
    """
    lost = {name.removeprefix(f"{prefix}.") for name in report["missing_keys"] if name.startswith(f"{prefix}.")}
    there = set(report["unexpected_keys"])
    for other in sorted({name.partition(".")[0] for name in there}):
        if lost and all(f"{other}.{name}" in there for name in lost):
            return {rf"^{other}\.": f"{prefix}."}
    return {}


def renewed_head(network: PreTrainedModel) -> list[str]:
    """Make all that lies outside of the base model random again; gives the names of these weights."""
    names = []
    for name, part in network.named_children():
        if name != network.base_model_prefix:
            for module in part.modules():
                if hasattr(module, "reset_parameters"):
                    module.reset_parameters()
            names += [f"{name}.{inner}" for inner, _ in part.named_parameters()]
    return names


def settled_labels(own: list[str], wish: Wish) -> list[str]:
    """The model's own labels, where they are those of the rows (or of no rows); else those of the rows."""
    if "id2label" not in wish.config([]):  # The task has no classes.
        return []
    own = own if wish.classes is None else [f"LABEL_{number}" for number in range(wish.classes)]
    return own if not wish.train or not wish.labels or sorted(own) == sorted(wish.labels) else wish.labels
