"""Interrupt: a signal that asks a run to end, and the run that ends where nothing is lost."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

from xp.process import pulse, world


@dataclass
class _Wish:
    """What this process was asked by signals."""

    process: int = 0
    signal: int = 0
    patient: bool = False
    closes: bool = False


_wish = _Wish()


@contextmanager
def listening() -> Iterator[None]:
    """Take SIGTERM and SIGINT (Ctrl-C) as a wish to end: at once, or inside `patience` after the step."""
    with _handled(_heard):
        yield


@contextmanager
def forwarding(processes: Sequence[int]) -> Iterator[None]:
    """Pass these signals on to the processes that do the work; they end, and this one after them."""

    def forward(number: int, frame: object) -> None:
        _wish.signal = number
        for process in processes:
            with suppress(ProcessLookupError):
                os.kill(process, number)

    with _handled(forward):
        yield


@contextmanager
def _handled(handler: Callable[[int, Any], None]) -> Iterator[None]:
    _wish.process, _wish.signal, _wish.closes = os.getpid(), 0, False
    earlier = {number: signal.signal(number, handler) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, before in earlier.items():
            signal.signal(number, before)


@contextmanager
def patience() -> Iterator[None]:
    """Here a first signal is only noted, for `asked`; a second one ends the process at once all the same."""
    _wish.patient = True
    try:
        yield
    finally:
        _wish.patient = False


def closing() -> None:
    """From here on this process ends because another one cannot go on, and is not to be told so again."""
    _wish.closes = True


def asked() -> int:
    """The signal that has asked for the end; 0 for none."""
    return _wish.signal


def leave(number: int) -> None:
    """End by an exception, so that every run that is open gets closed.

    Raises:
        KeyboardInterrupt: on Ctrl-C, which exits with 130.
        SystemExit: with 128 and the signal's number.
    """
    if number == signal.SIGINT:
        raise KeyboardInterrupt
    raise SystemExit(128 + number)


def _heard(number: int, frame: object) -> None:
    if os.getpid() != _wish.process:  # A forked worker: its parent decides, and may end it.
        if number == signal.SIGTERM and not _wish.patient:
            os._exit(128 + number)
        return
    if said := pulse.verdict():  # Not a wish of somebody's: the run is ended, because another process cannot go on.
        if _wish.closes:  # It knows already.
            return
        closing()
        raise RuntimeError(said)
    first, _wish.signal = not _wish.signal, number
    if not (_wish.patient and first):
        leave(number)
    if world.rank() == 0:
        print("xp: ending after this step, with a checkpoint; once more to end at once", file=sys.stderr, flush=True)
