"""Where a run happens: which device to use, in which precision, and how to describe machine and source."""

from __future__ import annotations

import hashlib
import os
from contextlib import AbstractContextManager, nullcontext, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from xp.error import UserError

if TYPE_CHECKING:
    import torch

Device = Literal["auto", "cpu", "cuda", "mps"]
Precision = Literal["auto", "fp32", "bf16"]

PACKAGES = ("xp", "torch", "transformers", "datasets", "accelerate", "peft", "bitsandbytes", "mlflow", "numpy",
            "tokenizers")  # fmt: skip


def choose_device(wanted: Device) -> torch.device:
    """The device of this process: under several processes with GPUs, the one of its local rank.

    Raises:
        UserError: a device that this machine lacks.
    """
    import torch

    there = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    alone = os.environ.get("WORLD_SIZE", "1") == "1"
    best = ("cuda", "mps", "cpu") if alone else ("cuda", "cpu")  # Apple GPUs cannot exchange gradients.
    chosen = next(name for name in best if there[name]) if wanted == "auto" else wanted
    if not there[chosen]:
        has = ", ".join(name for name, present in there.items() if present)
        raise UserError(f"device={wanted}: torch sees no such device here. It sees: {has}")
    if chosen == "cuda":
        device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
        if device.index >= torch.cuda.device_count():
            there_are = f"more processes than GPUs here, of which there are {torch.cuda.device_count()}"
            raise UserError(f"device={wanted}: {there_are}; use fewer, or device=cpu")
        torch.cuda.set_device(device)
        return device
    return torch.device(chosen)


def choose_precision(wanted: Precision, device: torch.device) -> Literal["fp32", "bf16"]:
    """auto: bf16 where the hardware computes it natively, else fp32."""
    if wanted != "auto":
        return wanted
    import torch

    if device.type == "cuda":
        native = torch.cuda.get_device_capability(device) >= (8, 0)
    elif device.type == "cpu":
        native = bool(_cpu_flags() & {"avx512_bf16", "amx_bf16"})
    else:
        native = False
    return "bf16" if native else "fp32"


def autocast(precision: Literal["fp32", "bf16"], device: torch.device) -> AbstractContextManager[Any]:
    """The context in which a forward pass computes in this precision; weights keep their type."""
    import torch

    return torch.autocast(device.type, torch.bfloat16) if precision == "bf16" else nullcontext()


def home(network: Any) -> torch.device:
    """The device that a network's inputs go to; of one whose parts are on several, the first that computes."""
    import torch

    places = getattr(network, "hf_device_map", None)
    if places is None:
        device: torch.device = next(network.parameters()).device
        return device
    computing = [place for place in places.values() if place not in ("cpu", "disk")]
    return torch.device(computing[0] if computing else "cpu")


def environment(device: torch.device) -> dict[str, str]:
    """Package versions and hardware, for comparing runs."""
    import platform
    from importlib.metadata import PackageNotFoundError, version

    import torch

    found = {"python": platform.python_version(), "platform": platform.platform()}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "not installed as a package"
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else _cpu_name()
    return found | {"device": str(device), "processor": name, "threads": str(torch.get_num_threads())}


def source() -> dict[str, str]:
    """MLflow's own tags for who ran what, and from which version of the source."""
    import subprocess
    from getpass import getuser

    tags = {"mlflow.source.type": "LOCAL", "mlflow.source.name": "python -m xp"}
    with suppress(OSError, KeyError):
        tags["mlflow.user"] = getuser()
    with suppress(OSError, subprocess.SubprocessError):
        here = {"cwd": Path(__file__).parent, "capture_output": True, "text": True, "timeout": 5}
        commit = subprocess.run(["git", "rev-parse", "HEAD"], check=True, **here).stdout.strip()  # type: ignore[call-overload]
        dirty = subprocess.run(["git", "status", "--porcelain", "-uno"], check=True, **here).stdout.strip()  # type: ignore[call-overload]
        tags |= {"mlflow.source.git.commit": commit, "xp.source_changed": str(bool(dirty)).lower()}
        if dirty:
            change = subprocess.run(["git", "diff", "HEAD"], check=True, **here | {"text": False}).stdout  # type: ignore[call-overload]
            tags["xp.source_digest"] = hashlib.sha256(change).hexdigest()
    return tags


def _cpu_info(key: str) -> str:
    try:
        with open("/proc/cpuinfo") as file:
            return next((line.partition(":")[2].strip() for line in file if line.startswith(key)), "")
    except OSError:
        return ""


def _cpu_flags() -> set[str]:
    return set(_cpu_info("flags").split())


def _cpu_name() -> str:
    import platform

    return _cpu_info("model name") or platform.processor() or platform.machine()
