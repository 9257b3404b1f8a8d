"""Table: what differs between runs, on the screen."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from xp.comparison.differences import ABSENT, curves, differences, digits, written
from xp.comparison.facts import Facts
from xp.error import UserError
from xp.metric import better
from xp.tracking import remember

if TYPE_CHECKING:
    from rich.table import Table

    from xp.report import Report
    from xp.run import Run

WIDTH = 160
"""Columns of a table where there is no terminal."""


def show(run: Run) -> None:
    """Do ``command=diff``: show what differs between runs, section by section, or say that nothing does.

    Raises:
        UserError: no such run, or one of them twice.
    """
    from xp.report import Report

    report = Report()
    if not report.console.is_terminal:
        report.console.width = WIDTH
    runs = [_find(where, run) for where in run.runs]
    for number, each in enumerate(runs):
        if any((each.run_id, each.name) == (other.run_id, other.name) for other in runs[:number]):
            raise UserError(f"runs: {run.runs[number]} is {each.name}, which is there already; name another one")
    _print(runs, report)


def _find(where: str, run: Run) -> Facts:
    """A run by its folder, the folder's name, or what MLflow knows it by."""
    for folder in (Path(where), Path(run.runs_folder) / where):
        if (folder / "run.yaml").is_file():
            return Facts.of_folder(folder)
    tracked = remember(where, run.tracking, f"runs={where}")
    if tracked.tags.get("xp.command") == "sweep":
        raise UserError(f"runs={where}: it is a sweep; name two of its jobs")
    return Facts.of_tracked(tracked)


def _print(runs: Sequence[Facts], report: Report) -> None:
    found = differences(runs)
    same, curve = curves(runs)
    names = [_label(each) for each in runs]
    if not found and same and len({each.status for each in runs}) == 1:
        known = [
            name for name in ("settings", "environment", "code", "data") if all(getattr(each, name) for each in runs)
        ]
        known += ["metrics"] if all(each.last for each in runs) else []
        report.say(f"nothing differs between {' and '.join(names)}: {', '.join(known)} are the same")
    else:
        report.console.print(_table(runs, names, found))
    if curve:
        report.say(curve)
    for section in ("environment", "code", "data"):
        if unknown := [name for name, each in zip(names, runs, strict=True) if not getattr(each, section)]:
            report.say(f"nothing is known of the {section} of {' and '.join(unknown)}")


def _label(run: Facts) -> str:
    return f"{run.name} ({run.run_id[:8] or 'not in MLflow'})"


def _table(runs: Sequence[Facts], names: Sequence[str], found: dict[str, dict[str, list[Any]]]) -> Table:
    """A column for each run, and one for what the second has more than the first where there are two."""
    from rich.table import Table
    from rich.text import Text

    two = len(runs) == 2
    table = Table("", *names, *(["difference"] if two else []))
    sections: dict[str, dict[str, list[Any]]] = {}
    if len({each.status for each in runs}) > 1:
        sections["run"] = {"status": [each.status for each in runs]}
    sections |= found
    if "metrics" in found:
        sections["metrics"] = found["metrics"] | _best(runs)
    sections["speed"] = {name: [each.speeds.get(name) for each in runs] for name in _names(runs)}
    for section, rows in sections.items():
        if not rows:
            continue
        table.add_section()
        table.add_row(Text(section, style="bold"))
        for name, values in rows.items():
            measured = section in ("metrics", "speed")
            cells = digits(values) if measured else [_short(written(each)) for each in values]
            if two:
                cells.append(_difference(values) if measured else "")
            table.add_row(*_plain(name, *cells))
    return table


def _plain(*cells: str) -> list[Any]:
    """Cells whose brackets are no markup of rich."""
    from rich.text import Text

    return [Text(each, overflow="fold") for each in cells]


def _names(runs: Sequence[Facts]) -> list[str]:
    """The speeds that all runs have."""
    return [name for name in runs[0].speeds if all(name in each.speeds for each in runs)]


def _best(runs: Sequence[Facts]) -> dict[str, list[Any]]:
    """The best value of each score where some run was evaluated more than once, and where one is better."""
    rows = {}
    for name in dict.fromkeys(name for each in runs for name in each.points if name.startswith("eval/")):
        known = [list(each.points.get(name, {}).values()) for each in runs]
        choose = min if better(name) == "min" else max
        values = [choose(each) if each else ABSENT for each in known]
        if max(map(len, known)) > 1 and len({*values}) > 1:
            rows[f"{name} (best)"] = values
    return rows


def _short(text: str) -> str:
    """A digest by its first digits, which tell it from others."""
    return text[:12] if len(text) >= 40 and not set(text) - set("0123456789abcdef") else text


def _difference(values: Sequence[Any]) -> str:
    numbers = [each for each in values if isinstance(each, float | int) and not isinstance(each, bool)]
    if len(numbers) < 2:
        return ""
    change = float(numbers[1]) - float(numbers[0])
    if all(float(each).is_integer() for each in numbers):
        return f"{change:+,.0f}"
    return f"{change:+.4f}" if abs(change) >= 1e-3 or not change else f"{change:+.2g}"
