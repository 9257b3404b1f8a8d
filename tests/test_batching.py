"""Which rows make which batch."""

from __future__ import annotations

from itertools import chain

import numpy as np
import pytest

from xp.training.batching import sequences, share, steps

LENGTHS = list(np.random.default_rng(0).integers(1, 200, 1003))


@pytest.mark.parametrize("batching", ["length", "shuffle", "packed"])
def test_every_row_is_in_exactly_one_step_and_only_the_last_is_short(batching: str) -> None:
    made = steps(LENGTHS, 16, seed=3, epoch=1, batching=batching)
    assert sorted(chain.from_iterable(made)) == list(range(1003))
    assert [len(step) for step in made] == [16] * 62 + [11]


@pytest.mark.parametrize("batching", ["length", "shuffle", "packed"])
def test_order_depends_on_seed_and_epoch_alone(batching: str) -> None:
    first = steps(LENGTHS, 16, 3, 1, batching)
    assert steps(LENGTHS, 16, 3, 1, batching) == first
    assert steps(LENGTHS, 16, 3, 2, batching) != first
    assert steps(LENGTHS, 16, 4, 1, batching) != first


def padding(made: list[list[int]]) -> float:
    room = sum(max(LENGTHS[row] for row in step) * len(step) for step in made)
    return 1 - sum(LENGTHS) / room


def test_length_batching_leaves_little_padding() -> None:
    assert padding(steps(LENGTHS, 16, 0, 0, "length")) < 0.06
    assert padding(steps(LENGTHS, 16, 0, 0, "shuffle")) > 0.3


def test_fewer_rows_than_a_batch_make_one_step() -> None:
    assert [sorted(step) for step in steps([5, 6, 7], 16, 0, 0, "length")] == [[0, 1, 2]]


def test_sequences_put_the_longest_row_first() -> None:
    assert sequences([4, 7, 9], {4: 10, 7: 30, 9: 20}) == [[7], [9], [4]]


def test_packed_sequences_hold_every_row_and_at_most_the_capacity() -> None:
    lengths = dict(enumerate(LENGTHS))
    packs = sequences(range(1003), lengths, capacity=256)
    assert sorted(chain.from_iterable(packs)) == list(range(1003))
    assert max(sum(lengths[row] for row in pack) for pack in packs) <= 256
    assert sum(LENGTHS) / (256 * len(packs)) > 0.95


@pytest.mark.parametrize(("micro", "size"), [(None, 1), (3, 1), (None, 2), (3, 2), (2, 5), (1, 8)])
def test_processes_share_a_step_and_take_equally_many_micro_batches(micro: int | None, size: int) -> None:
    whole = [[row] for row in range(13)]
    parts = [share(whole, micro, rank, size) for rank in range(size)]
    assert sorted(chain.from_iterable(chain.from_iterable(chain.from_iterable(parts)))) == list(range(13))
    assert len({len(part) for part in parts}) == 1
    assert all(len(batch) <= (micro or 13) for part in parts for batch in part)
