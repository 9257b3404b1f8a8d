"""Masked language modelling: predict tokens that are hidden from what is left of a text, on both sides."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, Self

from pydantic import Field, model_validator

from xp.error import UserError
from xp.findings import Findings, worst
from xp.task.base import IGNORE, Encoded, Trainable, mapped, settled
from xp.task.encoding import frame
from xp.task.language import apart, token_logits, token_losses
from xp.task.prediction import MaskPrediction

if TYPE_CHECKING:
    import numpy as np
    from datasets import Dataset
    from torch import Tensor, nn

Share = Annotated[float, Field(ge=0, le=1)]


class MaskedLM(Trainable, name="masked_lm"):
    """Predict hidden tokens from both sides (Devlin et al., 2019, arXiv:1810.04805), by cross-entropy.

    Which tokens are hidden is drawn anew in each epoch, from seed, epoch and the row's index; in evaluations from the
    index alone, so that all of them ask the same.
    """

    auto_class: ClassVar[str] = "AutoModelForMaskedLM"
    peft_type: ClassVar[str | None] = None
    columns: ClassVar[tuple[str, ...]] = ("text",)
    own_scores: ClassVar[tuple[str, ...]] = ("loss", "perplexity", "accuracy")
    two_sided: ClassVar[bool] = True
    special_tokens: ClassVar[tuple[str, ...]] = ("mask_token",)
    pipeline: ClassVar[str] = "fill-mask"
    takes: ClassVar[str] = "a text with the tokenizer's mask token in it"
    gives: ClassVar[str] = "what may stand there, with its probability"

    max_length: Annotated[int, Field(ge=3)]
    """Longest sequence, in tokens with the special ones."""

    overlong: Literal["split", "truncate", "drop", "error"]
    """What becomes of a longer text; ``split`` cuts it into sequences that do not overlap."""

    mask_share: Annotated[float, Field(gt=0, lt=1)]
    """Share of a sequence's tokens that are to be predicted, rounded; at least one of each sequence."""

    whole_words: bool
    """Choose whole words, as the tokenizer parts them, instead of tokens."""

    replace_mask: Share
    """Share of the tokens to be predicted that the mask token stands for."""

    replace_random: Share
    """Share of them that any token of the vocabulary stands for; the rest stays as it is."""

    prediction: MaskPrediction
    """What command=predict gives."""

    @model_validator(mode="after")
    def _shares(self) -> Self:
        if self.replace_mask + self.replace_random > 1:
            raise ValueError(
                f"replace_random={self.replace_random}: with replace_mask={self.replace_mask} it is more than 1; "
                "lower one of them"
            )
        return self

    @property
    def longest(self) -> int:
        """Longest sequence, in tokens."""
        return self.max_length

    def fault(self, row: dict[str, Any]) -> str | None:
        """A text that is no text; an empty one is left out and counted."""
        if isinstance(row["text"], str):
            return None
        return "text: is missing" if row["text"] is None else f"text: {row['text']!r} is not a text"

    def encode(self, rows: Dataset, processor: Any, labels: Sequence[str]) -> Encoded:
        """``input_ids`` with the tokenizer's special tokens, and ``units``: which tokens are hidden together.

        A unit is a token or a whole word; special tokens are of none (-1). ``items`` of an encoded row is how many
        tokens will be hidden if units are tokens; `draw` says how many are.

        Raises:
            UserError: the tokenizer has no mask token, or does not know words, or there is nothing to predict.
        """
        _check(processor, self.whole_words)
        before, after = frame(processor)
        room = self.max_length - len(before) - len(after)
        if room < 1:
            raise UserError(f"task.max_length={self.max_length}: the special tokens leave no room for a text; raise it")

        def features(batch: dict[str, list[str]]) -> dict[str, list[Any]]:
            columns: dict[str, list[Any]] = {name: [] for name in types}
            encoded = processor(batch["text"], add_special_tokens=False, verbose=False)
            for row, tokens in enumerate(encoded["input_ids"]):
                units = encoded.word_ids(row) if self.whole_words else list(range(len(tokens)))
                starts = range(0, len(tokens), room)
                for start in starts if self.overlong == "split" else starts[:1]:
                    inner = units[start : start + room]
                    columns["input_ids"].append([*before, *tokens[start : start + room], *after])
                    columns["units"].append([*[-1] * len(before), *inner, *[-1] * len(after)])
                    columns["length"].append(len(columns["input_ids"][-1]))
                    columns["items"].append(self._count(len(inner)))
                    columns["first"].append(start == 0)
                    columns["over"].append(len(tokens) > room)
            return columns

        types: dict[str, Any] = dict.fromkeys(("length", "items"), "int32") | dict.fromkeys(("first", "over"), "bool")
        types |= {"input_ids": ["int32"], "units": ["int32"]}
        encoded = mapped(rows, features, types)
        if not len(encoded):
            raise UserError("data: no text has a token, so there is nothing to predict")
        texts = sum(encoded["first"])
        notes = {"rows": len(rows), "empty": len(rows) - texts}
        if self.overlong == "split":
            over = sum(first and over for first, over in zip(encoded["first"], encoded["over"], strict=True))
            notes |= {"split": over, "sequences": len(encoded)}
            return Encoded(encoded.remove_columns(["first", "over"]), notes)
        made = settled(encoded.remove_columns("first"), self.overlong, self.max_length, "texts")
        return Encoded(made.rows, made.notes | notes)

    def _count(self, tokens: int) -> int:
        """How many of so many tokens are to be predicted."""
        return max(1, round(self.mask_share * tokens))

    def draw(self, row: dict[str, Any], generator: np.random.Generator, processor: Any) -> dict[str, Any]:
        """The row with some tokens hidden, and ``labels``: what they were, `IGNORE` elsewhere.

        Units are taken in random order, those left out that would make it more than the share, the first one never.
        """
        places: dict[int, list[int]] = {}
        for place, unit in enumerate(row["units"]):
            if unit is not None and unit >= 0:
                places.setdefault(unit, []).append(place)
        units = list(places)
        wanted = self._count(sum(map(len, places.values())))
        chosen: list[int] = []
        for number in generator.permutation(len(units)):
            unit = places[units[number]]
            if not chosen or len(chosen) + len(unit) <= wanted:
                chosen += unit
            if len(chosen) >= wanted:
                break
        chosen.sort()
        tokens, labels = list(row["input_ids"]), [IGNORE] * len(row["input_ids"])
        chances = generator.random(len(chosen))
        anything = generator.integers(len(processor), size=len(chosen))
        for place, chance, other in zip(chosen, chances, anything, strict=True):
            labels[place] = tokens[place]
            if chance < self.replace_mask:
                tokens[place] = processor.mask_token_id
            elif chance < self.replace_mask + self.replace_random:
                tokens[place] = int(other)
        return row | {"input_ids": tokens, "labels": labels, "items": len(chosen)}

    def collate(self, sequences: Sequence[Sequence[dict[str, Any]]], processor: Any) -> dict[str, Tensor]:
        """``input_ids``, ``attention_mask`` and ``labels``, all (rows, longest)."""
        return apart([row for (row,) in sequences], processor.pad_token_id)

    def loss(self, network: nn.Module, batch: dict[str, Tensor], label_smoothing: float) -> Tensor:
        """Cross-entropy, summed over the hidden tokens."""
        return token_losses(token_logits(network, batch), batch["labels"], label_smoothing).sum()

    def outcomes(
        self, network: nn.Module, batch: dict[str, Tensor], processor: Any, generation: Any
    ) -> dict[str, np.ndarray]:
        """The summed ``loss`` of each row, and how many of its hidden tokens are ``right``."""
        logits, target = token_logits(network, batch), batch["labels"]
        losses = token_losses(logits, target, 0.0)
        right = (logits.argmax(-1) == target).sum(-1)
        return {"loss": losses.sum(-1).cpu().double().numpy(), "right": right.cpu().numpy()}

    def score(self, outcomes: dict[str, np.ndarray], rows: Dataset, labels: Sequence[str]) -> dict[str, float]:
        """``loss`` in nats a hidden token, its ``perplexity``, and the share of them that are found, ``accuracy``."""
        items = float(outcomes["items"].sum())
        loss = float(outcomes["loss"].sum()) / items
        return {"loss": loss, "perplexity": _exp(loss), "accuracy": float(outcomes["right"].sum()) / items}

    def baseline(self, rows: Dataset, labels: Sequence[str]) -> dict[str, float]:
        """Answering by the frequency of each token in ``rows``, over all tokens that may be hidden."""
        counts: Counter[int] = Counter()
        for tokens, units in zip(rows["input_ids"], rows["units"], strict=True):
            counts.update(token for token, unit in zip(tokens, units, strict=True) if unit is not None and unit >= 0)
        total = sum(counts.values())
        loss = -sum(count / total * math.log(count / total) for count in counts.values())
        return {"loss": loss, "perplexity": _exp(loss), "accuracy": max(counts.values()) / total}

    def findings(
        self, outcomes: dict[str, np.ndarray], rows: Dataset, labels: Sequence[str], processor: Any
    ) -> Findings:
        """The texts with the highest loss a hidden token."""
        items = outcomes["items"].tolist()
        columns = {
            "text": processor.batch_decode(rows["input_ids"][:], skip_special_tokens=True),
            "hidden": items,
            "found": outcomes["right"].tolist(),
        }
        return Findings({"worst": worst((outcomes["loss"] / outcomes["items"]).tolist(), columns)})


def _check(processor: Any, whole_words: bool) -> None:
    if processor.mask_token_id is None:
        raise UserError(
            "task=masked_lm: this model's tokenizer has no mask token; choose a model that was trained with one, such "
            "as model=distilbert, or model=scratch_bert with model.tokenizer=null"
        )
    if whole_words and (not processor.is_fast or len({*processor("a b", add_special_tokens=False).word_ids()}) < 2):
        raise UserError("task.whole_words=true: this model's tokenizer does not part words; set it to false")


def _exp(loss: float) -> float:
    return math.exp(loss) if loss < 700 else math.inf
