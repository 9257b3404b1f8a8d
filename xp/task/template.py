"""Templates: how a conversation becomes one text, from the tokenizer or from xp's small library."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from xp.error import UserError, nearest

if TYPE_CHECKING:
    from transformers import PreTrainedModel

FOLDER = Path(__file__).parent.parent / "assets" / "templates"
NEEDS = re.compile(r"xp: needs (.*?)\. ")
MARKS = re.compile(r"\{%-?\s*generation\s*-?%\}")
CONTROL = re.compile(r"<\|[^|<>\s'\"]+\|>|<(?:start|end)_of_turn>")


@cache
def library() -> dict[str, str]:
    """The templates that xp brings, by name. Each one marks what the assistant says with ``{% generation %}``."""
    return {file.stem: file.read_text("utf-8") for file in sorted(FOLDER.glob("*.jinja"))}


def check_there(template: str) -> None:
    """See whether there is such a template.

    Raises:
        UserError: it is neither ``auto``, nor a name of the library, nor a file.
    """
    names = {"auto", *(file.stem for file in FOLDER.glob("*.jinja"))}
    if template not in names and not Path(template).expanduser().is_file():
        raise UserError(
            f"task.template={template}: neither a file nor a template of the library.{nearest(template, names)}"
        )


def read(template: str) -> str:
    """The template of a name of the library, or in a file.

    Raises:
        UserError: neither is there, or the file is no Jinja template.
    """
    check_there(template)
    if template in library():
        return library()[template]
    from jinja2 import TemplateError
    from transformers.utils.chat_template_utils import _compile_jinja_template

    text = Path(template).expanduser().read_text("utf-8")
    try:
        _compile_jinja_template(text)
    except (TemplateError, RecursionError, SyntaxError) as error:
        line = getattr(error, "lineno", None)
        raise UserError(f"task.template={template}:{f' line {line}:' if line else ''} {error}") from error
    return text


def marked(processor: Any, tools: list[Any] | None = None) -> bool:
    """Whether the tokenizer's template marks what the assistant says."""
    return MARKS.search(processor.get_chat_template(tools=tools)) is not None


def missing(text: str, processor: Any) -> list[str]:
    """What a template of the library needs and a tokenizer lacks: control tokens, or ``eos_token``."""
    stated = NEEDS.search(text)
    return [token for token in (stated[1].split() if stated else []) if not _has(processor, token)]


def _has(processor: Any, token: str) -> bool:
    """Whether a tokenizer has a token of its own for this text."""
    if token == "eos_token":
        return processor.eos_token is not None
    found = processor.encode(token, add_special_tokens=False)
    return len(found) == 1 and processor.convert_ids_to_tokens(found) == [token]


def settle(
    template: str, processor: Any, network: PreTrainedModel | None, *, add_tokens: bool, adapted: bool
) -> list[str]:
    """Give a tokenizer its template, by which it is saved with the model; gives what a person should know.

    Args:
        template: ``auto`` (the tokenizer's own, else ``plain``), a name of the library, or a file.
        processor: the tokenizer, changed in place.
        network: gets embeddings for new tokens; None where only the tokenizer is wanted.
        add_tokens: whether tokens that the template needs may be added.
        adapted: whether the embeddings stay as they are, because an adapter trains, or nothing does.

    Raises:
        UserError: no such template, or one that this tokenizer has no tokens for.
    """
    said: list[str] = []
    if template == "auto" and processor.chat_template:
        text = processor.get_chat_template()
    else:
        if template == "auto":
            template = "plain"
            said.append(
                "template: the tokenizer has none of its own, so it gets xp's plain one; "
                f"task.template={' or '.join(fitting(processor, but='plain'))} would fit, too"
            )
        text = read(template)
        lacking = missing(text, processor)
        if lacking:
            said.append(_added(template, lacking, processor, network, add_tokens=add_tokens, adapted=adapted))
        processor.chat_template = text
        if not NEEDS.search(text):
            split = sorted({token for token in CONTROL.findall(text) if not _has(processor, token)})
            if split:
                said.append(f"warning: the template writes {', '.join(split)}, which is plain text to this tokenizer")
    if "strftime_now" in text:
        said.append("warning: the template writes today's date into conversations, so tomorrow's run sees other tokens")
    return said


def fitting(processor: Any, but: str = "") -> list[str]:
    """Names of the library's templates that a tokenizer has the tokens for."""
    return [name for name, text in library().items() if name != but and not missing(text, processor)]


def _added(
    template: str,
    lacking: list[str],
    processor: Any,
    network: PreTrainedModel | None,
    *,
    add_tokens: bool,
    adapted: bool,
) -> str:
    fits = ", ".join(fitting(processor)) or "none"
    if "eos_token" in lacking:
        raise UserError(f"task.template={template}: it ends answers with the end token, and this tokenizer has none")
    if not add_tokens:
        raise UserError(
            f"task.template={template}: this tokenizer has no token for {', '.join(lacking)}. Templates that fit it: "
            f"{fits}. Or task.add_tokens=true, to train new ones"
        )
    if adapted:
        raise UserError(
            f"task.add_tokens=true: {', '.join(lacking)} would be new, and their embeddings would not train; "
            f"use peft=none, or a template that fits: {fits}"
        )
    processor.add_special_tokens({"extra_special_tokens": lacking}, replace_extra_special_tokens=False)
    if network is not None and len(processor) > network.get_input_embeddings().weight.shape[0]:
        network.resize_token_embeddings(len(processor))
    return f"template: {template} has new tokens in this model: {', '.join(lacking)}"
