"""The thread that brings the journal of a run that is alive to MLflow, and does not tire."""

from __future__ import annotations

import sys
import threading
import time
from pathlib import Path

from xp.error import UserError
from xp.tracking import journal
from xp.tracking.delivery import Delivery, WaitingForParentError, told
from xp.tracking.sending import Deleted
from xp.tracking.store import Tracking
from xp.tracking.sync import settle_earlier
from xp.tracking.trouble import locked

LINGER = 1.0
"""Seconds in which entries gather: a request for each would take the processor from the training."""

LONGEST_PAUSE = 30.0
"""Seconds between two attempts when many have failed."""

HOPELESS = 3
"""Failed attempts in a row after which MLflow is said to be away, and the end of a run is not held up any more."""

FIRST_ANSWER = {False: 3.0, True: 10.0}
"""Seconds in which a server, or an embedded store (True), can refuse a run before its training starts."""

PATIENCE = {False: 10.0, True: 60.0}
"""Seconds without any progress after which the end of a run leaves the rest to ``command=sync``; likewise."""


class Drain:
    """Delivers a run's journal while it grows; whatever goes wrong is told once and tried again."""

    def __init__(self, tracking: Tracking, folder: Path, fresh: bool) -> None:
        """
        Args:
            tracking: where MLflow is.
            folder: the run's.
            fresh: whether the run has just begun, so that MLflow cannot have heard of it.
        """
        self.tracking, self.folder = tracking, folder
        self.news = threading.Event()
        """To be set when the journal has grown."""

        self._delivery = Delivery(tracking, folder, say, anew=True, fresh=fresh)
        self._fresh = fresh
        self._embedded = tracking.embedded is not None
        self._failure: Exception | None = None
        self._failures = 0
        self._told = self._went_on = self._raised = False
        self._refusal: UserError | None = None
        self._answered, self._ended, self._over = threading.Event(), threading.Event(), threading.Event()
        self._earlier = threading.Thread(target=self._settle_earlier, name="mlflow, earlier runs", daemon=True)
        self._thread = threading.Thread(target=self._work, name="mlflow", daemon=True)
        self._thread.start()

    @property
    def run_id(self) -> str:
        """MLflow's id of the run; empty as long as MLflow has not got it."""
        return self._delivery.run_id

    def opened(self) -> str:
        """MLflow's id of the run, or nothing where MLflow does not answer within seconds; then that is told.

        Raises:
            UserError: MLflow answers that it cannot take the run.
        """
        self._answered.wait(FIRST_ANSWER[self._embedded])
        if self._refusal is not None:
            if self._fresh:
                self._delivery.refused()
            self._raised = True
            raise self._refusal
        if not self._answered.is_set():
            self._went_on = True
            self._tell(told(self._failure) if self._failure else "it has not answered yet")
        return self.run_id

    def close(self) -> None:
        """Bring the rest there, which ends after some time without progress; says on stderr what is left then."""
        self._ended.set()
        self.news.set()
        closed, patience = time.monotonic(), PATIENCE[self._embedded]
        while self._thread.is_alive():
            self._thread.join(0.05)
            if time.monotonic() > max(closed, self._delivery.progress, self._delivery.busy_until) + patience:
                break
        if self._earlier.ident is not None:
            self._earlier.join(max(0, closed + patience - time.monotonic()))
            if self._earlier.is_alive():
                say("not all of the earlier runs are in MLflow yet; the next run, or command=sync, goes on with them")
        self._over.set()
        failure = self._failure
        if isinstance(failure, Deleted):
            say(f"MLflow did not get all of {self.folder.name}: {told(failure)}; all of it is in {self.folder}")
        elif not self._raised and (left := self._delivery.left()):
            why = told(failure) if failure else "it is slow to answer"
            say(f"{left} entries of {self.folder.name} are not in MLflow yet ({why}); "
                "the next run brings them there, or python -m xp command=sync")  # fmt: skip

    def _work(self) -> None:
        while not self._over.is_set():
            with journal.delivering(self.folder) as free:
                if free:  # Else somebody brings MLflow the earlier part of this run, and is about to end.
                    self._deliver()
                    return
            self._over.wait(0.2)

    def _deliver(self) -> None:
        """Deliver until all is there and the run has ended; after a failure again, with longer and longer pauses."""
        while not self._over.is_set():
            self.news.clear()
            ended = self._ended.is_set()
            if self._attempt():
                if ended:
                    return
                self.news.wait()
                self._ended.wait(LINGER)
            elif isinstance(self._failure, WaitingForParentError):
                self._over.wait(0.2)
            elif self._refusal or isinstance(self._failure, Deleted) or (ended and self._hopeless):
                return
            elif ended:
                self._over.wait(0.5)
            else:
                self._ended.wait(min(LONGEST_PAUSE, 2 ** (self._failures - 1)))

    @property
    def _hopeless(self) -> bool:
        """Whether MLflow is away; a store that is busy is not."""
        return self._failures >= HOPELESS and not (self._failure and locked(self._failure))

    def _attempt(self) -> bool:
        """Whether MLflow has all that is journalled by now."""
        try:
            self._delivery.deliver()
        except WaitingForParentError as error:
            self._failure = error
            return False
        except Exception as error:
            self._failure = error
            self._failures += 1
            first = not self._answered.is_set()
            if first and isinstance(error, UserError) and not self._went_on:
                self._refusal = error  # Which ends a run before its training has begun.
            elif isinstance(error, Deleted) or (first and not self._embedded) or self._failures >= HOPELESS:
                self._tell(told(error))
            self._answered.set()
            return False
        self._answered.set()
        self._failure, self._failures = None, 0
        if self._told:
            self._told = False
            say(f"tracking.uri={self.tracking.uri} answers; it has got what was journalled so far")
        if self._earlier.ident is None:
            self._earlier.start()
        return True

    def _tell(self, why: str) -> None:
        if self._told:
            return
        self._told = True
        if isinstance(self._failure, Deleted):
            say(f"{why}; the run goes on and is journalled in {self.folder}")
        else:
            say(f"tracking.uri={self.tracking.uri}: {why}; the run goes on and is journalled, MLflow gets it when "
                "it answers, or by python -m xp command=sync")  # fmt: skip

    def _settle_earlier(self) -> None:
        self._delivery.close_behind()
        settle_earlier(self.folder, self.tracking, say, self._over.is_set)


def say(text: str) -> None:
    """A line on stderr."""
    print(f"xp: {text}", file=sys.stderr, flush=True)
