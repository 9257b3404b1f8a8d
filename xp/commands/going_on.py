"""Going on: what a run that was begun before is taken up from, and what is said and recorded of it."""

from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from xp.error import UserError
from xp.process import world
from xp.report import Report
from xp.run import Run, changes, write
from xp.saving import checkpoint
from xp.saving.checkpoint import Checkpoint
from xp.tracking import Tracker

if TYPE_CHECKING:
    from xp.training.job import Job


def newest(kept: Path, report: Report) -> Checkpoint | None:
    """The checkpoint from which a run goes on, the same on every process; None where it begins."""
    step = None
    if world.rank() == 0 and (found := checkpoint.newest(kept, report.say)):
        step = found.step
    step = world.agree(step)
    return None if step is None else checkpoint.read(checkpoint.path(kept, checkpoint.STEP, step))


def check_same(now: dict[str, Any], then: dict[str, Any], folder: Path) -> None:
    """Refuse to go on with other settings, or other rows, than a checkpoint was made with.

    Raises:
        UserError: what differs.
    """
    differing = changes(_as_of_now(then["config"], now["config"]), now["config"])
    for side in sorted({*then["data"], *now["data"]}):
        if then["data"].get(side) != now["data"].get(side):
            differing.append(f"the {side} rows are not those that it was trained on")
    if differing:
        raise UserError(f"resume={folder}: {'; '.join(differing)}; mend it, or start a new run")


def _as_of_now(then: dict[str, Any], now: dict[str, Any]) -> dict[str, Any]:
    """A checkpoint's settings along with those that xp has got since, which nobody could have set otherwise."""
    fields = {
        name: now[name] | each if isinstance(now.get(name), dict) and isinstance(each, dict) else each
        for name, each in then.items()
        if name != "choices"
    }
    return now | then | fields


def begin(
    run: Run, folder: Path, total: int, found: Checkpoint | None, tracker: Tracker, report: Report
) -> list[list[int]]:
    """From here on the run of this folder has these settings and has not ended, whatever it was before.

    Returns:
        As `Job.lengths`: a run that becomes longer has the schedule of its new length after the last step that
        anybody has seen, so that no point of its curves is told twice.

    Raises:
        UserError: more steps are done than it is to have, or its folder cannot be written to.
    """
    if found is not None and found.step > total:
        raise UserError(f"resume={folder}: step {found.step} is done, and the training is to have {total}")
    if world.rank() != 0:
        return world.agree(None)  # type: ignore[no-any-return]
    file = folder / "lengths.json"
    lengths = _lengths(file) if file.exists() else [[0, total]]
    before = lengths[-1][1]
    if before != total:
        since = max(_logged(folder), 0 if found is None else found.step)
        lengths.append([since, total])
        tracker.tags({"xp.extended": f"from {before} to {total} steps, after step {since}"})
        report.say(f"{total} steps instead of {before}: the schedule is the new one after step {since}")
    try:
        (folder / "result.json").unlink(
            missing_ok=True
        )  # Before the settings: with these, a run that ended is refused.
        write(file, json.dumps(lengths) + "\n")
        run.write(folder / "run.yaml")
    except OSError as error:
        raise UserError(f"{folder}: nothing can be written there: {error.strerror}; mend that first") from error
    return world.agree(lengths)  # type: ignore[no-any-return]


def _lengths(file: Path) -> list[list[int]]:
    try:
        found = [[int(since), int(total)] for since, total in json.loads(file.read_text())]
    except (OSError, ValueError, TypeError, RecursionError) as error:
        raise UserError(f"{file}: it is not what was written ({' '.join(str(error).split())[:100]})") from error
    if not found:
        raise UserError(f"{file}: it is not what was written")
    return found


def _logged(folder: Path) -> int:
    """The last step that the curves of a run have a point of."""
    last = 0
    for line in (folder / "journal.jsonl").read_text(errors="replace").splitlines():
        # Cut by the end of its process, or not written by one.
        with suppress(ValueError, RecursionError, TypeError, AttributeError, KeyError):
            entry = json.loads(line)
            if "train/loss" in entry.get("metrics", {}):
                last = max(last, int(entry["step"]))
    return last


def go_on(job: Job, found: Checkpoint | None, lengths: list[list[int]], tracker: Tracker, report: Report) -> None:
    """Bring the job to where the run was, if it was begun."""
    from xp.saving.state import restore

    job.lengths = lengths
    if found is not None:
        try:
            restore(job, found)
        except UserError:
            raise
        except (KeyError, TypeError, ValueError, AttributeError, IndexError, RuntimeError, OverflowError) as error:
            said = " ".join(f"{type(error).__name__}: {error}".split())[:300]
            raise UserError(f"{found.folder}: what it holds is no state of this training ({said})") from error
    job.follow_length()
    if found is None:
        return
    tags = {"xp.resumed": str(job.step)}
    processes = len(found.state["window"]["processes"])
    if processes != world.size():
        tags["xp.processes_before"] = str(processes)
        report.say(
            f"in {world.size()} instead of {processes} processes: what dropout draws is another, the rest is not"
        )
    report.say(f"goes on after step {job.step} of {job.total_steps}")
    tracker.tags(tags)
