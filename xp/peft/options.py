"""Options: values of a method's configuration class, as that class annotates them."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import is_dataclass
from typing import TYPE_CHECKING, Any

from xp.error import UserError, nearest

if TYPE_CHECKING:
    from peft import PeftConfig


def typed(made: type[PeftConfig], options: dict[str, Any], setting: Callable[[str], str]) -> dict[str, Any]:
    """The options, those that are mappings as the classes that they stand for.

    Args:
        made: the configuration class.
        options: values for its fields.
        setting: what the command line calls one of them.

    Raises:
        UserError: one has another type than its annotation.
    """
    from typing import get_type_hints

    from pydantic import TypeAdapter, ValidationError
    from pydantic.errors import PydanticSchemaGenerationError, PydanticUserError

    hints, values = get_type_hints(made), dict(options)
    for name, value in options.items():
        if re.fullmatch(r"pissa_niter_\d+", str(value)) and name == "init_lora_weights":
            continue
        try:
            checked = TypeAdapter(hints[name]).validate_json(json.dumps(value), strict=True)
        except (PydanticSchemaGenerationError, PydanticUserError):  # A type of peft's own; its class looks at it.
            continue
        except ValidationError as error:
            rules = sorted({each["msg"].replace("Input should be ", "") for each in error.errors()})
            words = re.findall(r"'([^']*)'", " ".join(rules))
            hint = nearest(value, words) if isinstance(value, str) and words else ""
            raise UserError(f"{setting(name)}={json.dumps(value)}: it must be {' or '.join(rules)}.{hint}") from error
        if is_dataclass(checked):
            values[name] = checked
    return values
