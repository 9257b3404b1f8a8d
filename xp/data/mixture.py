"""Several sources as one, mixed by weight."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Literal

from pydantic import PositiveFloat, model_validator

from xp.data.base import Data
from xp.data.columns import FAULT, ROW
from xp.data.fingerprint import deduplicated
from xp.data.splits import Side
from xp.data.streamed import BLOCK
from xp.error import UserError, nearest

if TYPE_CHECKING:
    from datasets import Dataset

APART = 1 << 40
"""What the ``_row`` of one source is away from that of the next."""


class Mixture(Data, name="mixture"):
    """Train rows of several sources, drawn at random by weight; the eval rows of all of them, one after the other.

    Each source is a complete data component, with its own columns, filters, caps and splits; only ``on_error`` and
    ``streaming`` hold for all of them.
    """

    sources: dict[str, Data]
    """The sources by a name of one's own: ``+data@data.sources.reviews=sst2``."""

    weights: dict[str, PositiveFloat]
    """Share of the rows that each source gives, in any unit; ``{}`` gives each the same."""

    mixing_seed: int
    """Order in which the sources are drawn from."""

    stopping: Literal["first_exhausted", "all_exhausted"]
    """End where the first source has no more rows, or go on, repeating the shorter ones, until all were seen."""

    @model_validator(mode="after")
    def _complete(self) -> Mixture:
        if not self.sources:
            raise ValueError("sources: a mixture needs some; give +data@data.sources.<name>=<data>")
        for name in self.weights:
            if name not in self.sources:
                raise ValueError(f"weights.{name}: there is no such source.{nearest(name, self.sources)}")
        for name in self.sources if self.weights else ():
            if name not in self.weights:
                raise ValueError(f"weights.{name}: has no value, and the other sources have one; give it one")
        for name in ("columns", "filters", "eval_share"):
            if getattr(self, name):
                raise ValueError(f"{name}: a mixture has none of its own; set sources.<name>.{name}")
        if self.deduplicate and self.stopping == "all_exhausted":
            raise ValueError("deduplicate=true: stopping=all_exhausted repeats rows; set sources.<name>.deduplicate")
        return self

    @model_validator(mode="after")
    def _sources_fit(self) -> Mixture:
        for name, source in self.sources.items():
            if isinstance(source, Mixture):
                raise ValueError(f"sources.{name}: another mixture cannot be one of them; name its sources here")
            if source.streaming and not self.streaming:
                raise ValueError(f"sources.{name}.streaming=true: all stream or none does; set data.streaming=true")
            for key in ("deduplicate", "eval_share") if self.streaming else ():
                if getattr(source, key):
                    raise ValueError(f"sources.{name}.{key}: it needs all rows at once, which streaming=true never has")
        return self

    def check_files(self, train: bool) -> None:
        """Those of every source."""
        for each in self.sources.values():
            each.check_files(train)

    def read(self, train: bool) -> tuple[Dataset | None, Dataset | None, str]:
        """Never called: a mixture's rows are mixed once each source has shaped its own."""
        raise NotImplementedError

    def sides(
        self,
        columns: Sequence[str],
        others: Sequence[Sequence[str]],
        optional: Sequence[str],
        train: bool,
        notes: dict[str, int],
    ) -> tuple[dict[str, Dataset], str]:
        """The sources' rows, mixed."""
        from datasets import concatenate_datasets, interleave_datasets

        parts: dict[str, dict[str, Dataset]] = {"train": {}, "eval": {}}
        places = []
        for number, (name, source) in enumerate(self._sources().items()):
            own: dict[str, int] = {}
            try:
                found, place = source.sides(columns, others, optional, train, own)
            except UserError as error:
                raise UserError(f"data.sources.{name}: {error}") from error
            places.append(f"{name} ({place})")
            for key, count in own.items():
                notes[key] = notes.get(key, 0) + count
            for side, rows in found.items():
                parts[side][name] = rows if side == "train" and self.streaming else _numbered(rows, number)
        if train and len(parts["train"]) < len(self.sources):
            missing = next(name for name in self.sources if name not in parts["train"])
            raise UserError(f"data.sources.{missing}: it has no rows to train on")
        mixed = {}
        if train:
            rows = list(self._alike(parts["train"]).values())
            mixed["train"] = (
                rows[0]
                if self.streaming
                else interleave_datasets(rows, self._shares, seed=self.mixing_seed, stopping_strategy=self.stopping)
            )
        if parts["eval"]:
            mixed["eval"] = concatenate_datasets(list(self._alike(parts["eval"]).values()))
        if train and self.deduplicate:
            mixed["train"] = deduplicated(mixed["train"], mixed.get("eval"), notes)
        most = {"train": self.train_rows, "eval": self.eval_rows}
        return {side: self._capped(rows, most[side]) for side, rows in mixed.items()}, ", ".join(places)

    def blocks(self, columns: Sequence[str], notes: dict[str, int]) -> Iterator[Dataset]:
        """The sources' streams, drawn from by weight in an order that ``mixing_seed`` alone decides."""
        import numpy as np
        from datasets import concatenate_datasets

        sources = list(self._sources().values())
        streams = [source.blocks(columns, notes) for source in sources]
        waiting: list[Dataset | None] = [None] * len(sources)
        ended: set[int] = set()
        pattern: Dataset | None = None
        room = self.train_rows
        generator = np.random.default_rng(self.mixing_seed)

        def filled(number: int, least: int) -> int:
            """Have ``least`` rows of a source wait, if it still has so many; gives how many there are."""
            nonlocal pattern
            empty = 0
            while (held := len(waiting[number] or ())) < least and empty < 2:
                block = next(streams[number], None)
                if block is None:
                    ended.add(number)
                    if self.stopping == "first_exhausted" or len(ended) == len(sources):
                        return held
                    streams[number], empty = sources[number].blocks(columns, notes), empty + 1
                    continue
                empty = 0
                rows = _numbered(block, number)
                if pattern is None:
                    pattern = self._pattern(columns, rows)
                rows = self._alike({"pattern": pattern, "rows": rows})["rows"]
                waiting[number] = rows if not held else concatenate_datasets([waiting[number], rows])
            return held

        while room is None or room > 0:
            drawn = generator.choice(len(sources), size=BLOCK, p=self._shares)[:room]
            # As far as all sources have rows for.
            upto = len(drawn)
            for number in range(len(sources)):
                places = np.flatnonzero(drawn == number)
                there = filled(number, len(places))
                if there < len(places):
                    upto = min(upto, int(places[there]))
            taken = drawn[:upto]
            parts, order, start = [], np.empty(upto, dtype=int), 0
            for number in range(len(sources)):
                places = np.flatnonzero(taken == number)
                rows = waiting[number]
                if len(places) and rows is not None:
                    parts.append(rows.select(range(len(places))))
                    order[places] = start + np.arange(len(places))
                    more = len(rows) > len(places)
                    waiting[number] = rows.select(range(len(places), len(rows))) if more else None
                    start += len(places)
            if parts:
                yield concatenate_datasets(parts).select(order)
            room = None if room is None else room - upto
            if upto < len(drawn):
                return

    def _pattern(self, columns: Sequence[str], block: Dataset) -> Dataset:
        """No rows, but the types that those of all sources are to have."""
        from datasets import Dataset, Features

        empty = {name: source.sides(columns, (), (), True, {})[0]["train"] for name, source in self._sources().items()}
        alike = next(iter(self._alike(empty).values()))
        types = Features(alike.features | {name: block.features[name] for name in (ROW, FAULT)})
        return Dataset.from_dict({name: [] for name in types}, features=types)

    @property
    def _shares(self) -> list[float]:
        total = sum(self.weights.values())
        number = len(self.sources)
        return [self.weights[name] / total for name in self.sources] if self.weights else [1 / number] * number

    def place(self, side: Side, row: int) -> str:
        """Where the row is in its own source."""
        source = list(self._sources().values())[row // APART]
        return source.place("train" if source.eval_share is not None else side, row % APART)

    def _sources(self) -> dict[str, Data]:
        own = {"on_error": self.on_error, "streaming": self.streaming}
        return {name: source.model_copy(update=own) for name, source in self.sources.items()}

    def _alike(self, parts: dict[str, Dataset]) -> dict[str, Dataset]:
        """The sources' rows with equal types; classes become their names where sources have other ones.

        Raises:
            UserError: other columns, or types that cannot be made equal.
        """
        first, *_ = parts
        made = dict(parts)
        for name, rows in parts.items():
            if set(rows.column_names) != set(parts[first].column_names):
                has = ", ".join(each for each in rows.column_names if each != ROW)
                other = ", ".join(each for each in parts[first].column_names if each != ROW)
                raise UserError(f"data.sources.{name}: it has the columns {has}, and {first} has {other}")
        for column in parts[first].column_names:
            if all(rows.features[column] == parts[first].features[column] for rows in parts.values()):
                continue
            made = {name: _named(rows, column) for name, rows in made.items()}
            for name, rows in made.items():
                wanted, held = made[first].features[column], rows.features[column]
                strings = {"string", "large_string"}
                if held != wanted and {getattr(held, "dtype", 0), getattr(wanted, "dtype", 1)} == strings:
                    made[name] = rows.cast_column(column, wanted)
                elif held != wanted:
                    raise UserError(
                        f"data.sources.{name}: its column {column} holds {getattr(held, 'dtype', 'lists')}, that of "
                        f"{first} {getattr(wanted, 'dtype', 'lists')}; give both one type"
                    )
        return {name: rows.select_columns(made[first].column_names) for name, rows in made.items()}


def _numbered(rows: Dataset, source: int) -> Dataset:
    """The rows with numbers that tell of their source too."""
    import numpy as np

    numbers = np.asarray(rows[ROW][:]) + source * APART
    return rows.remove_columns(ROW).add_column(ROW, numbers)


def _named(rows: Dataset, column: str) -> Dataset:
    """Class ids as the names of the classes."""
    from datasets import Value

    names = getattr(rows.features[column], "names", None)
    if names is None:
        return rows
    values = [None if value is None or value < 0 else names[value] for value in rows[column]]
    return rows.remove_columns(column).add_column(column, values, feature=Value("string"))
