"""Fingerprints of rows: by their content alone, whatever file format, chunks or arrow types they came in."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from functools import cache
from typing import TYPE_CHECKING, Any

from xp.data.columns import ROW
from xp.error import UserError

if TYPE_CHECKING:
    import pyarrow as pa
    from datasets import Dataset

BATCH = 10_000
"""Rows that are hashed at once."""


def fingerprint(rows: Dataset) -> str:
    """SHA-256 over the content of rows, in their order; ``_row`` does not count, and media count by their bytes."""
    digest = hashlib.sha256()
    names = sorted(name for name in rows.column_names if name != ROW)
    for batch in rows.select_columns(names).with_format("arrow").iter(BATCH):
        for name in names:
            digest.update(f"column {name} {len(batch)}".encode())
            _update(digest, batch[name].combine_chunks())
    return digest.hexdigest()


def row_digests(rows: Dataset) -> Iterator[bytes]:
    """A digest of each row's content, ``_row`` aside; for a million rows of text about three seconds."""
    names = sorted(name for name in rows.column_names if name != ROW)
    for batch in rows.select_columns(names).with_format("arrow").iter(BATCH):
        columns = [batch[name].to_pylist() for name in names]
        for row in zip(*columns, strict=True):
            plain = [_content(value) for value in row]
            yield hashlib.blake2b(repr(plain).encode(errors="surrogatepass"), digest_size=16).digest()


def deduplicated(rows: Dataset, held_out: Dataset | None, notes: dict[str, int]) -> Dataset:
    """The train rows without repetitions and without those that are among the eval rows; counts go to ``notes``.

    Raises:
        UserError: no rows are left.
    """
    evaluated = set() if held_out is None else set(row_digests(held_out))
    seen: set[bytes] = set()
    unique = []
    shared = 0
    for number, digest in enumerate(row_digests(rows)):
        shared += digest in evaluated
        if digest not in evaluated and digest not in seen:
            unique.append(number)
        seen.add(digest)
    notes["train_duplicates"] = len(rows) - len(unique) - shared
    if held_out is not None:
        notes["train_also_in_eval"] = shared
    if not unique:
        raise UserError("data.deduplicate=true: it leaves no train rows, all of them are among the eval rows")
    return rows.select(unique) if len(unique) < len(rows) else rows


def _content(value: Any) -> Any:
    if isinstance(value, dict) and value.keys() == {"bytes", "path"}:
        return media_digest(value)
    return value


def media_digest(value: dict[str, Any]) -> bytes:
    """A digest of a picture's or sound's encoded bytes, wherever they are; never decodes them."""
    if value["bytes"] is not None:
        return hashlib.sha256(value["bytes"]).digest()
    return _file_digest(value["path"] or "")


@cache
def _file_digest(path: str) -> bytes:
    try:
        with open(path, "rb") as file:
            return hashlib.file_digest(file, "sha256").digest()
    except OSError:
        return f"unreadable {path}".encode()


def _update(digest: Any, array: pa.Array) -> None:
    """Hash an array by its values: equal values of string, large_string and so on are hashed alike."""
    import numpy as np
    import pyarrow as pa
    import pyarrow.compute as pc

    if pa.types.is_dictionary(array.type):
        array = array.dictionary_decode()
    if isinstance(array, pa.ExtensionArray):
        array = array.storage
    kind = array.type
    digest.update(np.packbits(array.is_valid().to_numpy(zero_copy_only=False)).tobytes())
    if pa.types.is_struct(kind):
        _update_struct(digest, array)
    elif pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind):
        digest.update(b"list" + _bytes(pc.list_value_length(array), "int64"))
        _update(digest, array.flatten())
    elif pa.types.is_integer(kind):
        digest.update(b"integer" + _bytes(array, "int64"))
    elif pa.types.is_floating(kind):
        digest.update(b"float" + _bytes(array, "float64"))
    elif pa.types.is_boolean(kind):
        digest.update(b"boolean" + _bytes(array.cast("int8"), "int8"))
    elif any(each(kind) for each in (pa.types.is_string, pa.types.is_binary, pa.types.is_large_string,
                                     pa.types.is_large_binary)):  # fmt: skip
        digest.update(b"text" + _bytes(pc.binary_length(array), "int64"))
        _update_text(digest, array.drop_null().cast(pa.large_binary()))
    elif not pa.types.is_null(kind):  # Dates, decimals and the like: by how they are written.
        digest.update(f"{kind} {array.to_pylist()}".encode())


def _update_struct(digest: Any, array: pa.Array) -> None:
    names = [each.name for each in array.type]
    if {*names} == {"bytes", "path"}:
        for value in array.to_pylist():
            digest.update(media_digest(value) if value is not None else b"-")
        return
    parts = array.flatten()
    for number in sorted(range(len(names)), key=lambda number: names[number]):
        digest.update(f"field {names[number]}".encode())
        _update(digest, parts[number])


def _update_text(digest: Any, array: pa.Array) -> None:
    """All values end to end, from the one buffer that they lie in; with their lengths nothing is ambiguous."""
    import numpy as np

    if not len(array):
        return
    _, ends, values = array.buffers()
    offsets = np.frombuffer(ends, dtype=np.int64)[array.offset : array.offset + len(array) + 1]
    if values is not None:
        digest.update(values.slice(int(offsets[0]), int(offsets[-1] - offsets[0])))


def _bytes(array: pa.Array, kind: str) -> bytes:
    import pyarrow as pa
    import pyarrow.compute as pc

    filled = pc.fill_null(array.cast(kind, safe=False), pa.scalar(0, kind))
    made: bytes = filled.to_numpy(zero_copy_only=False).tobytes()
    return made
