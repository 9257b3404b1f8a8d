"""What the installed peft knows, read from its source: importing it takes seconds, and a typing error should not."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path
from typing import Any

from xp.adapter.folder import methods, source
from xp.error import nearest

OURS = {"task_type", "peft_type", "auto_mapping", "peft_version", "base_model_name_or_path", "revision", "hidden_size"}
"""Options of every method that xp fills in."""

CLOSED = {"inference_mode", "megatron_config", "megatron_core", "runtime_config", "tokenizer_kwargs"}
"""Options that decide what is imported or downloaded, or nothing that is kept."""


@cache
def options(kind: str) -> frozenset[str]:
    """The options that a method's configuration class has."""
    folder = source() / "tuners" / kind.lower()
    name = re.search(r"config_cls=(\w+)", (folder / "__init__.py").read_text())
    assert name is not None
    return frozenset(_fields(name[1], folder / "config.py"))


def _fields(name: str, file: Path) -> set[str]:
    """The fields of a dataclass and of the classes that it derives from."""
    body = re.search(rf"^class {name}\b.*?(?=^class |^@|\Z)", file.read_text(), re.DOTALL | re.MULTILINE)
    if body is None:
        tuners = source() / "tuners"
        files = [source() / "config.py", *tuners.glob("*/config.py"), *tuners.glob("*.py")]
        others = [each for each in files if re.search(rf"^class {name}\b", each.read_text(), re.MULTILINE)]
        return _fields(name, others[0]) if others else set()
    (node,) = [each for each in ast.parse(body[0]).body if isinstance(each, ast.ClassDef)]
    own = {
        each.target.id for each in node.body if isinstance(each, ast.AnnAssign) and isinstance(each.target, ast.Name)
    }
    bases = [each.id for each in node.bases if isinstance(each, ast.Name) and each.id != "PushToHubMixin"]
    return own.union(*(_fields(base, file) for base in bases))


INITIALISATIONS = r"True|False|gaussian|orthogonal|pissa|pissa_niter_\d+|olora|eva|loftq"
"""Those of LoRA that xp can keep: what is saved is for the base as it was, and a run that goes on begins the same."""

NOT_HERE = {
    "corda": "it begins with statistics of the base that peft wants gathered in a training of their own",
    "mica": "it fixes a half of the adapter's weights, and checkpoints hold those that are trained",
}
"""Initialisations that peft has and xp has not, and why."""

ELSEWHERE = {"use_asa", "kasa_config", "monteclora_config", "auxiliary_loss_weight", "opt_weighted_loss_type"}
"""Options that only peft's own losses and trainers honour; xp has the task's loss and its own loop."""

COUNTS = {
    "r", "init_r", "target_r", "num_virtual_tokens", "num_tasks", "encoder_hidden_size", "n_frequency", "num_vectors",
    "vector_length", "adapter_len", "adapter_layers",
}  # fmt: skip
"""Options that are numbers of things of which there must be some; OFT's r is what its block size leaves open."""


LAYERS = {"exclude_modules", "feedforward_modules"}
"""Options that name layers: names in a list, or a regular expression of a whole name."""

PATTERNS: dict[str, tuple[type, ...]] = {"rank_pattern": (int,), "alpha_pattern": (int, float)}
"""Options that give layers numbers of their own, and of what type; AdaLoRA keeps something else in them."""


def check_type(kind: str) -> str:
    """A method's name as peft spells it.

    Raises:
        ValueError: the installed peft has no such method (says the nearest).
    """
    spelled = kind.upper().replace("-", "_")
    if spelled not in methods():
        raise ValueError(f"type={kind}: the installed peft has no such method.{nearest(spelled, methods())}")
    return spelled


def check_options(kind: str, given: dict[str, Any], settings: dict[str, str]) -> None:
    """Refuse options that a method does not have, or that something else says.

    Args:
        kind: the method, as peft spells it.
        given: the options.
        settings: options that have a setting of their own, and its name.

    Raises:
        ValueError: one of them cannot be given (says what to do).
    """
    known = options(kind)
    for name in sorted(given):
        if name not in known:
            there = sorted(known - OURS - CLOSED - set(settings))
            raise ValueError(f"options.{name}: peft's {kind} has no such option.{nearest(name, there)}")
        if name in settings:
            raise ValueError(f"options.{name}: peft.{settings[name]} says that")
        if name in OURS | CLOSED:
            raise ValueError(f"options.{name}: xp decides that itself; leave it out")
        if name in ELSEWHERE:
            raise ValueError(f"options.{name}: peft honours it in its own loss or trainer alone; leave it out")
        if kind == "CPT" and name == "num_virtual_tokens":
            raise ValueError("options.num_virtual_tokens: peft's CPT has one for each of cpt_token_ids; give those")
        if name in COUNTS and type(given[name]) is int and given[name] < (name != "r" or "oft_block_size" not in known):
            raise ValueError(f"options.{name}={given[name]}: it is a number of things; give 1 or more")
        if name in LAYERS and isinstance(given[name], str):
            _check_expression(name, given[name])
        if name in PATTERNS and kind != "ADALORA" and isinstance(given[name], dict):
            _check_pattern(name, given[name])
        if name == "init_lora_weights" and str(given[name]).startswith(("pissa", "olora")):
            _check_alone(kind, given)
        if name == "init_lora_weights" and not re.fullmatch(INITIALISATIONS, str(given[name])):
            if reason := NOT_HERE.get(str(given[name])):
                raise ValueError(f"options.{name}={given[name]}: {reason}; take pissa, olora or eva")
            words = INITIALISATIONS.lower().replace(r"\d+", "<number>").split("|")
            raise ValueError(
                f"options.{name}={given[name]}: xp does not have this initialisation.{nearest(str(given[name]), words)}"
            )


def _check_expression(name: str, pattern: str) -> None:
    try:
        re.compile(pattern)
    except re.error as error:
        raise ValueError(f"options.{name}: {pattern} is no regular expression: {error}") from error


def _check_pattern(name: str, given: dict[Any, Any]) -> None:
    """Refuse what is no number, or for no layer that could be.

    Raises:
        ValueError: such an entry.
    """
    for pattern, value in given.items():
        _check_expression(name, str(pattern))
        if type(value) not in PATTERNS[name] or value <= 0:
            number = "whole number of 1 or more" if name == "rank_pattern" else "number above 0"
            raise ValueError(f"options.{name}.{pattern}={value}: it must be a {number}")


def _check_alone(kind: str, given: dict[str, Any]) -> None:
    """Refuse what peft does not keep of an adapter that began with a part of its base.

    Raises:
        ValueError: such an option.
    """
    word = given["init_lora_weights"]
    if kind != "LORA":
        raise ValueError(f"options.init_lora_weights={word}: peft's {kind} does not look at it; leave it out")
    others = ["use_dora", "lora_bias", *(["rank_pattern", "alpha_pattern"] if given.get("use_rslora") else [])]
    for name in others:
        if given.get(name):
            raise ValueError(
                f"options.{name}: it does not go with init_lora_weights={word}, whose adapter peft turns into an "
                "ordinary one without it; leave one of them out"
            )
    check_bias(given, str(given.get("bias", "none")))


def check_bias(given: dict[str, Any], bias: str) -> None:
    """Refuse trained biases beside an initialisation that takes something from the base.

    Raises:
        ValueError: both are asked for.
    """
    word = str(given.get("init_lora_weights"))
    if bias != "none" and word.startswith(("pissa", "olora")):
        raise ValueError(f"bias={bias}: it does not go with init_lora_weights={word}; use none")


BESIDE = {"LN_TUNING", "TRAINABLE_TOKENS", "ADAPTION_PROMPT", "MULTITASK_PROMPT_TUNING"}
"""Methods of a folder of their own that do not look at the weights of linear layers."""


@cache
def takes_quantized(kind: str) -> bool:
    """Whether a method knows layers that bitsandbytes holds; the others would take their bytes for weights."""
    files = [*(source() / "tuners" / kind.lower()).glob("*.py")]
    words = re.compile("resolve_quantization_backend|bitsandbytes|PromptLearningConfig")
    return kind in BESIDE or any(words.search(file.read_text()) for file in files)
