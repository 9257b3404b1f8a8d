"""Text to text: write the text that belongs to a text, with an encoder-decoder: summaries, translations, any other."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import Field, PositiveInt

from xp import metric
from xp.error import UserError
from xp.findings import Findings, worst
from xp.hardware import home
from xp.task import languages
from xp.task.base import IGNORE, Encoded, Trainable, mapped, padded
from xp.task.language import token_losses

if TYPE_CHECKING:
    import numpy as np
    from datasets import Dataset
    from torch import Tensor, nn
    from transformers import PreTrainedModel


class Text2TextGeneration(Trainable, name="text2text_generation"):
    """Write a target text for a text, by cross-entropy over the vocabulary at each token of the target.

    Where it has metrics, an evaluation writes an answer to each text, as ``generation`` says, and scores that.
    """

    auto_class: ClassVar[str] = "AutoModelForSeq2SeqLM"
    peft_type: ClassVar[str] = "SEQ_2_SEQ_LM"
    columns: ClassVar[tuple[str, ...]] = ("text", "target")
    answers: ClassVar[str] = "text"
    generates: ClassVar[bool] = True
    takes: ClassVar[str] = "a text"
    gives: ClassVar[str] = "the text that belongs to it"

    max_length: PositiveInt
    """Longest text, in tokens with the special ones and the prefix."""

    max_target_length: Annotated[int, Field(ge=2)]
    """Longest target that is learned from, in tokens; ``generation.max_new_tokens`` bounds what is written."""

    overlong: Literal["truncate", "drop", "error"]
    """What becomes of rows whose text or target is longer; the counts of both are always reported."""

    prefix: str
    """Put before each text, for models that are told so what to do: ``"summarize: "``; empty for others."""

    source_language: str | None
    """Code of the texts' language, for tokenizers that know several (``en_XX``, ``eng_Latn``, ``en``)."""

    target_language: str | None
    """Code of the targets' language, likewise; answers are written in it."""

    @property
    def longest(self) -> int:
        """Longest text, in tokens."""
        return self.max_length

    @property
    def scores(self) -> tuple[str, ...]:
        """Those of the metrics, ``loss``, and where answers are written ``finished``."""
        return (*super().scores, *(["finished"] if self.metrics else []))

    def fault(self, row: dict[str, Any]) -> str | None:
        """Empty, or no text."""
        for column in self.columns:
            if not isinstance(row[column], str):
                return f"{column}: is {type(row[column]).__name__}, not text"
            if not row[column].strip():
                return f"{column}: is empty"
        return None

    def equip(self, processor: Any, network: PreTrainedModel | None, adapted: bool) -> list[str]:
        """Tell the tokenizer its languages, for models that know several."""
        languages.settle(processor, self.source_language, self.target_language)
        return []

    def encode(self, rows: Dataset, processor: Any, labels: Sequence[str]) -> Encoded:
        """``input_ids`` of prefix and text, ``labels`` of the target, which always end with the end token."""
        end = processor.eos_token_id
        if end is None:
            raise UserError(f"task={self.name}: this model's tokenizer has no end token; choose another model")

        def ended(tokens: list[list[int]]) -> list[list[int]]:
            return [row if row[-1:] == [end] else [*row, end] for row in tokens]

        def features(batch: dict[str, list[str]]) -> dict[str, list[Any]]:
            tokens, over_text = self._sources(batch["text"], processor)
            targets = ended(processor(text_target=batch["target"], verbose=False)["input_ids"])
            over = [len(row) > self.max_target_length for row in targets]
            if any(over):
                most = self.max_target_length
                cut = processor(text_target=batch["target"], truncation=True, max_length=most)["input_ids"]
                # Where the tokenizer adds no end itself, the cut has to leave room for it.
                cut = ended([row if row[-1:] == [end] else row[: most - 1] for row in cut])
                targets = [cut[at] if long else targets[at] for at, long in enumerate(over)]
            return {
                "input_ids": tokens,
                "labels": targets,
                "target": batch["target"],
                "length": [len(row) for row in tokens],
                "items": [len(row) for row in targets],
                "over_text": over_text,
                "over_target": over,
            }

        types = {"input_ids": ["int32"], "labels": ["int32"], "target": "string", "length": "int32", "items": "int32"}
        encoded = mapped(rows, features, types | {"over_text": "bool", "over_target": "bool"})
        texts, targets = sum(encoded["over_text"]), sum(encoded["over_target"])
        if self.overlong == "error" and texts + targets:
            raise UserError(
                f"task.overlong=error: {texts} of {len(rows)} texts have more tokens than task.max_length="
                f"{self.max_length}, {targets} targets more than task.max_target_length={self.max_target_length}; "
                "raise them, or choose task.overlong=truncate or drop"
            )
        notes = {"rows": len(rows), "truncated_texts": texts, "truncated_targets": targets}
        if self.overlong == "drop":
            encoded = encoded.filter(lambda row: not (row["over_text"] or row["over_target"]))
            notes = {
                "rows": len(rows),
                "long_texts": texts,
                "long_targets": targets,
                "dropped": len(rows) - len(encoded),
            }
        return Encoded(encoded.remove_columns(["over_text", "over_target"]), notes)

    def _sources(self, texts: Sequence[str], processor: Any) -> tuple[list[list[int]], list[bool]]:
        """The tokens of prefix and text, cut to the longest, and which of them were cut."""
        whole = [self.prefix + text for text in texts]
        tokens = processor(whole, verbose=False)["input_ids"]
        over = [len(row) > self.max_length for row in tokens]
        if any(over):
            cut = processor(whole, truncation=True, max_length=self.max_length)["input_ids"]
            tokens = [cut[at] if long else tokens[at] for at, long in enumerate(over)]
        return tokens, over

    def collate(self, sequences: Sequence[Sequence[dict[str, Any]]], processor: Any) -> dict[str, Tensor]:
        """``input_ids`` and ``attention_mask`` (rows, longest text), ``labels`` (rows, longest target)."""
        inputs = _inputs([row["input_ids"] for (row,) in sequences], processor)
        return inputs | {"labels": padded([row["labels"] for (row,) in sequences], IGNORE)}

    def _token_losses(self, network: nn.Module, batch: dict[str, Tensor], label_smoothing: float) -> Tensor:
        """Loss of each token of the targets (rows, longest target), zero where there is none."""
        labels = batch["labels"]
        logits = network(
            input_ids=batch["input_ids"],
            attention_mask=batch["attention_mask"],
            decoder_input_ids=_shifted(network, labels),
        ).logits.float()
        return token_losses(logits, labels, label_smoothing)

    def loss(self, network: nn.Module, batch: dict[str, Tensor], label_smoothing: float) -> Tensor:
        """Cross-entropy, summed over the tokens of the targets, each predicted from the true ones before it."""
        return self._token_losses(network, batch, label_smoothing).sum()

    def outcomes(
        self, network: nn.Module, batch: dict[str, Tensor], processor: Any, generation: Any
    ) -> dict[str, np.ndarray]:
        """The summed ``loss`` of each row and, if there are metrics, ``text`` and whether it is ``finished``."""
        import numpy as np

        found: dict[str, np.ndarray] = {"loss": self._token_losses(network, batch, 0.0).sum(-1).cpu().double().numpy()}
        if self.metrics:
            inputs = {name: batch[name] for name in ("input_ids", "attention_mask")}
            texts, finished = self._written(inputs, network, processor, generation)
            found["text"] = np.asarray(texts, dtype=object)
            found["finished"] = np.asarray(finished)
        return found

    def _written(
        self, inputs: dict[str, Tensor], network: Any, processor: Any, generation: Any
    ) -> tuple[list[str], list[bool]]:
        """An answer to each row, and whether it came to its end within ``generation.max_new_tokens``."""
        begin = languages.first_token(processor, self.target_language)
        tokens = generation.generate(network, inputs, processor, first=begin).tolist()
        answers = generation.answers(network, tokens, processor)
        finished = [processor.eos_token_id in row for row in tokens]
        ended = [whole or each.finish == "stop_string" for whole, each in zip(finished, answers, strict=True)]
        return [each.text.strip() for each in answers], ended

    def measured(self, row: dict[str, Any]) -> tuple[str, ...]:
        """The text that the model is given for one input."""
        return (self.prefix + row["text"],)

    def answer(
        self, inputs: Sequence[dict[str, Any]], network: Any, processor: Any, generation: Any
    ) -> list[dict[str, Any]]:
        """To each text its ``generated_text``; a text longer than ``max_length`` loses its end.

        Args:
            inputs: each with ``text``.
            network: in evaluation mode.
            processor: its tokenizer.
            generation: how to write.
        """
        tokens, _ = self._sources([each["text"] for each in inputs], processor)
        batch = {name: value.to(home(network)) for name, value in _inputs(tokens, processor).items()}
        texts, _ = self._written(batch, network, processor, generation)
        return [{"generated_text": text} for text in texts]

    def score(self, outcomes: dict[str, np.ndarray], rows: Dataset, labels: Sequence[str]) -> dict[str, float]:
        """The metrics, ``loss`` a token of the targets, and the share of answers that are ``finished``."""
        loss = {"loss": float(outcomes["loss"].sum()) / sum(rows["items"])}
        if not self.metrics:
            return loss
        scores = metric.compute(self.metrics, self.answers, outcomes["text"].tolist(), [[x] for x in rows["target"]])
        return scores | loss | {"finished": float(outcomes["finished"].mean())}

    def baseline(self, rows: Dataset, labels: Sequence[str]) -> dict[str, float]:
        """Always the most frequent target of ``rows``."""
        targets = list(rows["target"])
        (most, _), *_ = Counter(targets).most_common(1)
        return metric.compute(self.metrics, self.answers, [most] * len(targets), [[target] for target in targets])

    def findings(
        self, outcomes: dict[str, np.ndarray], rows: Dataset, labels: Sequence[str], processor: Any
    ) -> Findings:
        """The rows whose target was expected the least, token by token, with what was written."""
        columns: dict[str, list[Any]] = {
            "text": processor.batch_decode(rows["input_ids"][:], skip_special_tokens=True),
            "target": list(rows["target"]),
        }
        if "text" in outcomes:
            columns["prediction"] = outcomes["text"].tolist()
            columns["finished"] = outcomes["finished"].tolist()
        losses = [float(loss) / items for loss, items in zip(outcomes["loss"], rows["items"], strict=True)]
        return Findings(tables={"worst": worst(losses, columns)})

    def texts(self, rows: Dataset) -> Iterable[str]:
        """Both texts of each row, so that one vocabulary serves both sides."""
        for batch in rows.select_columns(["text", "target"]).iter(1000):
            for text, target in zip(batch["text"], batch["target"], strict=True):
                yield self.prefix + text
                yield target


def _inputs(tokens: Sequence[Sequence[int]], processor: Any) -> dict[str, Tensor]:
    mask = padded([[1] * len(row) for row in tokens], 0)
    return {"input_ids": padded(tokens, processor.pad_token_id), "attention_mask": mask}


def _shifted(network: Any, labels: Tensor) -> Tensor:
    """What the decoder is given: ``labels`` one place later, by the network's own rule where it has one."""
    inner = getattr(network, "module", network)  # Several processes train a wrapped network.
    if hasattr(inner, "prepare_decoder_input_ids_from_labels"):
        shifted: Tensor = inner.prepare_decoder_input_ids_from_labels(labels=labels)
        return shifted
    shifted = labels.new_full(labels.shape, inner.config.decoder_start_token_id)
    shifted[:, 1:] = labels[:, :-1].masked_fill(labels[:, :-1] == IGNORE, inner.config.pad_token_id)
    return shifted
