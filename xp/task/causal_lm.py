"""Causal language modelling: predict each token of a text from those before it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field

from xp.error import UserError
from xp.task.base import Encoded, Trainable, mapped, text_fault
from xp.task.language import laid, predicted, token_losses
from xp.task.prediction import ContinuationPrediction

if TYPE_CHECKING:
    from typing import Annotated

    import numpy as np
    from datasets import Dataset
    from torch import Tensor, nn
else:
    from typing import Annotated


class CausalLM(Trainable, name="causal_lm"):
    """Predict each token from those before it (Radford et al., 2018), by cross-entropy over the vocabulary."""

    auto_class: ClassVar[str] = "AutoModelForCausalLM"
    peft_type: ClassVar[str] = "CAUSAL_LM"
    columns: ClassVar[tuple[str, ...]] = ("text",)
    own_scores: ClassVar[tuple[str, ...]] = ("loss", "perplexity", "bits_per_byte")
    packable: ClassVar[bool] = True
    pipeline: ClassVar[str] = "text-generation"
    takes: ClassVar[str] = "a text to go on from, or a chat"
    gives: ClassVar[str] = "the text with what follows it"
    generates: ClassVar[bool] = True

    max_length: Annotated[int, Field(ge=2)]
    """Longest sequence, in tokens with the special ones."""

    overlong: Literal["split", "truncate", "drop", "error"]
    """What becomes of a longer text; ``split`` cuts it into windows that together predict every token once."""

    prediction: ContinuationPrediction
    """What command=predict gives."""

    @property
    def longest(self) -> int:
        """Longest sequence, in tokens."""
        return self.max_length

    def fault(self, row: dict[str, Any]) -> str | None:
        """A text that is missing or is none; one without letters is counted when it is encoded."""
        return text_fault(row, "text", may_be_blank=True)

    def encode(self, rows: Dataset, processor: Any, labels: Sequence[str]) -> Encoded:
        """``input_ids`` between the tokenizer's begin and end tokens, and ``bytes`` that their prediction covers.

        Each window after a text's first starts with the last token of the one before, as context: so every token
        is predicted exactly once, and bits per byte are those of the whole text.
        """
        first = [processor.bos_token_id] if processor.bos_token_id is not None else []
        last = [processor.eos_token_id] if processor.eos_token_id is not None else []
        stride = self.max_length - 1

        def features(batch: dict[str, list[str]]) -> dict[str, list[Any]]:
            columns: dict[str, list[Any]] = {"input_ids": [], "bytes": [], "over": [], "text": []}
            encoded = processor(batch["text"], add_special_tokens=False, verbose=False)["input_ids"]
            for text, inner in zip(batch["text"], encoded, strict=True):
                tokens = [*first, *inner, *last]
                if len(tokens) < 2:
                    continue
                size = len(text.encode())
                if not first:  # Nothing predicts the first token, so its bytes do not count either.
                    size -= len(processor.decode(tokens[:1]).encode())
                over = len(tokens) > self.max_length
                starts = range(0, len(tokens) - 1, stride) if self.overlong == "split" else range(1)
                for start in starts:
                    window = tokens[start : start + self.max_length]
                    if over and self.overlong == "truncate":
                        size = len(processor.decode(window[1:], skip_special_tokens=True).encode())
                    columns["input_ids"].append(window)
                    columns["bytes"].append(size if start == 0 else 0)
                    columns["over"].append(over)
                    columns["text"].append(start == 0)
            return columns | {
                "length": [len(window) for window in columns["input_ids"]],
                "items": [len(window) - 1 for window in columns["input_ids"]],
            }

        types = {
            "input_ids": ["int32"],
            "length": "int32",
            "items": "int32",
            "bytes": "int64",
            "over": "bool",
            "text": "bool",
        }
        encoded = mapped(rows, features, types)
        if not len(encoded):
            raise UserError("data: no text has two tokens or more, so there is nothing to predict")
        texts = sum(encoded["text"])
        count = sum(first and over for first, over in zip(encoded["text"], encoded["over"], strict=True))
        if count and self.overlong == "error":
            raise UserError(
                f"task.overlong=error: {count} of {texts} texts have more than task.max_length={self.max_length} "
                "tokens; raise it, or choose task.overlong=split, truncate or drop"
            )
        word = {"split": "split", "truncate": "truncated", "drop": "dropped", "error": "over"}[self.overlong]
        notes = {"rows": len(rows), "empty": len(rows) - texts, word: count, "sequences": len(encoded)}
        if count and self.overlong == "drop":
            encoded = encoded.filter(lambda over: [not value for value in over], input_columns="over", batched=True)
        return Encoded(encoded.remove_columns(["over", "text"]), notes)

    def collate(self, sequences: Sequence[Sequence[dict[str, Any]]], processor: Any) -> dict[str, Tensor]:
        """``input_ids`` and ``labels``, see `laid`."""
        return laid(sequences, lambda row: row["input_ids"], processor.pad_token_id)

    def loss(self, network: nn.Module, batch: dict[str, Tensor], label_smoothing: float) -> Tensor:
        """Cross-entropy, summed over the predicted tokens."""
        return token_losses(*predicted(network, batch), label_smoothing).sum()

    def outcomes(
        self, network: nn.Module, batch: dict[str, Tensor], processor: Any, generation: Any
    ) -> dict[str, np.ndarray]:
        """The summed ``loss`` of each row: two numbers a sequence stay in memory, not its logits."""
        return {"loss": token_losses(*predicted(network, batch), 0.0).sum(-1).cpu().double().numpy()}

    def score(self, outcomes: dict[str, np.ndarray], rows: Dataset, labels: Sequence[str]) -> dict[str, float]:
        """``loss`` in nats a token, ``perplexity`` a token, and ``bits_per_byte`` of UTF-8 text."""
        nats = float(outcomes["loss"].sum())
        loss = nats / sum(rows["items"])
        size = sum(rows["bytes"])
        perplexity = math.exp(loss) if loss < 700 else math.inf
        return {"loss": loss, "perplexity": perplexity, "bits_per_byte": nats / math.log(2) / max(size, 1)}
