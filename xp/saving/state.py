"""State: what a checkpoint holds of a job, taken from it and given back, the same on every backend.

Held are the weights that train (of an adapter, its own), buffers, optimizer, schedule, the random states of every
process, the step, the best metric and its step, early stopping, what was summed up since the last point of the curves,
what was found to fit into memory, the precision, the frozen config and the fingerprints of the rows.

Not held, because it follows from these:

- the position in the data: the rows of a step are a function of rows, recipe, seed and the step's number;
- a gradient scaler: there is none, for xp computes in fp32 or bf16, whose gradients need no scale;
- the position of the tracker: the journal lies beside the checkpoints and knows what it holds, and what MLflow has of
  it is asked of MLflow;
- the trainer's and accelerate's own states: the job has its own on every backend, so that each goes on with another's.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from xp.error import UserError
from xp.process import world
from xp.saving.checkpoint import Checkpoint, Tensors
from xp.training import optimizer as optimizers

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

    from xp.training.job import Job


def weights(network: nn.Module) -> dict[str, Tensor]:
    """A copy on the CPU of what training changes: trainable weights, and buffers that are saved with a model."""
    saved = set(network.state_dict(keep_vars=True))
    found: dict[str, Tensor] = {name: value for name, value in network.named_parameters() if value.requires_grad}
    found |= {name: value for name, value in network.named_buffers() if name in saved}
    return {name: _copy(value) for name, value in found.items()}


def take_weights(network: nn.Module, saved: dict[str, Tensor]) -> None:
    """Give a network what `weights` has taken from one like it.

    Raises:
        UserError: they are not of such a network.
    """
    import torch

    own = dict(network.named_parameters()) | dict(network.named_buffers())
    wanted = {name for name, value in network.named_parameters() if value.requires_grad}
    odd = sorted(set(saved) - set(own)) + sorted(wanted - set(saved))
    odd += [name for name in saved if name in own and saved[name].shape != own[name].shape]
    if odd:
        raise UserError(
            f"the checkpoint is of another network: {odd[0]} differs{f' and {len(odd) - 1} more' * (len(odd) > 1)}"
        )
    with torch.no_grad():
        for name, value in saved.items():
            own[name].copy_(value)


def capture(job: Job) -> tuple[Tensors, dict[str, Any]]:
    """The job after a step: tensors by file, and plain values. Every process takes part; only rank 0's counts.

    note: copying the state is a sync point with the device; it is all that the training waits for.
    """
    window = job.window
    mine = {
        "loss": float(window.loss),
        "tokens": window.tokens,
        "room": window.room,
        "random": _random(),
        "evaluation": job.portions.evaluation,
    }
    everyone = world.gather(mine)
    if world.rank() != 0:
        return {}, {}
    state = optimizers.state(job.optimizer)
    tensors = {
        f"{index}.{name}": _copy(value)
        for index, values in state["state"].items()
        for name, value in values.items()
        if hasattr(value, "detach")
    }
    plain = {
        str(index): {name: value for name, value in values.items() if not hasattr(value, "detach")}
        for index, values in state["state"].items()
    }
    random = {
        f"{rank}.{name}": value for rank, each in enumerate(everyone) for name, value in each["random"][0].items()
    }
    files = {"weights": weights(job.network), "optimizer": tensors, "random": random}
    if job.upkeep is not None:
        files["upkeep"] = {name: _copy(value) for name, value in job.upkeep.tensors().items()}
    return files, {
        "step": job.step,
        "best": job.best,
        "best_step": job.best_step,
        "needs_best": job.best_step if job.recipe.keep_best and job.best is not None else None,
        "worse": job.worse,
        "evaluated_step": job.evaluated_step,
        "metrics": job.metrics,
        "notes": job.notes,
        "portions": {"training": job.portions.training, "evaluation": [each["evaluation"] for each in everyone]},
        "optimizer": {"state": plain, "groups": state["param_groups"]},
        "schedule": job.schedule.state_dict(),
        "upkeep": {} if job.upkeep is None else job.upkeep.values(),
        "window": {
            "items": window.items,
            "seconds": time.perf_counter() - window.started,
            "processes": [{name: each[name] for name in ("loss", "tokens", "room")} for each in everyone],
        },
        "random": [each["random"][1] for each in everyone],
    }


def restore(job: Job, found: Checkpoint) -> None:
    """Bring a job that was prepared anew to where the checkpoint was taken."""
    import torch

    state = found.state
    take_weights(job.network, found.tensors("weights"))
    if job.upkeep is not None:
        job.upkeep.restore(found.tensors("upkeep"), state["upkeep"])
    optimizer: dict[int, dict[str, Any]] = {int(at): dict(values) for at, values in state["optimizer"]["state"].items()}
    for name, value in found.tensors("optimizer").items():
        index, _, key = name.partition(".")
        optimizer[int(index)][key] = value
    own = job.optimizer.state_dict()["param_groups"]
    groups = [
        {name: _like(value, mine.get(name)) for name, value in group.items()}
        for group, mine in zip(state["optimizer"]["groups"], own, strict=True)
    ]
    optimizers.take_state(job.optimizer, {"state": optimizer, "param_groups": groups})
    schedule = job.schedule.state_dict()
    if odd := [name for name, value in state["schedule"].items() if not _alike(value, schedule.get(name))]:
        raise UserError(f"{found.folder}: {odd[0]} is nothing that this schedule has")
    job.schedule.load_state_dict({name: _like(value, schedule.get(name)) for name, value in state["schedule"].items()})
    job.step, job.worse = state["step"], state["worse"]
    job.best, job.best_step, job.evaluated_step = state["best"], state["best_step"], state["evaluated_step"]
    job.metrics, job.notes = state["metrics"], state["notes"]
    job.saved_step, job.done = job.step, job.step == job.total_steps or job.out_of_patience
    _take_portions(job, state["portions"])
    window = job.window
    parts = state["window"]["processes"]
    # Of other processes than these, the first takes the sums: they are added up over all of them anyway.
    shares = parts if len(parts) == world.size() else [*_summed(parts), *[_NOTHING] * (world.size() - 1)]
    mine = shares[world.rank()]
    window.loss = torch.tensor(mine["loss"], device=job.device) if state["window"]["items"] else 0.0
    window.tokens, window.room = mine["tokens"], mine["room"]
    if world.rank() < len(parts):
        rank = f"{world.rank()}."
        _take_random(
            {
                name.removeprefix(rank): value
                for name, value in found.tensors("random").items()
                if name.startswith(rank)
            },
            state["random"][world.rank()],
        )
    window.items = state["window"]["items"]
    window.started = time.perf_counter() - state["window"]["seconds"]


def _take_portions(job: Job, saved: dict[str, Any]) -> None:
    """What was found to fit; what the recipe says itself counts more."""
    if job.portions.auto:
        job.portions.training = saved["training"]
        sizes = saved["evaluation"]
        found = sizes[world.rank()] if len(sizes) == world.size() else min(sizes)
        job.portions.evaluation = min(job.portions.evaluation, found)


_NOTHING = {"loss": 0.0, "tokens": 0, "room": 0}


def _summed(parts: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{name: sum(part[name] for part in parts) for name in _NOTHING}]


def _copy(value: Tensor) -> Tensor:
    import torch

    return value.detach().to("cpu", copy=True, memory_format=torch.contiguous_format)


def _alike(value: Any, mine: Any) -> bool:
    """Whether a value can stand in an object's place for its own."""
    number = isinstance(value, (int, float)) and isinstance(mine, (int, float))
    return number or mine is None or isinstance(value, type(mine)) or isinstance(_like(value, mine), type(mine))


def _like(value: Any, mine: Any) -> Any:
    """What json has made a list of, as the tuple that it was."""
    return tuple(value) if isinstance(mine, tuple) else value


def _random() -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """The states of this process's random generators: tensors, and plain values."""
    import random

    import numpy as np
    import torch

    kind, words, position, has_gauss, cached = np.random.get_state()
    version, numbers, gauss = random.getstate()
    tensors = {
        "torch": torch.get_rng_state(),
        "numpy": torch.from_numpy(np.asarray(words).astype(np.int64)),
        "python": torch.tensor(numbers),
    }
    if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]  # A run on the CPU leaves the GPU alone.
        tensors["cuda"] = torch.cuda.get_rng_state()
    return tensors, {"numpy": [kind, position, has_gauss, cached], "python": [version, gauss]}


def _take_random(tensors: dict[str, Tensor], plain: dict[str, Any]) -> None:
    import random

    import numpy as np
    import torch

    kind, position, has_gauss, cached = plain["numpy"]
    np.random.set_state((kind, tensors["numpy"].numpy().astype(np.uint32), position, has_gauss, cached))
    version, gauss = plain["python"]
    random.setstate((version, tuple(tensors["python"].tolist()), gauss))
    torch.set_rng_state(tensors["torch"])
    if "cuda" in tensors and torch.cuda.is_available():
        torch.cuda.set_rng_state(tensors["cuda"])
