"""Layers: which of a network's an adapter is on, found, counted and told."""

from __future__ import annotations

import re
from collections import Counter
from typing import TYPE_CHECKING, Any

from xp.error import UserError, nearest
from xp.peft.base import Purpose

if TYPE_CHECKING:
    from torch import nn
    from transformers import PreTrainedModel

FULL = {"QUESTION_ANS": ["qa_outputs"], "TOKEN_CLS": ["classifier", "score"], "SEQ_CLS": ["classifier", "score"]}
"""Heads that peft trains in full for a task, where a network has them."""


def heads(network: PreTrainedModel, purpose: Purpose) -> list[str]:
    """Linear layers that peft trains in full for a task, and that ``all-linear`` would adapt beside that, and fail."""
    names = {**FULL, "SEQ_CLS": []}.get(purpose.task_type or "", [])
    saved = [*names, *(name.rpartition(".")[0] for name in purpose.new)]
    there = [name for name, _ in network.named_modules()]
    return sorted({head for head in saved if any(f".{name}".endswith(f".{head}") for name in there)})


def told(kind: str, adapted: Any) -> str:
    """Which layers an adapter is on, for example ``lora on 24 layers: q_proj 12, v_proj 12``."""
    from peft.tuners.tuners_utils import BaseTunerLayer

    config = adapted.active_peft_config
    if config.is_prompt_learning:
        return f"{kind.lower()}: {config.num_virtual_tokens} virtual tokens"
    names = [name for name, part in adapted.named_modules() if isinstance(part, BaseTunerLayer)]
    if not names:  # It wraps whole blocks.
        return f"{kind.lower()} on {getattr(config, 'adapter_layers', 'some')} layers"
    counts = Counter(_last(name) for name in names)
    each = ", ".join(f"{name} {number}" for name, number in sorted(counts.items()))
    return f"{kind.lower()} on {len(names)} layer{'s' * (len(names) > 1)}: {each}"


def _last(name: str) -> str:
    """The last word of a layer's name that is no number."""
    return next((part for part in reversed(name.split(".")) if not part.isdigit()), name)


def saved(adapted: Any, new: list[str]) -> str:
    """Which layers are trained and saved in full, and which of them are new; empty where there are none."""
    from peft.utils import ModulesToSaveWrapper

    names = [name for name, part in adapted.named_modules() if isinstance(part, ModulesToSaveWrapper)]
    names = [name.removeprefix("base_model.model.").removeprefix("base_model.") for name in names]
    fresh = {name.rpartition(".")[0] for name in new}
    told = [f"{name} (new)" if name in fresh else name for name in sorted(names)]
    return f"trained and saved in full: {', '.join(told)}" if told else ""


def linear(network: nn.Module) -> list[str]:
    """The last words of the names of a network's linear layers."""
    from torch import nn
    from transformers.pytorch_utils import Conv1D

    parts = network.named_modules()
    return sorted({_last(name) for name, part in parts if isinstance(part, (nn.Linear, Conv1D)) and name})


def usual(kind: str, network: PreTrainedModel) -> list[str]:
    """The layers that peft adapts of an architecture where nobody says which.

    Raises:
        UserError: it does not know the architecture.
    """
    from peft.mapping import PEFT_TYPE_TO_TUNER_MAPPING

    mapping = getattr(PEFT_TYPE_TO_TUNER_MAPPING[kind], "target_module_mapping", {})
    if network.config.model_type not in mapping:
        raise unknown(kind, network)
    return list(mapping[network.config.model_type])


def unknown(kind: str, network: PreTrainedModel) -> UserError:
    """That peft does not know which layers of an architecture to adapt."""
    parts = sorted({_last(name) for name, part in network.named_modules() if name and not list(part.children())})
    return UserError(
        f"peft.target_modules=null: peft does not know which layers of a {network.config.model_type} {kind} is for; "
        f"give names of them. There is: {', '.join(parts)}"
    )


def nothing(
    wanted: str | list[str] | None, network: PreTrainedModel, key: str = "peft.target_modules", more: str = "all-linear"
) -> UserError:
    """That no layer matches, with those that there are, and what else ``key`` may say."""
    there = linear(network)
    first = wanted if isinstance(wanted, str) else [*(wanted or []), ""][0]
    hint = nearest(first, [*there, *([more] if more else [])])
    if isinstance(wanted, str) and "'all-linear'" not in hint:
        hint = " A string is a regular expression of a whole name, and a list has names." + hint.replace("'", "")
        hint = re.sub(r"Did you mean (\S+)\?", r"Did you mean [\1]?", hint)
    has = ", ".join(there) + (f"; or {more}" if more else "")
    hint = re.sub(r" There is: .*", "", hint)  # They are named below.
    return UserError(f"{key}={wanted}: no layer of this model matches.{hint} Its linear layers: {has}")
