"""Ahead: what the process imports that others are forked from, so that none of them need do it again."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable
from multiprocessing import get_context
from pathlib import Path

COMMON = [
    "torch",
    "transformers",
    "datasets",
    "sklearn.metrics",
    "xp.metric.base",
    "xp.commands",
    "xp.prepare",
    "xp.report",
    "transformers.optimization",
]
"""What every training needs."""

TOUCHING = {"transformers.optimization", "transformers.trainer", "peft"}
"""Those that import bitsandbytes, which asks every GPU for its kind; after that, no process that is forked can compute
on one. So where there is a GPU, each imports them for itself, in two seconds."""

GPUS = ("/dev/nvidiactl", "/dev/nvidia0", "/dev/dxg", "/dev/kfd")
"""Files that are there where a GPU of NVIDIA or AMD is, the third under Windows' Linux."""

# It tells, as it is imported, of a kernel for CPUs that it lacks, and at each step that int8 computes in float16.
logging.getLogger("bitsandbytes").setLevel(logging.ERROR)


def modules(more: Iterable[str], gpus: Iterable[str] = GPUS) -> list[str]:
    """The names of what is imported ahead: what every training needs, and ``more``."""
    gpu = any(Path(each).exists() for each in gpus)
    found = dict.fromkeys(["xp.process.ahead", *COMMON, *more])
    return [name for name in found if not (gpu and name in TOUCHING)]


def imported(more: Iterable[str]) -> None:
    """Have the process that others are forked from import these, if it is not there yet."""
    os.environ.setdefault("PYTORCH_NVML_BASED_CUDA_CHECK", "1")  # To ask for GPUs must not touch them before the fork.
    get_context("forkserver").set_forkserver_preload(modules(more))
