"""Print rows as the model would see them."""

from __future__ import annotations

from xp import show as showing
from xp.commands.opening import label_names, read, sample, wish
from xp.data.columns import ROW
from xp.features import SIDES, Fault
from xp.model import positions
from xp.report import Report
from xp.run import Run

LIMIT = 1 << 30
"""A length that stands for none: tokenizers without a bound say such numbers."""


def show(run: Run, report: Report) -> None:
    """Print rows as the model would see them, and how long they are; nothing is trained, tracked or written."""
    task, splits, preparation = read(run, report, True)
    assert splits.train is not None
    labels = label_names(run, task, splits)
    train = sample(run, preparation, splits)
    report.say(f"{run.choices['model']} on {splits.source}")
    described = run.model.describe(wish(run, task, "auto", labels, train, "fp32"))
    for line in task.equip(described.processor, None, adapted=not run.peft.in_full):
        report.say(line)
    shown: dict[str, showing.Shown] = {
        side: showing.look(
            task,
            rows.remove_columns([name for name in (ROW,) if name in rows.column_names]),
            described.processor,
            described.labels,
            run.examples,
        )
        for side, rows in (("train", train), ("eval", splits.eval))
    }
    for each_side, rows in zip(SIDES, (train, splits.eval), strict=True):
        if faults := shown[each_side].encoded.faults:
            preparation.tell(splits, each_side, rows, [Fault(*fault) for fault in faults])
    if run.examples:
        showing.draw_legend(report.console)
    for side, each in shown.items():
        showing.draw_rows(report.console, side, each)
    bound = min(positions(described.config) or LIMIT, getattr(described.processor, "model_max_length", LIMIT) or LIMIT)
    showing.draw_lengths(
        report.console, shown, None if task.splits_long else task.longest, None if bound >= LIMIT else bound
    )
    for side, each in shown.items():
        report.rows(side, each.encoded.notes, task.longest)
        refused = [f"training would refuse it: {each.refused}"] if each.refused else []
        for warning in [*each.encoded.warnings, *refused]:
            report.say(f"warning: {side}: {warning}")
