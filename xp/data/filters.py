"""Conditions on columns, as a config may state them: parsed strictly, never evaluated as code."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from xp.data.columns import FAULT, array_at, feature_at, names_of
from xp.error import UserError, nearest

if TYPE_CHECKING:
    import pyarrow as pa
    from datasets import Dataset

COMPARISONS = {"==": "equal", "!=": "not_equal", "<=": "less_equal", "<": "less", ">=": "greater_equal", ">": "greater"}
"""Operators, and what pyarrow.compute calls them."""

OPERATORS = (*COMPARISONS, "not in", "in", "is not null", "is null")
QUOTED = r"'[^']*'|\"[^\"]*\""
FORM = re.compile(
    r"\s*(?P<length>length\(\s*)?(?P<column>[^\s=!<>()\[\],'\"]+)(?(length)\s*\))\s*"
    r"(?P<operator>==|!=|<=|<|>=|>|\s(?:not\s+in|in)\b|\s?is\s+not\s+null\b|\s?is\s+null\b)\s*(?P<value>.*?)\s*"
)


@dataclass(frozen=True)
class Condition:
    """One condition on one column."""

    said: str
    """As it was given."""

    column: str
    length: bool
    """Whether it is about the number of letters or items, and not the value itself."""

    operator: str
    values: tuple[str, ...]
    """What is compared with, as it was written; quotes are kept."""

    @classmethod
    def parse(cls, said: str) -> Condition:
        """The condition that a text states.

        Raises:
            ValueError: it states none; names the key and the form.
        """
        match = FORM.fullmatch(said)
        if match is None:
            raise ValueError(
                f"{said!r} is no condition; write <column> <operator> <value> or length(<column>) <operator> <value>, "
                f"with an operator of {', '.join(OPERATORS)}"
            )
        operator, value = " ".join(match["operator"].split()), match["value"]
        if operator.startswith("is"):
            if value:
                raise ValueError(f"{said!r}: nothing comes after {operator!r}")
            values: tuple[str, ...] = ()
        elif operator in ("in", "not in"):
            if not (value.startswith("[") and value.endswith("]")):
                raise ValueError(f"{said!r}: after {operator!r} comes a list in brackets, for example [a, b]")
            values = tuple(part.strip() for part in re.findall(rf"(?:{QUOTED}|[^,])+", value[1:-1]))
        else:
            values = (value,)
        for each in values:
            if not re.fullmatch(rf"{QUOTED}|[^'\"\[\]=<>]+", each):
                raise ValueError(f"{said!r}: {each!r} is no value; put text with special signs in quotes")
        if not values and not operator.startswith("is"):
            raise ValueError(f"{said!r}: the list is empty, so no row could meet it")
        return cls(said, match["column"], match["length"] is not None, operator, values)

    def meets(self, rows: Dataset, side: str) -> pa.Array:
        """Whether each row meets the condition, as an arrow array of booleans.

        Raises:
            UserError: no such column, or a value or operator that does not fit the column's type.
        """
        import pyarrow as pa
        import pyarrow.compute as pc

        feature = feature_at(rows.features, self.column)
        if feature is None:
            there = names_of(rows.features)
            raise UserError(
                f"data.filters: {self.said!r}: the {side} rows have no column {self.column!r}."
                f"{nearest(self.column, there)}"
            )
        array = array_at(rows, self.column)
        if self.operator in ("is null", "is not null"):
            null = pc.is_null(array)
            return null if self.operator == "is null" else pc.invert(null)
        names = getattr(feature, "names", None)
        if self.length:
            array, names = self._lengths(array), None
        values = pa.array([self._value(text, array.type, names) for text in self.values])
        if self.operator in ("in", "not in"):
            inside = pc.is_in(array, value_set=values.cast(array.type, safe=False) if names else values)
            met = inside if self.operator == "in" else pc.and_(pc.invert(inside), pc.is_valid(array))
        else:
            if self.operator not in ("==", "!=") and (names or pa.types.is_boolean(array.type)):
                raise self._misfit(f"{self.operator} is for numbers and text; use ==, !=, in or not in")
            met = getattr(pc, COMPARISONS[self.operator])(array, values[0])
        return pc.fill_null(met, False)

    def _lengths(self, array: pa.Array) -> pa.Array:
        import pyarrow as pa
        import pyarrow.compute as pc

        if pa.types.is_string(array.type) or pa.types.is_large_string(array.type):
            return pc.utf8_length(array)
        if pa.types.is_list(array.type) or pa.types.is_large_list(array.type):
            return pc.list_value_length(array)
        raise self._misfit(f"{self.column} holds {array.type}, which has no length")

    def _value(self, text: str, kind: pa.DataType, names: Sequence[str] | None) -> Any:
        """A written value as one of the column's type."""
        import pyarrow as pa

        quoted = re.fullmatch(QUOTED, text) is not None
        plain = text[1:-1] if quoted else text
        if names is not None and (quoted or plain in names or not re.fullmatch(r"-?\d+", plain)):
            if plain not in names:
                raise self._misfit(f"{plain!r} is no label of {self.column}.{nearest(plain, names)}")
            return list(names).index(plain)
        if pa.types.is_string(kind) or pa.types.is_large_string(kind):
            if self.operator in ("<", "<=", ">", ">=") and not quoted and re.fullmatch(r"[+-]?[\d.]+", plain):
                raise self._misfit(f"{self.column} holds texts, which are no numbers; quote {plain} to go by letters")
            return plain
        if pa.types.is_boolean(kind) and not quoted and plain in ("true", "false"):
            return plain == "true"
        if (pa.types.is_integer(kind) or pa.types.is_floating(kind)) and not quoted:
            try:
                return int(plain) if re.fullmatch(r"[+-]?\d+", plain) else float(plain)
            except ValueError:
                pass
        held = {"bool": "true and false"}.get(str(kind), f"{kind}")
        raise self._misfit(f"{self.column} holds {held}, and {text} is none")

    def _misfit(self, reason: str) -> UserError:
        return UserError(f"data.filters: {self.said!r}: {reason}")


def kept(rows: Dataset, conditions: Sequence[Condition], side: str) -> Dataset:
    """The rows that meet all conditions; a row that could not be read is kept, to be told of."""
    import numpy as np
    import pyarrow.compute as pc

    met = np.ones(len(rows), dtype=bool)
    for condition in conditions:
        met &= condition.meets(rows, side).to_numpy(zero_copy_only=False)
    if FAULT in rows.column_names:
        met |= pc.is_valid(array_at(rows, FAULT)).to_numpy(zero_copy_only=False)
    return rows if met.all() else rows.select(np.flatnonzero(met))
