"""Which examples make which batch: a pure function of (lengths, seed, epoch), free of backend and world size.

A *step* is the list of the rows that one optimizer step sees, over all processes. How its rows are laid into
sequences and these cut into micro-batches for the devices changes neither its rows nor its loss.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Literal

Batching = Literal["length", "shuffle", "packed"]

GROUP = 50
"""Steps whose rows are sorted together. Larger: less padding, less random batches. 50 leaves 2 to 5 % padding."""


def steps(lengths: Sequence[int], batch_size: int, seed: int, epoch: int, batching: Batching) -> list[list[int]]:
    """The steps of one epoch; every row is in exactly one of them, and only the last one may be smaller.

    Args:
        lengths: tokens of each row.
        batch_size: rows of an optimizer step, over all processes.
        batching: ``length`` puts rows of similar length together; ``shuffle`` and ``packed`` take them at random.
    """
    import numpy as np

    length = np.asarray(lengths)
    generator = np.random.default_rng([seed, epoch])
    order = generator.permutation(len(length))
    full = len(order) // batch_size * batch_size
    order, rest = order[:full], order[full:]
    if batching == "length":
        group = GROUP * batch_size
        chunks = [order[start : start + group] for start in range(0, full, group)]
        order = np.concatenate([chunk[np.argsort(length[chunk], kind="stable")] for chunk in chunks] or [order])
    batches = order.reshape(-1, batch_size)
    if batching == "length":
        batches = generator.permutation(batches)
    return [list(map(int, batch)) for batch in batches] + ([list(map(int, rest))] if len(rest) else [])


def sequences(step: Sequence[int], lengths: Mapping[int, int], capacity: int | None = None) -> list[list[int]]:
    """The sequences a device sees of a step, the longest first: one for each row, or rows packed end to end.

    Args:
        step: rows of the step.
        lengths: tokens by row.
        capacity: the most tokens of a packed sequence (first fit, longest row first); None leaves rows alone.
    """
    ordered = sorted(step, key=lambda row: (-lengths[row], row))
    if capacity is None:
        return [[row] for row in ordered]
    packs: list[list[int]] = []
    room: list[int] = []
    for row in ordered:
        fits = next((number for number, free in enumerate(room) if lengths[row] <= free), None)
        if fits is None:
            packs.append([])
            room.append(capacity)
            fits = len(packs) - 1
        packs[fits].append(row)
        room[fits] -= lengths[row]
    return packs


def share(whole: Sequence[list[int]], micro_batch_size: int | None, rank: int, size: int) -> list[list[list[int]]]:
    """One process's micro-batches: every ``size``-th sequence from ``rank`` on, ``micro_batch_size`` at a time.

    Every process gets the same number of micro-batches, so that they meet at every backward: where its sequences
    run out, a process gets an empty one.
    """
    most = -(-len(whole) // size)
    width = micro_batch_size or most
    mine = list(whole[rank::size])
    return [mine[start : start + width] for start in range(0, most, width)]


def mixed(*parts: int) -> int:
    """A 63-bit seed from several numbers, without the correlations that adding them up would leave."""
    digest = hashlib.blake2b(repr(parts).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1
