"""Training: the recipe, and what it makes for a network: optimizer and schedule."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt, model_validator

from xp.component import Settings
from xp.error import UserError
from xp.training import optimizer as optimizers
from xp.training.batching import Batching
from xp.training.optimizer import Optimizer

if TYPE_CHECKING:
    import torch
    from torch import nn

Schedule = Literal[
    "linear",
    "cosine",
    "cosine_with_restarts",
    "cosine_with_min_lr",
    "cosine_warmup_with_min_lr",
    "polynomial",
    "constant",
    "constant_with_warmup",
    "inverse_sqrt",
    "warmup_stable_decay",
    "reduce_lr_on_plateau",
    "greedy",
]


BY_METRIC = ("reduce_lr_on_plateau", "greedy")
"""Schedules that step at each evaluation, by its deciding metric, and not at each optimizer step."""


class Training(Settings):
    """The recipe: how long, how fast, how often to look."""

    epochs: PositiveFloat | None
    """Passes over the training rows; null where ``max_steps`` says how long."""

    max_steps: PositiveInt | None
    """Optimizer steps; null where ``epochs`` says how long."""

    batch_size: PositiveInt
    """Rows of one optimizer step, over all processes."""

    micro_batch_size: PositiveInt | Literal["auto"] | None
    """Sequences that one device holds at once; null: all of its share; auto: that, and half of it wherever memory does
    not suffice, in evaluations as well. Changes memory, not the curve."""

    evaluation_batch_size: PositiveInt
    """Rows that one device evaluates at once."""

    batching: Batching
    """Which rows meet in a batch: of similar ``length``, any (``shuffle``), or any, laid end to end (``packed``)."""

    workers: NonNegativeInt
    """Processes that prepare batches ahead; 0 prepares them in between."""

    optimizer: Optimizer
    """Update rule; adamw and sgd run fused where torch has that for the device. ``_8bit``: its states are held in 8
    bits, ``paged_``: they may leave the memory of a GPU for that of the host (bitsandbytes)."""

    optimizer_options: dict[str, Any]
    """More of the optimizer's own arguments, for example ``{betas: [0.9, 0.95]}`` or ``{momentum: 0.9}``."""

    learning_rate: PositiveFloat
    """Highest learning rate, reached at the end of the warm-up."""

    schedule: Schedule
    """Course of the learning rate, by transformers' name for it; the last two go by the evaluations' metric."""

    schedule_options: dict[str, Any]
    """More of the schedule's own arguments, for example ``{min_lr_rate: 0.1}``."""

    warmup: NonNegativeFloat
    """Steps over which the learning rate rises: a share of all steps below 1, else a number of steps."""

    weight_decay: NonNegativeFloat
    """Decay of the weights a unit of learning rate; biases and norms are spared."""

    max_grad_norm: PositiveFloat | None
    """Longer gradients are scaled down to this length; null clips none."""

    label_smoothing: Annotated[float, Field(ge=0, lt=1)]
    """Share of the target's probability that is spread over all classes, in training only."""

    gradient_checkpointing: bool
    """Compute activations again in the backward pass: less memory, about a third more time."""

    compile: bool
    """Compile the network with torch.compile: minutes at the start, then faster steps, most of all on a GPU."""

    log_every: PositiveInt
    """Optimizer steps between two points of the training curves."""

    evaluate_every: PositiveInt | None
    """Optimizer steps between two evaluations; null evaluates after each epoch. The last step always evaluates."""

    save_every: PositiveInt | None
    """Optimizer steps between two checkpoints, beside the one after each evaluation; null: those alone."""

    save_total: NonNegativeInt
    """Checkpoints that are kept: more than one, in case the newest is damaged; 0 writes none."""

    metric: str | None
    """Metric that the objective, keeping the best and early stopping go by; null: the task's own."""

    keep_best: bool
    """End with the weights of the best evaluation instead of the last."""

    patience: PositiveInt | None
    """Stop after this many evaluations without a better one; null never stops early."""

    save_dtype: Literal["float32", "bfloat16", "float16"] | None
    """Type of the weights in the saved folder; null saves them as they were trained."""

    @model_validator(mode="before")
    @classmethod
    def _size(cls, values: Any) -> Any:
        size = values.get("micro_batch_size") if isinstance(values, dict) else None
        if size is not None and size != "auto" and (not isinstance(size, int) or isinstance(size, bool) or size < 1):
            raise ValueError(f"micro_batch_size={size}: it must be a whole number from 1 on, auto or null")
        return values

    @model_validator(mode="after")
    def _one_length(self) -> Training:
        if (self.epochs is None) == (self.max_steps is None):
            raise ValueError("epochs and max_steps: exactly one of the two says how long; set the other to null")
        if self.warmup and self.schedule in ("constant", *BY_METRIC):
            raise ValueError(f"warmup={self.warmup}: schedule={self.schedule} has none; set it to 0")
        if self.schedule == "warmup_stable_decay" and "num_decay_steps" not in self.schedule_options:
            raise ValueError("schedule_options.num_decay_steps has no value; schedule=warmup_stable_decay needs one")
        return self

    def total_steps(self, rows: int) -> int:
        """Optimizer steps of the whole training on this many rows."""
        if self.max_steps is not None:
            return self.max_steps
        assert self.epochs is not None
        return max(1, round(self.epochs * -(-rows // self.batch_size)))

    def make_optimizer(self, network: nn.Module, device: torch.device) -> torch.optim.Optimizer:
        """The optimizer over the trainable weights, decay on matrices and embeddings only.

        Raises:
            UserError: an option that this optimizer does not have.
        """
        return optimizers.make(
            self.optimizer, self.optimizer_options, network, self.learning_rate, self.weight_decay, device
        )

    def make_schedule(
        self, optimizer: torch.optim.Optimizer, total_steps: int, goal: Literal["min", "max"] = "min"
    ) -> torch.optim.lr_scheduler.LRScheduler:
        """transformers' schedule of that name over all steps, warm-up included.

        Args:
            optimizer: whose learning rates it sets.
            total_steps: of the whole training.
            goal: which way the deciding metric is good, for a schedule that goes by it.

        Raises:
            UserError: a warm-up longer than the training, or an option that this schedule does not have.
        """
        from torch.optim.lr_scheduler import ReduceLROnPlateau
        from transformers import SchedulerType, get_scheduler
        from transformers.optimization import TYPE_TO_SCHEDULER_FUNCTION, GreedyLR

        warmup = round(self.warmup * total_steps) if self.warmup < 1 else int(self.warmup)
        if warmup > total_steps:
            raise UserError(f"training.warmup={self.warmup}: longer than the whole training of {total_steps} steps")
        options = self.schedule_options
        function: Any = TYPE_TO_SCHEDULER_FUNCTION[SchedulerType(self.schedule)]
        if self.schedule in BY_METRIC:
            function = ReduceLROnPlateau if self.schedule == "reduce_lr_on_plateau" else GreedyLR
            options = {"mode": goal} | options
        given = {"optimizer", "num_warmup_steps", "num_training_steps"}
        optimizers.check_options("schedule", self.schedule, function, options, given)
        try:
            made: torch.optim.lr_scheduler.LRScheduler = get_scheduler(
                self.schedule, optimizer, warmup, total_steps, scheduler_specific_kwargs=options
            )
        except (ValueError, TypeError) as error:
            raise UserError(f"training.schedule_options: {self.schedule} refuses them: {error}") from error
        return made

    def stretch(self, schedule: torch.optim.lr_scheduler.LRScheduler, total_steps: int) -> None:
        """Let a schedule be that of another length from its next step on; one that goes by a metric has none."""
        import torch

        if self.schedule in BY_METRIC:
            return
        groups = [{"params": [torch.zeros(1)]} for _ in schedule.optimizer.param_groups]
        other: Any = self.make_schedule(torch.optim.SGD(groups, lr=self.learning_rate), total_steps)
        mine: Any = schedule
        mine.lr_lambdas = other.lr_lambdas
        rates = [base * rate(mine.last_epoch) for base, rate in zip(mine.base_lrs, mine.lr_lambdas, strict=True)]
        for group, rate in zip(mine.optimizer.param_groups, rates, strict=True):
            group["lr"] = rate
        mine._last_lr = rates
