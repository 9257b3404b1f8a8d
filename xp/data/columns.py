"""Columns: from the source's names and shapes to the task's."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from xp.error import UserError, nearest

if TYPE_CHECKING:
    import pyarrow as pa
    from datasets import Dataset

ROW = "_row"
"""Column with a row's number in its source, counted from 0; kept wherever rows are left out."""

FAULT = "_fault"
"""Column with why a row could not be read, null where it could; only there if ``data.on_error`` is skip."""


def fields(feature: Any) -> dict[str, Any]:
    """The fields of a nested feature by name; none where it has no such fields."""
    if isinstance(feature, dict):
        return feature
    inner = feature.flatten() if type(feature).__name__ == "Translation" else {}
    return inner if isinstance(inner, dict) else {}


def feature_at(features: Mapping[str, Any], name: str) -> Any | None:
    """The feature of a column by its name, which may be dotted; None where there is none."""
    if name in features:
        return features[name]
    for at in (number for number, letter in enumerate(name) if letter == "."):
        if name[:at] in features:
            return feature_at(fields(features[name[:at]]), name[at + 1 :])
    return None


def has_column(rows: Dataset, name: str | list[str]) -> bool:
    """Whether the rows have a column, or all of several."""
    return all(feature_at(rows.features, each) is not None for each in ([name] if isinstance(name, str) else name))


def names_of(features: Mapping[str, Any], prefix: str = "") -> list[str]:
    """All names that a column can be asked for by."""
    found = []
    for name, feature in features.items():
        if name not in (ROW, FAULT):
            found += [prefix + name, *names_of(fields(feature), f"{prefix}{name}.")]
    return found


def table(rows: Dataset, names: list[str]) -> pa.Table:
    """Columns as an arrow table, in memory."""
    return rows.select_columns(names).with_format("arrow")[:]


def array_at(rows: Dataset, name: str) -> pa.Array:
    """A column by its name, which may be dotted, as one arrow array."""
    import pyarrow.compute as pc

    top = name
    while top not in rows.features:
        top = top.rpartition(".")[0]
    array = table(rows, [top])[top].combine_chunks()
    rest = name[len(top) + 1 :]
    while rest:
        inner = next(each.name for each in array.type if rest == each.name or rest.startswith(each.name + "."))
        array, rest = pc.struct_field(array, inner), rest[len(inner) + 1 :]
    return array


def shaped(rows: Dataset, wanted: Mapping[str, str | list[str]], whose: str) -> Dataset:
    """The rows with just the ``wanted`` columns and the ones that xp adds itself.

    Args:
        rows: as the source has them.
        wanted: what each column is called in the source.
        whose: the split and its source, for messages.

    Raises:
        UserError: a column that is not there, one that is wanted twice, or a list of columns of unequal types.
    """
    plain: dict[str, str] = {}
    made: dict[str, tuple[pa.Array, Any]] = {}
    for column, source in wanted.items():
        for name in [source] if isinstance(source, str) else source:
            if feature_at(rows.features, name) is None:
                there = names_of(rows.features)
                raise UserError(
                    f"data.columns.{column}={source}: the {whose} have no such column"
                    f"{f' as {name!r}' if name != source else ''}.{nearest(name, there)} "
                    f"Their columns: {', '.join(each for each in rows.column_names if each not in (ROW, FAULT))}"
                )
        if isinstance(source, list):
            made[column] = _listed(rows, column, source)
        elif source in rows.features:
            if source in plain:
                raise UserError(f"data.columns: {plain[source]} and {column} cannot both be {source!r}")
            plain[source] = column
        else:
            made[column] = array_at(rows, source), feature_at(rows.features, source)
    own = [name for name in (ROW, FAULT) if name in rows.column_names]
    chosen = rows.select_columns([*plain, *own])
    chosen = chosen.rename_columns({source: column for source, column in plain.items() if source != column})
    for column, (array, feature) in made.items():
        chosen = chosen.add_column(column, array, feature=feature)
    return chosen.select_columns([*wanted, *own])


def _listed(rows: Dataset, column: str, names: list[str]) -> tuple[pa.Array, Any]:
    """One column of lists from several columns."""
    import numpy as np
    import pyarrow as pa
    from datasets import List

    arrays = [array_at(rows, name) for name in names]
    for name, array in zip(names, arrays, strict=True):
        if array.type != arrays[0].type:
            raise UserError(
                f"data.columns.{column}: {names[0]} holds {arrays[0].type} and {name} holds {array.type}; "
                "one list needs one type"
            )
    size, width = len(rows), len(names)
    order = np.arange(size * width).reshape(width, size).T.ravel()
    values = pa.concat_arrays(arrays).take(pa.array(order))
    offsets = pa.array(np.arange(0, size * width + 1, width, dtype=np.int32))
    return pa.ListArray.from_arrays(offsets, values), List(feature_at(rows.features, names[0]))


def undecoded(rows: Dataset) -> Dataset:
    """The rows with pictures and sound as they are stored, ``{bytes, path}``: whoever needs one decodes it."""
    from dataclasses import replace

    for name, feature in rows.features.items():
        if type(feature).__name__ in ("Image", "Audio") and feature.decode:
            rows = rows.cast_column(name, replace(feature, decode=False))
    return rows
