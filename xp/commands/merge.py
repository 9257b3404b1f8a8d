"""Merge adapters into the network under them."""

from __future__ import annotations

import time
from functools import partial
from pathlib import Path
from typing import Any

from xp import adapter
from xp.commands.card import write_card
from xp.commands.closing import save_model
from xp.commands.opening import choose_machine, machine
from xp.error import UserError
from xp.model import Wish
from xp.model.quantization import quantized
from xp.report import Report
from xp.run import Run
from xp.task import Trainable
from xp.tracking import Tracker


def merge(run: Run, folder: Path, tracker: Tracker, report: Report) -> dict[str, Any]:
    """Make a plain model of a base and its adapters; it is merged in float32 and saved in the base's own type.

    Returns:
        What goes to ``result.json``: ``metrics``, the place of the model, and times.

    Raises:
        UserError: there is no adapter, or none that is a change of weights.
    """
    import torch
    import transformers

    started = time.perf_counter()
    choose_machine(run, tracker, report)
    loaded = run.model.load(_wish(run))
    network: Any = loaded.network
    if quantized(network.get_base_model()):
        raise UserError("command=merge: quantized weights take no update; leave out model.quantization")
    base = str(network.get_base_model().name_or_path)
    tracker.opened()
    shares = run.merge.weights or dict.fromkeys(adapter.active(network), 1.0)
    key = "peft.adapters" if run.peft.several else f"model.path={getattr(run.model, 'path', '')}"
    merged, change = adapter.merged(network, run.merge, key)
    whole: Any = merged
    loaded.network = whole
    if run.training.save_dtype is None:
        source = {name: getattr(run.model, name, None) for name in ("revision", "trust_remote_code")}
        config = transformers.AutoConfig.from_pretrained(base, **{key: value for key, value in source.items() if value})
        whole.to(config.dtype or torch.float32)
    digest = save_model(run, loaded, folder / "model")
    names = {name: "its adapter" if name == "default" else name for name in shares}
    parts = ", ".join(names[name] if share == 1 else f"{share:g} x {names[name]}" for name, share in shares.items())
    how = f"merged {parts} into {base}; saved in {str(whole.dtype).removeprefix('torch.')}"
    report.say(how)
    metrics = {"merge/largest_change": change}
    tracker.log(metrics, 0)
    result = {
        "objective": change,
        "metric": "merge/largest_change",
        "goal": "max",
        "metrics": metrics,
        "baseline": {},
    }
    write_card(run, loaded, folder / "model", f"{how[0].upper()}{how[1:]}.", result, base)
    return result | {
        "digest": digest,
        "model": str(folder / "model"),
        "seconds": time.perf_counter() - started,
    }


def _wish(run: Run) -> Wish:
    """The model as its adapter says that it is, in float32; the task says what an adapter does not."""
    import torch

    task = run.task
    if not isinstance(task, Trainable):
        raise UserError(f"task={task.name}: it cannot be trained, so there is no adapter for it; leave it out")
    several = run.peft.several
    locate = partial(run.tracking.locate, runs=run.runs_folder)
    if several is not None:
        kind = several.folder(several.leading, locate).task_type
    else:
        path = str(getattr(run.model, "path", ""))
        place = str(Path(locate(path)).expanduser())
        if not adapter.is_adapter(place):
            raise UserError(f"model.path={path}: there is no adapter to merge; give its folder, or peft.adapters")
        kind = adapter.read(place, f"model.path={path}").task_type
    kinds = [type(task), *Trainable.all().values()]  # Several tasks may have one kind; its architecture decides.
    able = [each for each in kinds if each.peft_type == kind] if kind else [type(task)]
    return Wish(
        auto_class=tuple(dict.fromkeys(each.auto_class for each in able)),
        processor_class=able[0].processor_class,
        config=lambda labels: {},
        labels=[],
        texts=list,
        dtype=torch.float32,
        peft_type=able[0].peft_type,
        train=False,
        locate=locate,
        **machine(run, "fp32"),
    )
