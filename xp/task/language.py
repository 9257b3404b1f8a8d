"""What tasks on tokens share: rows laid into sequences, and the loss of each token."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import chain
from typing import TYPE_CHECKING, Any

from xp.task.base import IGNORE, padded

if TYPE_CHECKING:
    from torch import Tensor, nn


def laid(
    sequences: Sequence[Sequence[dict[str, Any]]], labels: Callable[[dict[str, Any]], Sequence[int]], pad: int
) -> dict[str, Tensor]:
    """``input_ids``, ``labels`` and, unless packed, ``attention_mask``, all (sequences, longest).

    Packed sequences come with ``position_ids`` that start again at each row, and an ``attention_mask``
    (sequences, 1, longest, longest) that is True where a token sees another one of its own row.

    Args:
        sequences: the encoded rows of each sequence, with their ``input_ids``.
        labels: of a row, one a token; that of its first token does not count, for nothing predicts it.
        pad: id of the padding token. It is padding by its place alone: where a row holds it, it is predicted.
    """
    tokens = [list(chain.from_iterable(row["input_ids"] for row in rows)) for rows in sequences]
    targets = [list(chain.from_iterable([IGNORE, *labels(row)[1:]] for row in rows)) for rows in sequences]
    batch = {"input_ids": padded(tokens, pad), "labels": padded(targets, IGNORE)}
    if all(len(rows) == 1 for rows in sequences):
        return batch | {"attention_mask": padded([[1] * len(row) for row in tokens], 0)}
    positions = [list(chain.from_iterable(range(len(row["input_ids"])) for row in rows)) for rows in sequences]
    owners = [
        list(chain.from_iterable([number] * len(row["input_ids"]) for number, row in enumerate(rows)))
        for rows in sequences
    ]
    owner = padded(owners, -1)
    same = owner[:, None, :, None] == owner[:, None, None, :]
    return batch | {"position_ids": padded(positions, 0), "attention_mask": same.tril()}


def apart(rows: Sequence[dict[str, Any]], pad: int) -> dict[str, Tensor]:
    """``input_ids``, ``attention_mask`` and ``labels``, all (rows, longest), for networks that see a row as a whole."""
    return {
        "input_ids": padded([row["input_ids"] for row in rows], pad),
        "attention_mask": padded([[1] * len(row["input_ids"]) for row in rows], 0),
        "labels": padded([row["labels"] for row in rows], IGNORE),
    }


def token_logits(network: nn.Module, batch: dict[str, Tensor]) -> Tensor:
    """Logits (rows, longest, classes) in float32 of a batch of `apart`."""
    logits: Tensor = network(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits
    return logits.float()


def predicted(network: nn.Module, batch: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
    """Logits (sequences, longest - 1, vocabulary) in float32, and the labels they are to meet."""
    inputs = {name: value for name, value in batch.items() if name != "labels"}
    return network(**inputs).logits[:, :-1].float(), batch["labels"][:, 1:]


def token_losses(logits: Tensor, labels: Tensor, label_smoothing: float) -> Tensor:
    """Loss of each token, in the shape of ``labels``, zero where nothing is to be predicted.

    Args:
        logits: (sequences, tokens, classes), float32.
        labels: (sequences, tokens).
        label_smoothing: share of the target that is spread over all classes.
    """
    from torch.nn.functional import cross_entropy

    losses = cross_entropy(
        logits.flatten(0, 1),
        labels.flatten(),
        ignore_index=IGNORE,
        reduction="none",
        label_smoothing=label_smoothing,
    )
    return losses.view(labels.shape)
