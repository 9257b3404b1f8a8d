"""Runs that MLflow has not got all of: found in the folder of runs, closed where nobody tracks them, and delivered."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from pathlib import Path

from xp.consent import check_links, check_store
from xp.error import UserError
from xp.tracking import journal
from xp.tracking.delivery import Delivery, left, told
from xp.tracking.sending import Deleted
from xp.tracking.store import Tracking
from xp.tracking.trouble import first_line

Say = Callable[[str], None]


def pending(runs: Path) -> Iterator[Path]:
    """The folders of runs with entries that MLflow has not got, and of runs that have been abandoned; the oldest first.

    Most are told by two small files: this is looked at whenever a run starts.
    """
    files = ((file.stat().st_ctime, file.parent) for name in (journal.TRACKER, journal.DELIVERED)
             for file in runs.glob(f"*/{name}"))  # fmt: skip
    for folder in dict.fromkeys(folder for _, folder in sorted(files)):
        try:
            state = journal.delivered(folder)
            if state.get("refused") or (state.get("ended") == journal.size(folder) and not state.get("owed")):
                continue
            if state.get("position", 0) < journal.size(folder) or state.get("owed") or journal.abandoned(folder):
                yield folder
        except (OSError, ValueError):
            continue


def settle_earlier(here: Path, tracking: Tracking, say: Say, stopped: Callable[[], bool]) -> None:
    """Close and deliver what earlier runs beside this one have left, as far as it belongs to the same MLflow."""
    for folder in pending(here.parent):
        if stopped():
            return
        if folder.absolute() == here.absolute():
            continue
        try:
            uri, experiment = journal.destination(folder)
            if uri != tracking.uri or journal.delivered(folder).get("deleted") or _elsewhere(folder):
                continue
            check_links(folder, folder.name)
            _settle(folder, _there(tracking, uri, experiment), say)
        except Exception as error:  # No trouble of an earlier run may hold up this one, or another.
            say(f"{folder.name}, an earlier run, is not in MLflow yet: {told(error)}")


def _settle(folder: Path, tracking: Tracking, say: Say) -> tuple[int, str]:
    """How many entries a run's MLflow has got now, and MLflow's id of the run; -1 where its own process delivers."""
    with journal.delivering(folder) as free:
        if not free:
            return -1, ""
        if journal.abandon(folder):
            say(f"{folder.name} was still open, and its process is gone; closed as KILLED")
        elif "status" not in journal.last(folder):
            return -1, ""
        before = left(folder, journal.delivered(folder))
        delivery = Delivery(tracking, folder, say)
        try:
            delivery.deliver()
        except Deleted as error:
            journal.set_delivered(folder, journal.delivered(folder) | {"deleted": True})
            raise error
        delivery.close_behind()
        return before - delivery.left(), delivery.run_id


def _there(tracking: Tracking, uri: str, experiment: str) -> Tracking:
    return tracking.model_copy(update={"uri": uri or tracking.uri, "experiment": experiment or tracking.experiment})


def _elsewhere(folder: Path) -> str:
    """The other machine on which a run without an end may be running; empty if there is none."""
    host = str(journal.tracked(folder).get("host", ""))
    return host if host != socket.gethostname() and "status" not in journal.last(folder) else ""


def sync(runs: Path, tracking: Tracking, say: Say) -> int:
    """Bring all that MLflow has not got of any run to where that run is tracked; a line a run.

    Args:
        runs: the folder of all runs.
        tracking: for what a run does not say itself.
        say: takes the lines.

    Returns:
        0, or 1 if something remains undelivered.
    """
    failed = False
    away: dict[str, str] = {}
    number = 0
    for folder in pending(runs):
        where = _there(tracking, *journal.destination(folder))
        count = left(folder, journal.delivered(folder))
        if count == 0 and not journal.abandoned(folder):
            continue
        number += 1
        if host := _elsewhere(folder):
            say(f"{folder.name}: {count} entries are undelivered: it may be running on {host}; sync there")
            failed = True
            continue
        try:
            check_store(where.uri, tracking.uri, runs)
            check_links(folder, folder.name)
            if where.uri in away:
                raise UserError(away[where.uri])
            arrived, run_id = _settle(folder, where, say)
        except Deleted as error:
            say(f"{folder.name}: {error}; its {count} undelivered entries stay in {folder}; resume makes it a new run")
        except Exception as error:
            why = str(error) if isinstance(error, UserError) else f"tracking.uri={where.uri}: {told(error)}"
            if not _answers(error):
                away[where.uri] = why
            say(f"{folder.name}: {left(folder, journal.delivered(folder))} entries are undelivered: {why}")
            failed = True
        else:
            say(f"{folder.name}: it is running, and delivers by itself" if arrived < 0
                else f"{folder.name}: {arrived} entries delivered to {where.uri}, run {run_id}")  # fmt: skip
    if not number:
        say(f"MLflow has all of the runs in {runs}")
    return int(failed)


def _answers(error: Exception) -> bool:
    """Whether it was an answer, from which nothing follows for other runs."""
    return isinstance(error, UserError) or "API request to http" not in first_line(error)
