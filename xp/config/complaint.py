"""Complaint: what Hydra and OmegaConf raise on a wrong config, as one line for the one who wrote it."""

from __future__ import annotations

import re
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import current_thread, main_thread

from hydra.errors import HydraException, MissingConfigException, OverrideParseException
from omegaconf.errors import MissingMandatoryValue, OmegaConfBaseException

from xp.config import naming
from xp.error import UserError, elsewhere, nearest

PATIENCE = 10
"""Seconds of computing after which a config is refused; one takes a tenth of a second, on a crowded machine seconds. A
few ``${...}`` can double each other into more than any life is long for; they take no memory meanwhile."""


class _Endless(BaseException):
    """Raised by a timer; no library catches it."""


@contextmanager
def _patience() -> Iterator[None]:
    if current_thread() is not main_thread():
        yield
        return

    began = time.thread_time()

    def end(*arguments: object) -> None:
        if time.thread_time() - began > PATIENCE:  # The timer counts what other threads compute, too.
            raise _Endless

    before = signal.signal(signal.SIGVTALRM, end)
    signal.setitimer(signal.ITIMER_VIRTUAL, PATIENCE, 0.5)
    try:
        yield
    except _Endless as error:
        raise UserError(f"the config is not composed after {PATIENCE} s: its ${{...}} stand for too much") from error
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.signal(signal.SIGVTALRM, before)


@contextmanager
def explained(overrides: list[str], folder: Path) -> Iterator[None]:
    """Turns what Hydra and OmegaConf raise on a wrong config into a `UserError`.

    Args:
        overrides: of the command line.
        folder: xp's own configs, for the nearest of their keys.
    """
    try:
        yield
    except MissingConfigException as error:
        raise UserError(_missing_config(error)) from error
    except MissingMandatoryValue as error:
        unknown = no_such_key(str(error.full_key), overrides, folder)
        if error.full_key not in naming.known_keys(overrides, folder) and "Did you mean" in unknown:
            raise UserError(unknown) from error
        raise UserError(f"{error.full_key} has no value; give {error.full_key}=<value>") from error
    except (HydraException, OmegaConfBaseException) as error:
        raise UserError(_explained(error, overrides, folder)) from error


@contextmanager
def composing(overrides: list[str], folder: Path) -> Iterator[None]:
    """`explained`, where nothing but the composition of a config happens: also what has no end, or makes no sense."""
    try:
        with explained(overrides, folder), _patience():
            yield
    except UserError:
        raise
    except RecursionError as error:
        raise UserError("the configs refer to each other without an end; see their defaults and ${...}") from error
    except (ValueError, TypeError, AssertionError, AttributeError, KeyError) as error:  # Hydra's, of a defaults list.
        raise UserError(f"the config cannot be composed: {' '.join(str(error).split()) or repr(error)}") from error


def _missing_config(error: MissingConfigException) -> str:
    group, _, choice = (error.missing_cfg_file or "").rpartition("/")
    if not group:
        return " ".join(str(error).split())
    return f"{group}={choice}: there is no such {group}.{nearest(choice, error.options or [])}"


def _explained(error: Exception, overrides: list[str], folder: Path) -> str:
    """Hydra's or OmegaConf's error as one line, with the nearest key where one is unknown."""
    if isinstance(error, OverrideParseException):
        form = "quote values with special signs: 'key=\"value\"', in a list each: 'key=[\"a >= 1\"]'"
        return f"{error.override}: this does not parse; {form}"
    cause = error.__cause__ if isinstance(error.__cause__, OmegaConfBaseException) else None
    said, whole = (" ".join(str(each).split()) for each in (cause or error, error))
    group = re.search(r"Could not override '([^'@]+)'. No match in the defaults list", str(error))
    if group:
        return no_such_key(group[1], overrides, folder)
    key = getattr(cause, "full_key", None)
    if merged := re.search(r"Cannot merge (\w+) with (\w+)", f"{whole} {said}"):
        old, new = ({"DictConfig": "a mapping", "ListConfig": "a list"}.get(each) for each in merged.groups())
        file = re.match(r"In '(\S+)': ", whole)
        place = f"{file[1]}.yaml: {'.'.join(_merging(error))}" if file else key
        return f"{place}: {new} stands where there is {old}"
    if cause is not None and key and "not in struct" in said:
        return no_such_key(key, overrides, folder)
    return said


def _merging(error: Exception) -> Iterator[str]:
    """The key at which OmegaConf could not merge, part by part; it does not say so, but was there."""
    trace = error.__traceback__
    while trace is not None:
        if trace.tb_frame.f_code.co_name == "_map_merge":
            yield str(trace.tb_frame.f_locals.get("key"))
        trace = trace.tb_next


def no_such_key(key: str, overrides: list[str], folder: Path) -> str:
    """That there is no such key, and the nearest one of the groups as chosen, or the choices that have it."""
    parent, _, last = key.rpartition(".")
    if parent == "generation":
        from xp.generation.decided import near, why

        if reason := why(last):
            return f"{key}: {reason}"
    known = naming.known_keys(overrides, folder)
    if others := naming.choices_with(parent, last, folder):  # What is chosen may be so by another choice.
        return f"{key}: {elsewhere(parent, others)}"
    beside = [each.rpartition(".")[2] for each in known if each.rpartition(".")[0] == parent]
    if parent == "generation" and "Did you mean" not in nearest(last, beside) and (other := near(last)):
        return f"{key}: {other}"
    return f"{key}: there is no such key.{nearest(last, beside) if parent in known else nearest(key, known)}"
