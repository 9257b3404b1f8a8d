"""Finite: a loss or a gradient that is no number ends a training before a checkpoint holds what comes of it."""

from __future__ import annotations

import math
from collections.abc import Callable

from xp.error import UserError
from xp.process import world
from xp.training.step import Window

SHOWN = 4
"""Rows that are named; a step has as many as its batch, and any of them may be the one."""


def check(window: Window, places: Callable[[list[int]], list[str]], saved_step: int) -> None:
    """Look at every step since the last look.

    note: reading the losses waits for the device; that is why it happens only where it is waited for anyway

    Args:
        window: what happened since the last point of the curves.
        places: where encoded train rows come from.
        saved_step: the step of the newest checkpoint; 0 for none.

    Raises:
        UserError: the first step whose loss or gradient is not finite, its rows, and the checkpoint before it.
    """
    losses = world.gather([(float(loss), float(norm)) for _, _, loss, norm in window.steps])
    for at, (number, rows, _, _) in enumerate(window.steps):
        loss, norm = sum(each[at][0] for each in losses), losses[0][at][1]
        if not (math.isfinite(loss) and math.isfinite(norm)):
            shown = "; ".join(places(rows[:SHOWN])) + (f" and {len(rows) - SHOWN} more" if len(rows) > SHOWN else "")
            kept = f"; the checkpoint of step {saved_step} is good" if saved_step else ""
            raise UserError(
                f"training: loss {loss / world.size():g}, gradient norm {norm:g} at step {number}, of the rows {shown}"
                f"{kept}; lower training.learning_rate, or set training.max_grad_norm, or use precision=fp32"
            )
    window.steps.clear()
