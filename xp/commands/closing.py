"""What commands end with: scores beside the baseline, findings, the saved model."""

from __future__ import annotations

import hashlib
import shutil
import sys
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

from xp import findings
from xp.adapter import NETWORK, NEW, active, experts, kind_of
from xp.adapter.folder import BESIDE
from xp.metric import better
from xp.model.stored import plain_config
from xp.peft import initial, upkeep
from xp.process import world
from xp.run import Run
from xp.secret import redacted
from xp.task import Trainable
from xp.tracking import Tracker

if TYPE_CHECKING:
    from xp.evaluation import Evaluation
    from xp.model import Loaded
    from xp.task import Encoded


EXPECTED = (r"Adapter .* LoRA tensor\(s\) have invalid shape", r"(PiSSA|OLoRA) changes the base weights")
"""Beginnings of peft's warnings of what is as it should be: AdaLoRA takes all rank from some layers, and an adapter
that its base has given something is just being turned into one that stands alone."""


def scores(
    task: Trainable, metric: str, metrics: dict[str, float], loaded: Loaded, held_out: Encoded
) -> dict[str, Any]:
    """What every result begins with: the objective, and all metrics beside the baseline."""
    baseline = task.baseline(held_out.rows, loaded.labels)
    return {
        "objective": metrics[metric],
        "metric": f"eval/{metric}",
        "goal": better(metric),
        "metrics": {f"eval/{name}": value for name, value in metrics.items()},
        "baseline": {f"eval/{name}": value for name, value in baseline.items()},
    }


def show_findings(
    task: Trainable, evaluated: Evaluation, loaded: Loaded, held_out: Encoded, folder: Path, tracker: Tracker
) -> None:
    """Put the pictures and tables of an evaluation into the run's folder and into MLflow."""
    if world.rank() != 0:
        return
    try:  # The model is trained and saved by now: no picture may lose it.
        found = task.findings(evaluated.outcomes, held_out.rows, loaded.labels, loaded.processor)
        findings.write(found, folder / "evaluation")
    except Exception as error:
        print(f"xp: no findings of this evaluation: {redacted(f'{type(error).__name__}: {error}')}", file=sys.stderr)
        tracker.tags({"xp.findings_failed": f"{type(error).__name__}: {error}"[:500]})
        return
    for name in found.pictures:
        tracker.artifact(folder / "evaluation" / f"{name}.png", "evaluation")
    for name, table in found.tables.items():
        tracker.table(table, f"evaluation/{name}.json")


def trained_adapter(run: Run) -> str:
    """The name that the adapter has on its network that a run trains."""
    several = run.peft.several
    return several.trained if several and several.trained else NEW


def beside(network: Any, trained: str) -> list[str]:
    """The adapters that take part beside the one that is trained; an X-LoRA keeps its experts itself."""
    mixed = kind_of(network.peft_config[trained]) == experts.KIND
    return [] if mixed else [name for name in active(network) if name != trained]


def _save_adapters(network: Any, trained: str, folder: Path, began: Path) -> None:
    """Write the trained adapter of a network, without what its base has given it for the training, and those beside it.

    Args:
        network: a ``PeftModel``.
        trained: name of that adapter.
        folder: where it goes.
        began: the adapter as it was before the training, if that is needed.
    """
    upkeep.settle(network)
    more = {"path_initial_model_for_weight_conversion": str(began)} if began.is_dir() else {}
    _write(network, trained, folder, more)
    shutil.rmtree(began, ignore_errors=True)
    if more:
        _put_back(network, folder)
    for name in beside(network, trained):
        _write(network, name, folder / BESIDE / name, {})


def _write(network: Any, name: str, folder: Path, more: dict[str, str]) -> None:
    """Write one adapter; peft puts one that is not called ``default`` into a folder of its name."""
    with warnings.catch_warnings():
        for expected in EXPECTED:
            warnings.filterwarnings("ignore", message=expected)
        network.save_pretrained(folder, selected_adapters=[name], **more)
    if (inside := folder / name).is_dir():
        for file in inside.iterdir():
            file.replace(folder / file.name)
        inside.rmdir()


def _put_back(network: Any, folder: Path) -> None:
    """Add what peft leaves out of an adapter that it turns into one that stands alone: heads, and layers in full."""
    from peft import get_peft_model_state_dict
    from safetensors.torch import load_file, save_file

    file = folder / "adapter_model.safetensors"
    weights = load_file(file)
    left = {key: value for key, value in get_peft_model_state_dict(network).items() if key not in weights}
    save_file(weights | {key: value.contiguous() for key, value in left.items()}, file, {"format": "pt"})


def save_model(run: Run, loaded: Loaded, folder: Path) -> str:
    """Write a plain Hugging Face folder, or a PEFT folder, its network's config in ``network``; gives its digest."""
    import torch

    part = folder.with_name(folder.name + ".part")
    shutil.rmtree(part, ignore_errors=True)
    network = loaded.network
    if run.training.save_dtype is not None:
        network = network.to(getattr(torch, run.training.save_dtype))
    if hasattr(network, "peft_config"):
        _save_adapters(network, trained_adapter(run), part, folder.parent / initial.FOLDER)
        plain_config(network).save_pretrained(part / NETWORK)
        if kind_of(network.active_peft_config) == experts.KIND:
            experts.keep(network, part, folder)
    else:
        network.save_pretrained(part)
    loaded.processor.save_pretrained(part)
    if folder.exists():  # Of the same run before it was extended.
        old = folder.with_name(folder.name + ".old")
        shutil.rmtree(old, ignore_errors=True)
        folder.replace(old)
        part.replace(folder)
        shutil.rmtree(old)
    else:
        part.replace(folder)
    digest = hashlib.sha256()
    for file in sorted(folder.glob("*.safetensors")):
        digest.update(file.read_bytes())
    return digest.hexdigest()
