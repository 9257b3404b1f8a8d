"""From a network and encoded rows to a Job, with the checks that need both."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from xp.error import UserError
from xp.evaluation import Evaluation, evaluate
from xp.generation import Generation
from xp.metric import better
from xp.model import Loaded, positions
from xp.peft.upkeep import upkeep
from xp.process import world
from xp.proof import check_adapter, check_checkpointing, check_packing, sees_ahead
from xp.saving import state
from xp.saving.checkpoint import BEST, STEP
from xp.saving.writer import Writer
from xp.task import Encoded, Trainable
from xp.training.feed import Feed
from xp.training.job import Job
from xp.training.memory import Portions
from xp.training.recipe import Training

if TYPE_CHECKING:
    import torch


def prepare(
    recipe: Training,
    task: Trainable,
    loaded: Loaded,
    train: Encoded,
    held_out: Encoded,
    generation: Generation,
    seed: int,
    device: torch.device,
    autocast: Callable[[], AbstractContextManager[Any]],
    folder: Path,
    writer: Writer | None,
    about: dict[str, Any],
    log: Callable[[dict[str, float], int], None],
    tell: Callable[[str, dict[str, str]], None],
    found: Callable[[Evaluation], None],
    places: Callable[[list[int]], list[str]],
) -> Job:
    """A training that is ready to start.

    Args:
        loaded: the network, its weights to be trained marked so, on the device.
        train: the rows to train on.
        held_out: the rows to evaluate on.
        generation: how answers are written that an evaluation needs.
        folder: the run's folder.
        writer: of its checkpoints; None on every process but the first.
        about: what a checkpoint is to say of the run.
        log: takes metrics by name and the optimizer step.
        tell: takes news: a line, and tags for the tracked run.
        found: is told of every evaluation.
        places: where encoded train rows come from.

    Raises:
        UserError: the recipe does not fit the network.
    """
    network, processor = loaded.network, loaded.processor
    packed = recipe.batching == "packed"
    if hasattr(network, "peft_config"):
        check_adapter(task, network, held_out, processor, device, autocast)
    if packed:
        check_packing(task, network, train, processor, device, autocast)
    if recipe.gradient_checkpointing:
        if not network.supports_gradient_checkpointing:
            raise UserError("training.gradient_checkpointing=true: this model has no support for it; set it to false")
        check_checkpointing(network)
        network.activation_checkpointing_enable({"use_reentrant": False})
    if hasattr(network.config, "use_cache"):
        network.config.use_cache = False  # A cache of keys and values only costs memory in training.
    if recipe.compile:
        network.compile()
    optimizer = recipe.make_optimizer(network, device)
    metric = recipe.metric or task.scores[0]

    auto = recipe.micro_batch_size == "auto"
    micro = recipe.micro_batch_size if isinstance(recipe.micro_batch_size, int) else None
    portions = Portions(auto, micro, recipe.evaluation_batch_size, tell)

    def evaluated() -> dict[str, float]:
        evaluation = evaluate(
            task, network, held_out.rows, loaded.labels, processor, generation, portions, device, autocast
        )
        found(evaluation)
        return evaluation.scores

    feed = Feed(
        recipe=recipe,
        rows=train.rows,
        seed=seed,
        collate=partial(task.collate, processor=processor),
        draw=lambda row, generator: task.vary(task.draw(row, generator, processor), generator),
        capacity=task.longest if packed else None,
    )

    def keep(job: Job) -> None:
        if recipe.keep_best and writer is not None:
            writer.room()
            mine = {"step": job.step, "needs_best": None}  # What `checkpoint.fault` asks of each.
            writer.save(BEST, job.step, {"weights": state.weights(network)}, mine | about)

    def save(job: Job) -> None:
        if writer is not None:
            writer.room()
        tensors, values = state.capture(job)
        if writer is not None:
            writer.save(STEP, job.step, tensors, values | about)

    def settle() -> None:
        if writer is not None:
            writer.wait()
        world.gather(None)

    job = Job(
        recipe=recipe,
        network=network,
        optimizer=optimizer,
        schedule=recipe.make_schedule(optimizer, feed.total_steps, better(metric)),
        feed=feed,
        seed=seed,
        device=device,
        folder=str(folder),
        batch_loss=partial(task.loss, label_smoothing=recipe.label_smoothing),
        autocast=autocast,
        evaluate=evaluated,
        log=log,
        metric=metric,
        goal=better(metric),
        places=places,
        keep=keep,
        save=save,
        portions=portions,
        settle=settle,
        upkeep=upkeep(network),
    )
    if job.upkeep is not None:
        job.upkeep.attach(optimizer, lambda: job.step)
    return job


def check_fit(task: Trainable, loaded: Loaded) -> None:
    """Refuse a network that cannot do the task as asked.

    Raises:
        UserError: ``task.max_length`` is more than its positions reach, or a language model that sees the future
            though it must not, or does not though it must.
    """
    most = getattr(loaded.processor, "model_max_length", None) or 1 << 60
    bounds = [most, positions(loaded.network.config) or 1 << 60]
    if task.longest is not None and task.longest > min(bounds):
        raise UserError(
            f"task.max_length={task.longest}: this model takes sequences of at most {min(bounds)} tokens; "
            f"use task.max_length={min(bounds)} or less, or another model"
        )
    for name in ("layerdrop", "encoder_layerdrop", "decoder_layerdrop"):
        value = getattr(loaded.network.config, name, 0.0)
        if value and world.size() > 1:
            raise UserError(
                f"model.config.{name}={value}: layers that are left out at random cannot be trained in several "
                f"processes, which wait for every weight's gradient; set model.config.{name}=0.0"
            )
    if task.packable and sees_ahead(loaded.network, len(loaded.processor)):
        raise UserError(
            f"task={task.name}: this model sees the tokens it is to predict, as encoders do; choose a decoder, "
            "or give model.config.is_decoder=true where the architecture has it"
        )
    if task.two_sided and not sees_ahead(loaded.network, len(loaded.processor)):
        raise UserError(
            f"task={task.name}: this model does not see the tokens after a hidden one, as decoders do not; choose an "
            "encoder, or task=causal_lm"
        )
