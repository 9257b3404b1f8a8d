"""Proofs on a row or two that a network does what a training takes for granted."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import TYPE_CHECKING, Any

from xp.adapter import kind_of
from xp.error import UserError
from xp.hardware import home
from xp.task import Encoded, Trainable

if TYPE_CHECKING:
    import torch
    from torch import nn


def check_adapter(
    task: Trainable,
    network: Any,
    held_out: Encoded,
    processor: Any,
    device: torch.device,
    autocast: Callable[[], AbstractContextManager[Any]],
) -> None:
    """Prove that a network with an adapter takes the task's rows, keeps padding out, and sees no later tokens.

    Its trained weights are moved a little meanwhile: where they begin, most adapters change nothing.

    Raises:
        UserError: it does not; no other part of peft or transformers would say so.
    """
    import numpy as np
    import torch

    kind = kind_of(network.active_peft_config)
    lengths = np.asarray(held_out.rows["length"][:])
    numbers = sorted({int(lengths.argmin()), int(lengths.argmax())})
    rows = [task.draw(held_out.rows[at], np.random.default_rng([at]), processor) for at in numbers]

    def loss(rows: list[Any]) -> float:
        batch = {name: value.to(device) for name, value in task.collate([[row] for row in rows], processor).items()}
        with autocast():
            return float(task.loss(network, batch, 0.0))

    network.eval()
    with torch.inference_mode(), _moved(network), _row_by_row(network):
        try:
            together, apart = loss(rows), sum(loss([row]) for row in rows)
        except (
            ValueError,
            RuntimeError,
            TypeError,
            AttributeError,
            IndexError,
            KeyError,
            NotImplementedError,
        ) as error:
            said = " ".join(str(error).split())[:300]
            raise UserError(
                f"peft: {kind} does not go with this model and task={task.name}: {said}; use another one, such as "
                "peft=lora"
            ) from error
        if abs(together - apart) > 2e-2 * max(1.0, abs(apart)):
            raise UserError(
                f"peft: with {kind}, what this model makes of a row of task={task.name} depends on its padding (a loss "
                f"of {apart:.3f} becomes {together:.3f}); use another one, such as peft=lora, or another model"
            )
        with nullcontext() if _whole(network) else autocast():
            ahead = task.packable and sees_ahead(network, len(processor))
        if ahead:
            raise UserError(
                f"peft: with {kind}, this model sees the tokens that task={task.name} has it predict; use another one, "
                "such as peft=lora"
            )


def check_checkpointing(network: Any) -> None:
    """Refuse prefixes in a network that computes its layers twice: transformers would leave them out.

    Raises:
        UserError: the adapter is such a one.
    """
    kind = kind_of(network.active_peft_config) if hasattr(network, "peft_config") else ""
    if kind in ("PREFIX_TUNING", "CARTRIDGE"):
        raise UserError(f"training.gradient_checkpointing=true: peft: {kind} does not work with it; set it to false")


@contextmanager
def _moved(network: nn.Module) -> Iterator[None]:
    """Adds noise to the trained weights; they come back as they were, to the last bit."""
    import torch

    generator = torch.Generator().manual_seed(0)
    trained = [parameter for parameter in network.parameters() if parameter.requires_grad]
    before = [parameter.detach().clone() for parameter in trained]
    for parameter in trained:
        noise = torch.randn(parameter.shape, generator=generator) * 0.05
        parameter.data.add_(noise.to(parameter.device, parameter.dtype))
    try:
        yield
    finally:
        for parameter, value in zip(trained, before, strict=True):
            parameter.data.copy_(value)


def sees_ahead(network: nn.Module, vocabulary: int) -> bool:
    """Whether the last token of a sequence changes what the network says before it."""
    import torch

    network.eval()
    tokens = torch.arange(3, 11, device=home(network))[None] % vocabulary
    other = tokens.clone()
    other[0, -1] = (other[0, -1] + 1) % vocabulary
    with torch.inference_mode(), _row_by_row(network):
        first, second = (network(input_ids=each).logits[:, :-1].float() for each in (tokens, other))
    return bool((first - second).abs().max() > 1e-3 * first.std())


def _whole(network: nn.Module) -> bool:
    """Whether all weights are float32, and so nothing needs autocast, whose rounding would blur a proof."""
    import torch

    return all(each.dtype == torch.float32 for each in network.parameters())


@contextmanager
def _row_by_row(network: nn.Module) -> Iterator[None]:
    """Has int8 layers round every column meanwhile.

    Where one row of a batch has something large in a column, bitsandbytes keeps that column whole for all of them, and
    the others notice: by up to 9 % of the deviation of logits, in the bundled model.
    """
    found = [getattr(part, "state", None) for part in network.modules() if type(part).__name__ == "Linear8bitLt"]
    states: list[Any] = [state for state in found if state is not None]  # peft's layers around them have none.
    before = [state.threshold for state in states]
    for state in states:
        state.threshold = 0.0
    try:
        yield
    finally:
        for state, threshold in zip(states, before, strict=True):
            state.threshold = threshold


def check_packing(
    task: Trainable,
    network: nn.Module,
    train: Encoded,
    processor: Any,
    device: torch.device,
    autocast: Callable[[], AbstractContextManager[Any]],
) -> None:
    """Prove on two rows that the network keeps packed rows apart; not every architecture does.

    Raises:
        UserError: the second of two packed rows gets other logits than it gets alone.
    """
    import torch

    half = max(2, (task.longest or 2) // 2)
    rows = [row | {"input_ids": row["input_ids"][:half]} for row in train.rows.select(range(min(2, len(train.rows))))]
    second = len(rows[-1]["input_ids"])
    network.eval()

    def logits(examples: list[dict[str, Any]]) -> torch.Tensor:
        batch = {
            name: value.to(device) for name, value in task.collate([examples], processor).items() if name != "labels"
        }
        found: torch.Tensor = network(**batch).logits[0, -second:].float()
        return found

    exact = _whole(network)  # Else what sums up in another order ends in another of bfloat16's three digits.
    with torch.inference_mode(), _row_by_row(network), nullcontext() if exact else autocast():
        alone = logits(rows[-1:])
        try:
            apart = (logits(rows) - alone).abs().max() <= (1e-2 if exact else 0.1) * alone.std()
        except (TypeError, ValueError, RuntimeError, IndexError):
            apart = torch.tensor(False)  # It takes no positions, or no mask of this shape.
    if not apart:
        raise UserError(
            "training.batching=packed: this model does not keep rows apart that share a sequence; "
            "use training.batching=length"
        )
