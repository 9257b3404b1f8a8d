"""Features: rows are checked one by one, then encoded; both are remembered, so that the next run need not."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from xp.cache import digest, entry
from xp.data import Data, Side, Splits
from xp.data.columns import FAULT, ROW
from xp.error import UserError, nearest
from xp.task.base import Encoded, Trainable
from xp.task.identity import identity, processor_identity
from xp.task.mapping import mapped, workplace
from xp.training.stream import Stream

if TYPE_CHECKING:
    from datasets import Dataset


SIDES: tuple[Side, ...] = ("train", "eval")


class Fault(NamedTuple):
    """A row that cannot be used."""

    at: int
    """Position among the rows."""

    reason: str


@dataclass(frozen=True)
class Preparation:
    """How the rows of a run become features."""

    task: Trainable
    on_error: Literal["error", "skip"]
    folder: Path | None
    """The cache; None makes everything anew."""

    say: Callable[[str], None]

    def checked(self, splits: Splits) -> Splits:
        """The rows without those that the task cannot use, which are counted, if they are to be skipped.

        Raises:
            UserError: a row cannot be used, if that is an error, or none can.
        """
        return self._without(splits, {side: self._faults(side, splits) for side in SIDES if _rows(splits, side)})

    def with_known_labels(self, splits: Splits, labels: Sequence[str]) -> Splits:
        """The rows without those that are labelled with what is none of ``labels``; else like `checked`."""
        found = {side: unknown_labels(self.task, _rows(splits, side), labels) for side in SIDES if _rows(splits, side)}
        return self._without(splits, found)

    def _faults(self, side: Side, splits: Splits) -> list[Fault]:
        rows = _rows(splits, side)
        assert rows is not None
        if self.folder is None or len(rows) < 1000:  # Quicker than to look it up.
            return faults(self.task, rows, f"checking {side}")
        key = digest(["faults", splits.fingerprints[side], *identity(self.task)])

        def make(part: Path) -> None:
            (part / "faults.json").write_text(json.dumps(faults(self.task, rows, f"checking {side}")))

        path = entry(self.folder, key, make)[0]
        return [Fault(*each) for each in json.loads((path / "faults.json").read_text())]

    def _without(self, splits: Splits, found: dict[Side, list[Fault]]) -> Splits:
        notes = dict(splits.notes)
        kept: dict[str, Any] = {}
        for side, bad in found.items():
            rows = _rows(splits, side)
            assert rows is not None
            if bad:
                self.tell(splits, side, rows, bad)
                notes[f"{side}_skipped"] = notes.get(f"{side}_skipped", 0) + len(bad)
                rows = rows.select(sorted({*range(len(rows))} - {fault.at for fault in bad}))
            kept[side] = rows.remove_columns(FAULT) if FAULT in rows.column_names else rows
        return replace(splits, notes=notes, **kept)

    def tell(self, splits: Splits, side: Side, rows: Dataset, bad: Sequence[Fault]) -> None:
        """Say how many rows are left out, and why the first of them is.

        Raises:
            UserError: a row cannot be used, if that is an error, or none can.
        """
        first = f"{splits.key(side)}{described(splits, side, rows, bad[0])}"
        if self.on_error == "error":
            more = f" ({len(bad) - 1:,} more rows are at fault)" if len(bad) > 1 else ""
            raise UserError(f"{first}; mend the row or set data.on_error=skip{more}")
        if len(bad) == len(rows):
            raise UserError(f"{first}; and so are all {len(rows)} {side} rows at fault")
        self.say(f"{side}: {len(bad):,} of {len(rows):,} rows skipped, the first: {first}")

    def encoded(self, side: Side, splits: Splits, processor: Any, labels: Sequence[str]) -> tuple[Encoded, str]:
        """A split as features, and where they are from: ``hit`` (the cache), ``made``, ``mended`` or ``off``.

        Raises:
            UserError: what `Trainable.encode` refuses, a row at fault if that is an error, or no rows are left.
        """
        rows = _rows(splits, side)
        assert rows is not None
        encoded, how = self._remembered(side, splits, rows, processor, labels)
        if encoded.faults:
            self.tell(splits, side, rows, [Fault(*each) for each in encoded.faults])
            skipped = splits.notes.get(f"{side}_skipped", 0) + len(encoded.faults)
            encoded = replace(encoded, notes=encoded.notes | {"skipped": skipped})
        return encoded, how

    def _remembered(
        self, side: Side, splits: Splits, numbered: Dataset, processor: Any, labels: Sequence[str]
    ) -> tuple[Encoded, str]:
        rows = numbered.remove_columns(ROW)
        started = time.perf_counter()
        if self.folder is None:
            made = self._encode(side, splits, numbered, processor, labels)
            self.say(f"encoded {side}: {len(rows):,} rows in {time.perf_counter() - started:.1f} s, cache off")
            return made, "off"
        key = digest(
            ["features", side, splits.fingerprints[side], *identity(self.task), processor_identity(processor), *labels]
        )

        def make(part: Path) -> None:
            with workplace(part / "work"):
                encoded = self._encode(side, splits, numbered, processor, labels)
                encoded.rows.save_to_disk(str(part / "rows"))
            rest = {each.name: getattr(encoded, each.name) for each in fields(encoded) if each.name != "rows"}
            (part / "encoded.json").write_text(json.dumps(rest))

        # Every process asks for it: the first one makes it, meanwhile the others wait.
        path, how = entry(self.folder, key, make)
        from datasets import load_from_disk

        seconds = f"{len(rows):,} rows in {time.perf_counter() - started:.1f} s"
        words = {"hit": "cache hit", "made": f"made from {seconds}"}
        self.say(f"encoded {side}: {words.get(how, f'the cache was damaged; made anew from {seconds}')}")
        return Encoded(rows=load_from_disk(str(path / "rows")), **json.loads((path / "encoded.json").read_text())), how

    def _encode(self, side: Side, splits: Splits, rows: Dataset, processor: Any, labels: Sequence[str]) -> Encoded:
        encoded = self.task.encode(rows.remove_columns(ROW), processor, labels)
        if not len(encoded.rows):
            if encoded.faults:
                self.tell(splits, side, rows, [Fault(*each) for each in encoded.faults])
            raise UserError(f"task.overlong=drop: it leaves no {side} rows; raise task.max_length")
        return encoded

    def usable(self, splits: Splits, rows: Dataset, labels: Sequence[str] = ()) -> Dataset:
        """Those of a stream's rows that the task can use, with its columns and ``_row``.

        Raises:
            UserError: one that it cannot use, if that is an error.
        """
        bad = {fault.at: fault for fault in (*unknown_labels(self.task, rows, labels), *faults(self.task, rows))}
        if bad:
            self._refuse(splits, rows, bad[min(bad)])
        return rows.select([at for at in range(len(rows)) if at not in bad]).remove_columns(FAULT)

    def _refuse(self, splits: Splits, rows: Dataset, fault: Fault) -> None:
        if self.on_error == "error":
            first = f"{splits.key('train')}{described(splits, 'train', rows, fault)}"
            raise UserError(f"{first}; mend the row or set data.on_error=skip")

    def stream(self, data: Data, splits: Splits, processor: Any, labels: Sequence[str]) -> Stream:
        """The train rows of a source that is streamed: checked and encoded as they come, never cached."""
        assert splits.train is not None
        columns = [name for name in splits.train.column_names if name not in (ROW, FAULT)]
        skipped: dict[str, int] = {}

        def encode(rows: Dataset) -> Encoded:
            notes = {"read": len(rows)} | dict(skipped)
            skipped.clear()
            good = self.usable(splits, rows, labels)
            notes["skipped"] = len(rows) - len(good)
            if not len(good):
                return Encoded(good.remove_columns(ROW), notes)
            encoded = self.task.encode(good.remove_columns(ROW), processor, labels)
            if encoded.faults:
                self._refuse(splits, good, Fault(*encoded.faults[0]))
                notes["skipped"] += len(encoded.faults)
            counted = {name: number for name, number in encoded.notes.items() if name != "rows"}
            return replace(encoded, notes=notes | counted)

        return Stream(lambda: data.blocks(columns, skipped), encode)


def _rows(splits: Splits, side: Side) -> Dataset | None:
    return splits.train if side == "train" else splits.eval


def faults(task: Trainable, rows: Dataset, what: str = "checking") -> list[Fault]:
    """The rows that could not be read or that the task cannot use, and why."""
    names = [name for name in rows.column_names if name not in (ROW, FAULT)]

    def found(batch: dict[str, list[Any]], positions: list[int]) -> dict[str, list[Any]]:
        unread = batch.get(FAULT) or [None] * len(positions)
        bad = []
        for at, position in enumerate(positions):
            reason = unread[at] or task.fault({name: batch[name][at] for name in names})
            if reason is not None:
                bad.append((position, reason))
        return {"at": [at for at, _ in bad], "reason": [reason for _, reason in bad]}

    made = mapped(rows, found, {"at": "int64", "reason": "string"}, positions=True, what=what)
    return [Fault(at, reason) for at, reason in zip(made["at"][:], made["reason"][:], strict=True)]


def unknown_labels(task: Trainable, rows: Dataset | None, labels: Sequence[str]) -> list[Fault]:
    """The rows with a class that is none of ``labels``."""
    found: dict[int, str] = {}
    known = set(labels)
    for column in task.label_columns if rows is not None and labels else ():
        if rows is None or column not in rows.features:
            continue
        feature = rows.features[column]
        names = getattr(getattr(feature, "feature", feature), "names", None)
        inner = getattr(feature, "feature", None)
        if names is None and inner is not None and "int" in getattr(inner, "dtype", ""):
            continue  # A list of 0 and 1, one for each label.
        start = 0
        for batch in rows.select_columns([column]).with_format("arrow").iter(10_000):
            array = batch[column].combine_chunks()
            flat = array.flatten() if hasattr(array, "flatten") and hasattr(array, "offsets") else array
            if not {_name(value, names) for value in flat.unique().to_pylist()} <= known:
                for at, value in enumerate(array.to_pylist()):
                    values = value if isinstance(value, list) else [value]
                    odd = next((name for each in values if (name := _name(each, names)) not in known), None)
                    if odd is not None:
                        said = f"{column}: {odd!r} is not among the labels of the model or of training."
                        found.setdefault(start + at, f"{said}{nearest(odd, known)}")
            start += len(batch)
    return [Fault(at, found[at]) for at in sorted(found)]


def _name(value: Any, names: Sequence[str] | None) -> str:
    return names[value] if names and isinstance(value, int) and 0 <= value < len(names) else str(value)


def described(splits: Splits, side: Side, rows: Dataset, fault: Fault) -> str:
    """Where a row is, and why it cannot be used."""
    row = rows[fault.at]
    media = [value["path"] for value in row.values() if isinstance(value, dict) and value.keys() == {"bytes", "path"}]
    file = f" ({media[0]})" if media and media[0] else ""
    return f"{splits.place(side, row[ROW])}{file}: {' '.join(fault.reason.split())}"
