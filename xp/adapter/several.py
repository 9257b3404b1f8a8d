"""Several adapters on one network: which there are, which are active, and which one is trained."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from xp.adapter import experts
from xp.adapter.folder import Folder, located, read
from xp.error import UserError, nearest

NAME = r"[A-Za-z]\w*"
"""What an adapter can be called."""

NEW = "default"
"""What peft calls an adapter that nobody has named."""


@dataclass(frozen=True)
class Several:
    """Adapters by names of the user's own."""

    paths: dict[str, str]
    """Where each one is: a folder, or ``mlflow:<run id>``."""

    active: tuple[str, ...]
    """Those that take part; none of them leaves the network as it is without any."""

    trained: str | None = None
    """The one that is trained; the others stay as they are."""

    @property
    def leading(self) -> str:
        """The one whose labels and tokenizer are those of the whole."""
        return self.trained or [*self.active, *self.paths][0]

    def folder(self, name: str, locate: Callable[[str], str]) -> Folder:
        """What an adapter says of itself.

        Args:
            name: which one.
            locate: turns ``mlflow:<run id>`` into a folder.

        Raises:
            UserError: there is none, or the network could not hold it under this name.
        """
        key = f"peft.adapters.{name}={self.paths[name]}"
        check_name(name, key)
        folder = read(located(self.paths[name], f"peft.adapters.{name}", locate), key)
        if folder.kind == experts.KIND:
            raise UserError(f"{key}: X-LoRA mixes adapters of its own, and works alone; give it as model.path")
        if name == self.trained and folder.kind == "ADALORA":
            raise UserError(f"{key}: AdaLoRA has taken rank away by its schedule, and cannot be trained further")
        return folder

    def folders(self, locate: Callable[[str], str]) -> dict[str, Folder]:
        """What each of them says of itself, by name; arguments and errors as of `folder`."""
        return {name: self.folder(name, locate) for name in self.paths}

    @property
    def key(self) -> str:
        """The setting that has chosen them, for messages."""
        return f"peft.active=[{','.join(self.active)}]"

    @property
    def told(self) -> str:
        """What a person should know of them."""
        return f"adapters {', '.join(self.paths)}; active: {', '.join(self.active) or 'none of them'}"


def _spelled(name: str) -> bool:
    return bool(re.fullmatch(NAME, name)) and name != "none"


def check_names(names: Iterable[str]) -> None:
    """Refuse names of ``peft.adapters`` that no adapter can have.

    Raises:
        ValueError: such a name.
    """
    for name in names:
        if not _spelled(name):
            raise ValueError(f"adapters.{name}: a name has letters, digits and underscores, and begins with a letter")
        if name == NEW:
            raise ValueError(f"adapters.{name}: one that nobody has named is called so; give it another name")


def check_there(paths: dict[str, str]) -> None:
    """See whether the folders of ``peft.adapters`` are there; what MLflow has is asked for later.

    Raises:
        UserError: one is not.
    """
    for name, path in paths.items():
        if not path.startswith("mlflow:"):
            read(os.path.expanduser(path), f"peft.adapters.{name}={path}")


def check_name(name: str, key: str) -> None:
    """Refuse a name that torch could not hold an adapter under.

    Raises:
        UserError: such a name.
    """
    from torch.nn import ModuleDict

    if not _spelled(name) or hasattr(ModuleDict(), name):
        raise UserError(
            f"{key}: {name} cannot be an adapter's name; give another one, of letters, digits and underscores"
        )


def check_labels(folder: Folder, own: list[str], labels: list[str]) -> None:
    """Refuse an adapter that answers with other labels than those beside it; a model has one set of them.

    Raises:
        UserError: such an adapter.
    """
    if folder.kept and own != labels:
        raise UserError(
            f"{folder.key}: it answers {', '.join(own)}, and those beside it {', '.join(labels)}; use them one at a "
            "time, as model.path"
        )


def activate(network: Any, names: Sequence[str], key: str, trained: str | None = None) -> None:
    """Have these adapters of a network take part, and no others; all weights are frozen but the trained one's.

    Args:
        network: a ``PeftModel``.
        names: of its adapters; several add up, none leaves the network as it is without any.
        key: the setting or order that asks for them, with its value, for messages.
        trained: the one whose weights are to be trained.

    Raises:
        UserError: there is no such adapter, or its method cannot do that; nothing has changed then.
    """
    there = network.peft_config
    for name in names:
        if name not in there:
            raise UserError(f"{key}: there is no such adapter.{nearest(name, there)}")
    virtual = [name for name, config in there.items() if config.is_prompt_learning]
    if virtual and len(names) != 1:
        raise UserError(f"{key}: {virtual[0]} has virtual tokens, which work alone; give just one name")
    if virtual and trained:
        raise UserError(f"{key}: {virtual[0]} has virtual tokens, which are trained alone; give it as model.path")
    held = {name: getattr(config, "modules_to_save", None) or () for name, config in there.items()}
    # A language model has such a layer of its own, which is there again where no adapter has another one.
    own = trained is None and all(config.task_type in ("CAUSAL_LM", "SEQ_2_SEQ_LM") for config in there.values())
    if any(held.values()) and (sum(bool(held[name]) for name in names) > 1 if own else len(names) != 1):
        heads = sorted({layer for each in held.values() for layer in each})
        without = "" if own else " or done without"
        raise UserError(
            f"{key}: these adapters hold {', '.join(heads)} in full, which cannot be added up{without}; give "
            f"{'just one of them' if own else 'just one name'}"
        )
    if trained is not None:
        names = [trained, *sorted(set(names) - {trained})]  # Sums depend on the order; so its folder will have it.
    if not names:
        network.base_model.disable_adapter_layers()
    elif virtual:
        network.set_adapter(names[0])
    else:
        network.base_model.enable_adapter_layers()
        network.set_adapter(names[0], inference_mode=True)
        if len(names) > 1:
            network.base_model.set_adapter([*names], inference_mode=True)
    network.requires_grad_(False)
    if trained is not None:
        network.set_requires_grad(trained)


def active(network: Any) -> list[str]:
    """The adapters of a network that take part."""
    from peft.tuners.tuners_utils import BaseTunerLayer

    if any(isinstance(layer, BaseTunerLayer) and layer.disable_adapters for layer in network.modules()):
        return []
    return [*network.active_adapters]
