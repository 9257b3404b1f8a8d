"""Mishap: what is said of a run's end that is not the program's fault, nor of what was asked."""

from __future__ import annotations

import errno
from pathlib import Path

from xp.process import interrupt, pulse
from xp.training import memory

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)
"""What a disk says that takes no more: it is full, so is one's share of it, or it is read-only."""

LOST = ("Connection closed by peer", "Connection reset by peer", "Broken pipe")
"""What torch says of a process that is gone; the starter is about to say which."""


def explained(failure: Exception, command: str, folder: Path) -> str | None:
    """What is to be said of a failure that is not the program's: the memory's, the disk's, another process's."""
    goes_on = f"python -m xp resume={folder} goes on" if command == "train" else "run it again"
    lost = any(word in str(failure) for word in LOST)
    interrupt.closing()  # Before the wait: the starter says it once more by a signal.
    if said := pulse.verdict(seconds=15 if lost else 3):  # It is how this process notices that another one has died.
        return f"{said}; {goes_on}"
    first = (str(failure).strip().splitlines() or ["no more of it"])[0]
    if memory.short(failure):
        return (
            f"out of memory: {first}; take a smaller model, or peft=lora, or give training.micro_batch_size, "
            "training.evaluation_batch_size or prediction.batch_size a smaller value"
        )
    if getattr(failure, "errno", None) in FULL or any(f"(os error {each})" in first for each in FULL):
        return f"{getattr(failure, 'filename', None) or folder} cannot be written: {first}; mend that, then {goes_on}"
    return None
