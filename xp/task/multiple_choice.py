"""Multiple choice: which of several texts goes with a text?"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import chain
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import PositiveInt

from xp import metric
from xp.findings import Findings, worst
from xp.hardware import home
from xp.task.base import Encoded, Trainable, mapped, padded, settled
from xp.task.encoding import check_pair, encode_texts, settle_pair

if TYPE_CHECKING:
    import numpy as np
    from datasets import Dataset
    from torch import Tensor, nn
    from transformers import PreTrainedModel


class MultipleChoice(Trainable, name="multiple_choice"):
    """Give each choice a score together with the text, by cross-entropy over the choices of a row."""

    auto_class: ClassVar[str] = "AutoModelForMultipleChoice"
    peft_type: ClassVar[str] = "SEQ_CLS"
    columns: ClassVar[tuple[str, ...]] = ("text", "choices", "label")
    optional_columns: ClassVar[tuple[str, ...]] = ("names",)
    answers: ClassVar[str] = "class"
    takes: ClassVar[str] = "a text and its choices: {text, choices}"
    gives: ClassVar[str] = "the best choice, with the probability of each"
    inputs: ClassVar[tuple[str, ...]] = ("text", "choices")

    max_length: PositiveInt
    """Longest text with a choice, in tokens with the special ones."""

    overlong: Literal["truncate", "drop", "error"]
    """What becomes of a longer one; truncate cuts the longer of text and choice first."""

    truncation_side: Literal["right", "left"]
    """Where a text is cut that is too long."""

    @property
    def longest(self) -> int:
        """Longest text with a choice, in tokens."""
        return self.max_length

    def fault(self, row: dict[str, Any]) -> str | None:
        """No text, fewer than two choices, or a label that says none of them, or could say two."""
        choices = row["choices"]
        for column, kind, what in (("text", str, "a text"), ("choices", list, "a list of texts")):
            if not isinstance(row[column], kind):
                return f"{column}: is missing" if row[column] is None else f"{column}: {row[column]!r} is not {what}"
        if len(choices) < 2 or not all(isinstance(choice, str) for choice in choices):
            return f"choices: {choices!r} is not a list of two texts or more"
        names = row.get("names")
        if names is not None and len(names) != len(choices):
            return f"names: {len(names)} names for {len(choices)} choices"
        if row["label"] is None or row["label"] == "":
            return "label: is missing"
        meant = _meanings(row["label"], choices, names)
        if len(meant) > 1:
            return f"label: {row['label']!r} may be the name or the text of a choice; give its number, counted from 0"
        return None if meant else f"label: {row['label']!r} is none of the {len(choices)} choices, counted from 0"

    def equip(self, processor: Any, network: PreTrainedModel | None, adapted: bool) -> list[str]:
        """Say in the tokenizer how pairs are put together and where they are cut; it is saved with the model."""
        processor.truncation_side = self.truncation_side
        settle_pair(processor)
        return []

    def encode(self, rows: Dataset, processor: Any, labels: Sequence[str]) -> Encoded:
        """``input_ids`` of the text with each choice, and ``label``, the number of the right one.

        ``length`` is choices times longest, which is the room a row takes in a batch; ``tokens`` those there are.
        """
        check_pair(processor)
        types: dict[str, Any] = {"input_ids": [["int32"]], "label": "int32", "over": "bool"}
        types |= dict.fromkeys(("length", "tokens", "items"), "int32")
        if "token_type_ids" in processor.model_input_names:
            types["token_type_ids"] = [["int8"]]

        def features(batch: dict[str, list[Any]]) -> dict[str, list[Any]]:
            counts = [len(choices) for choices in batch["choices"]]
            texts = [text for text, count in zip(batch["text"], counts, strict=True) for _ in range(count)]
            flat, over = encode_texts(processor, texts, list(chain(*batch["choices"])), self.max_length)
            columns: dict[str, list[Any]] = {name: _split(flat[name], counts) for name in flat if name in types}
            lengths = [[len(choice) for choice in row] for row in columns["input_ids"]]
            names = batch.get("names", [None] * len(counts))
            return columns | {
                "label": [_meanings(*row)[0] for row in zip(batch["label"], batch["choices"], names, strict=True)],
                "length": [len(row) * max(row) for row in lengths],
                "tokens": [sum(row) for row in lengths],
                "items": [1] * len(counts),
                "over": [any(row) for row in _split(over, counts)],
            }

        return settled(mapped(rows, features, types), self.overlong, self.max_length, "questions")

    def collate(self, sequences: Sequence[Sequence[dict[str, Any]]], processor: Any) -> dict[str, Tensor]:
        """``input_ids`` and ``attention_mask`` (rows, choices, longest), ``there`` (rows, choices), ``labels`` (rows,).

        A choice that a row does not have is one padding token, and ``there`` says so.
        """
        import torch

        rows = [row for (row,) in sequences]
        most = max(len(row["input_ids"]) for row in rows)

        def block(name: str, value: int) -> Tensor:
            flat = [choice for row in rows for choice in [*row[name], *[[value]] * (most - len(row[name]))]]
            return padded(flat, value).view(len(rows), most, -1)

        counts = torch.tensor([len(row["input_ids"]) for row in rows])
        lengths = torch.tensor([[*map(len, row["input_ids"]), *[1] * (most - len(row["input_ids"]))] for row in rows])
        tokens = block("input_ids", processor.pad_token_id)
        batch = {
            "input_ids": tokens,
            "attention_mask": (torch.arange(tokens.shape[-1]) < lengths[..., None]).long(),
            "there": torch.arange(most) < counts[:, None],
            "labels": torch.tensor([row["label"] for row in rows]),
        }
        return batch | ({"token_type_ids": block("token_type_ids", 0)} if "token_type_ids" in rows[0] else {})

    def _logits(self, network: nn.Module, batch: dict[str, Tensor]) -> Tensor:
        """(rows, most choices), next to nothing for a choice that is not there."""
        inputs = {name: value for name, value in batch.items() if name not in ("there", "labels")}
        logits: Tensor = network(**inputs).logits
        return logits.float().masked_fill(~batch["there"], -1e9)

    def loss(self, network: nn.Module, batch: dict[str, Tensor], label_smoothing: float) -> Tensor:
        """Cross-entropy over the choices, summed over the rows."""
        import torch
        from torch.nn.functional import cross_entropy

        logits = self._logits(network, batch)
        if not label_smoothing:
            return cross_entropy(logits, batch["labels"], reduction="sum")
        # Over the choices that are there: torch's own would spread to those that are not, at an endless loss.
        losses = -logits.log_softmax(-1)
        share = batch["there"] / batch["there"].sum(-1, keepdim=True)
        gold = losses.gather(1, batch["labels"][:, None]).squeeze(1)
        even = torch.where(batch["there"], losses * share, 0.0).sum(-1)
        return ((1 - label_smoothing) * gold + label_smoothing * even).sum()

    def outcomes(
        self, network: nn.Module, batch: dict[str, Tensor], processor: Any, generation: Any
    ) -> dict[str, np.ndarray]:
        """``loss`` and the number of the chosen one, for each row."""
        from torch.nn.functional import cross_entropy

        logits = self._logits(network, batch)
        loss = cross_entropy(logits, batch["labels"], reduction="none")
        return {"loss": loss.cpu().numpy(), "prediction": logits.argmax(-1).cpu().numpy()}

    def score(self, outcomes: dict[str, np.ndarray], rows: Dataset, labels: Sequence[str]) -> dict[str, float]:
        """The metrics, and ``loss`` a row."""
        scores = metric.compute(self.metrics, self.answers, outcomes["prediction"].tolist(), list(rows["label"]))
        return scores | {"loss": float(outcomes["loss"].mean())}

    def baseline(self, rows: Dataset, labels: Sequence[str]) -> dict[str, float]:
        """Always the place where the right choice is most often."""
        gold = list(rows["label"])
        (most, _), *_ = Counter(gold).most_common(1)
        return metric.compute(self.metrics, self.answers, [most] * len(gold), gold)

    def findings(
        self, outcomes: dict[str, np.ndarray], rows: Dataset, labels: Sequence[str], processor: Any
    ) -> Findings:
        """The questions with the highest loss: the text with the right choice, and with the one that was chosen."""
        pairs = list(zip(rows["input_ids"], rows["label"], outcomes["prediction"].tolist(), strict=True))
        columns = {
            "right": processor.batch_decode([row[gold] for row, gold, _ in pairs]),
            "chosen": processor.batch_decode([row[guess] for row, _, guess in pairs]),
            "label": list(rows["label"]),
            "prediction": [guess for _, _, guess in pairs],
        }
        return Findings({"worst": worst(outcomes["loss"].tolist(), columns)})

    def texts(self, rows: Dataset) -> Iterable[str]:
        """Texts and choices."""
        for batch in rows.select_columns(["text", "choices"]).iter(1000):
            yield from batch["text"]
            yield from chain(*batch["choices"])

    def measured(self, row: dict[str, Any]) -> tuple[str, ...]:
        """The text with its longest choice."""
        return row["text"], max(row["choices"], key=len)

    def answer(
        self, inputs: Sequence[dict[str, Any]], network: Any, processor: Any, generation: Any
    ) -> list[dict[str, Any]]:
        """The best choice of each input, by number and text, with its probability and those of all."""
        check_pair(processor)
        rows = []
        for row in inputs:
            choices = row["choices"]
            if not isinstance(choices, list) or len(choices) < 2 or not all(isinstance(c, str) for c in choices):
                raise ValueError(f"choices: {choices!r} is not a list of two texts or more")
            columns, _ = encode_texts(processor, [row["text"]] * len(choices), choices, self.max_length)
            kept = {name: columns[name] for name in columns if name in processor.model_input_names}
            rows.append(kept | {"label": 0})
        batch = {
            name: value.to(home(network)) for name, value in self.collate([[row] for row in rows], processor).items()
        }
        shares = self._logits(network, batch).softmax(-1).tolist()
        made = []
        for row, share in zip(inputs, shares, strict=True):
            scores = share[: len(row["choices"])]
            best = scores.index(max(scores))
            made.append({"choice": best, "label": row["choices"][best], "score": scores[best], "scores": scores})
        return made


def _meanings(label: Any, choices: Sequence[str], names: Sequence[str] | None) -> list[int]:
    """The numbers of the choices that a label may mean; one if all is well.

    Args:
        label: a number counted from 0, a choice's name (by default ``A``, ``B``, ...), or its text.
        choices: the texts.
        names: what the choices are called, where the rows say so.
    """
    if isinstance(label, int) and not isinstance(label, bool):
        return [label] if 0 <= label < len(choices) else []
    if not isinstance(label, str):
        return []
    if names is not None:
        return [number for number, name in enumerate(names) if str(name) == label]
    meant = {number for number, choice in enumerate(choices) if choice == label}
    if len(label) == 1 and label.isascii() and label.isalpha():
        meant.add(ord(label.upper()) - ord("A"))
    if label.isdecimal():
        meant.add(int(label))
    return sorted(number for number in meant if number < len(choices))


def _split(flat: Sequence[Any], counts: Sequence[int]) -> list[list[Any]]:
    """A flat list cut into pieces of these lengths."""
    rest = iter(flat)
    return [[next(rest) for _ in range(count)] for count in counts]
