"""Token classification: a tag for each word of a sentence."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import PositiveInt

from xp import metric
from xp.error import UserError, nearest
from xp.findings import Findings, confusion, per_class, worst
from xp.task.base import IGNORE, Encoded, Trainable, mapped, objects, padded, settled
from xp.task.classification import class_config
from xp.task.encoding import encode_words, frame, word_windows
from xp.task.language import apart, token_logits, token_losses
from xp.task.prediction import TokenPrediction

if TYPE_CHECKING:
    import numpy as np
    from datasets import Dataset
    from torch import Tensor, nn

OUTSIDE = "O"
"""The tag of a word that is part of no phrase, and what a word counts as that was cut off."""

MARKED = re.compile(r"O|[BIESLUM](-.+)?")
"""A tag that says where phrases are: IOB1, IOB2, IOBES, BILOU, BMES."""


class TokenClassification(Trainable, name="token_classification"):
    """Choose a tag for each word, by cross-entropy over the tags at the word's tokens."""

    auto_class: ClassVar[str] = "AutoModelForTokenClassification"
    peft_type: ClassVar[str] = "TOKEN_CLS"
    columns: ClassVar[tuple[str, ...]] = ("tokens", "tags")
    label_columns: ClassVar[tuple[str, ...]] = ("tags",)
    answers: ClassVar[str] = "tags"
    pipeline: ClassVar[str] = "token-classification"
    takes: ClassVar[str] = "a text"
    gives: ClassVar[str] = "its words or phrases with their tags"

    labels: list[str] | None
    """Names of the tags in the order of their ids; null takes those of the training rows."""

    label_tokens: Literal["first", "all"]
    """Which tokens of a word are trained on its tag; predicted is that of the first one. all: tokens after the first
    get the ``I-`` tag of a ``B-`` tag."""

    max_length: PositiveInt
    """Longest sentence, in tokens with the special ones."""

    overlong: Literal["truncate", "split", "drop", "error"]
    """What becomes of a longer sentence, always between words; ``split`` makes several rows that are scored as one
    sentence; words that ``truncate`` cuts off are counted, and scored as predicted ``O``."""

    prediction: TokenPrediction
    """What command=predict gives."""

    @property
    def longest(self) -> int:
        """Longest sentence, in tokens."""
        return self.max_length

    def label_names(self, rows: Dataset) -> list[str]:
        """``labels``, else the names of the ``ClassLabel``, else the sorted distinct tags."""
        if self.labels is not None:
            return list(self.labels)
        names = getattr(getattr(rows.features["tags"], "feature", None), "names", None)
        values = {tag for tags in rows["tags"] for tag in _list(tags)} if names is None else set()
        return list(names) if names is not None else [str(value) for value in sorted(values)]

    def config(self, labels: Sequence[str]) -> dict[str, Any]:
        """Number and names of the tags."""
        return class_config(labels)

    def fault(self, row: dict[str, Any]) -> str | None:
        """No words, what is no word or tag, or not as many of the one as of the other."""
        for column in ("tokens", "tags"):
            if not isinstance(row[column], list | str):
                return f"{column}: {'is missing' if row[column] is None else f'{row[column]!r} is not a list'}"
        words, tags = _list(row["tokens"]), _list(row["tags"])
        if len(words) != len(tags):
            return f"tags: {len(tags)} tags for {len(words)} words"
        for number, (word, tag) in enumerate(zip(words, tags, strict=True), 1):
            if not isinstance(word, str):
                return f"tokens: word {number} is {word!r}, not a text"
            if tag is None or tag == "" or isinstance(tag, float | list | dict):
                return f"tags: word {number}, {word!r}, has {tag!r} for a tag"
        return None if any(word.strip() for word in words) else "tokens: is empty"

    def encode(self, rows: Dataset, processor: Any, labels: Sequence[str]) -> Encoded:
        """``input_ids``, the ``labels`` of tokens, and of words the place of their ``first`` token and ``tags``.

        Raises:
            UserError: the metric ``entity`` and tags that mark no phrases, a tag that the model does not have, or
                no room for a word beside the special tokens.
        """
        plain = [tag for tag in labels if not MARKED.fullmatch(tag)]
        if "entity" in self.metrics and plain:
            raise UserError(
                f"task.metrics=entity: the tag {plain[0]!r} does not say where a phrase begins (B-PER, I-PER, O); "
                "use task=word_classification, or task.metrics=[word_accuracy]"
            )
        names = getattr(getattr(rows.features["tags"], "feature", None), "names", None)
        ids = {name: number for number, name in enumerate(labels)}
        for tag in {tag for tags in rows["tags"] for tag in _list(tags)}:
            if (name := names[tag] if names and tag >= 0 else str(tag)) not in ids:
                raise UserError(f"data: the tag {name!r} is not one the model has.{nearest(name, ids)}")
        inside = {ids[tag]: ids.get(f"I-{tag[2:]}", ids[tag]) for tag in labels if tag.startswith("B-")}
        before, after = frame(processor)
        room = self.max_length - len(before) - len(after)
        if room < 1:
            raise UserError(f"task.max_length={self.max_length}: the special tokens leave no room for a word; raise it")

        def features(batch: dict[str, list[Any]], numbers: list[int]) -> dict[str, list[Any]]:
            columns: dict[str, list[Any]] = {name: [] for name in types}
            words = [_list(each) for each in batch["tokens"]]
            encoded = encode_words(processor, words)
            for number, sentence, tags, (tokens, owners) in zip(numbers, words, batch["tags"], encoded, strict=True):
                gold = [ids[names[tag] if names else str(tag)] for tag in _list(tags)]
                windows = list(word_windows(owners, len(sentence), room))
                for start, end, first_word, last_word in windows if self.overlong == "split" else windows[:1]:
                    last = last_word if self.overlong == "split" else len(sentence)
                    mine = owners[start:end]
                    firsts = [
                        mine.index(word) + len(before) if word in mine else -1 for word in range(first_word, last)
                    ]
                    target = [IGNORE] * (end - start)
                    for at, owner in enumerate(mine):
                        if owner >= 0 and at + len(before) == firsts[owner - first_word]:
                            target[at] = gold[owner]
                        elif owner >= 0 and self.label_tokens == "all":
                            target[at] = inside.get(gold[owner], gold[owner])
                    columns["input_ids"].append([*before, *tokens[start:end], *after])
                    columns["labels"].append([*[IGNORE] * len(before), *target, *[IGNORE] * len(after)])
                    columns["first"].append(firsts)
                    columns["tags"].append(gold[first_word:last])
                    columns["sentence"].append(number)
                    columns["over"].append(len(windows) > 1)
            columns["length"] = [len(each) for each in columns["input_ids"]]
            columns["items"] = [sum(label != IGNORE for label in each) for each in columns["labels"]]
            return columns

        lists = {name: ["int32"] for name in ("input_ids", "labels", "first", "tags")}
        types = lists | dict.fromkeys(("sentence", "length", "items"), "int32") | {"over": "bool"}
        encoded = mapped(rows, features, types, positions=True)
        if self.overlong == "split":
            over = {number for number, long in zip(encoded["sentence"], encoded["over"], strict=True) if long}
            notes = {"rows": len(rows), "split": len(over), "sequences": len(encoded)}
            return Encoded(encoded.remove_columns("over"), notes)
        made = settled(encoded, self.overlong, self.max_length, "sentences")
        return Encoded(made.rows, made.notes | {"words_cut": sum(each.count(-1) for each in made.rows["first"])})

    def collate(self, sequences: Sequence[Sequence[dict[str, Any]]], processor: Any) -> dict[str, Tensor]:
        """``input_ids``, ``attention_mask`` and ``labels`` (rows, longest), ``first`` (rows, most words)."""
        rows = [row for (row,) in sequences]
        first = padded([row["first"] for row in rows], IGNORE)
        return apart(rows, processor.pad_token_id) | {"first": first}

    def loss(self, network: nn.Module, batch: dict[str, Tensor], label_smoothing: float) -> Tensor:
        """Cross-entropy, summed over the tokens that carry a tag."""
        return token_losses(token_logits(network, batch), batch["labels"], label_smoothing).sum()

    def outcomes(
        self, network: nn.Module, batch: dict[str, Tensor], processor: Any, generation: Any
    ) -> dict[str, np.ndarray]:
        """The summed ``loss`` of each row, and the predicted tag ids of its words, -1 for one that was cut off."""
        logits, first = token_logits(network, batch), batch["first"]
        losses = token_losses(logits, batch["labels"], 0.0)
        tags = logits.argmax(-1).gather(1, first.clamp(min=0)).masked_fill(first < 0, -1)
        counts = (first != IGNORE).sum(-1).tolist()
        words = [row[:count] for row, count in zip(tags.cpu().tolist(), counts, strict=True)]
        return {"loss": losses.sum(-1).cpu().double().numpy(), "prediction": objects(words)}

    def score(self, outcomes: dict[str, np.ndarray], rows: Dataset, labels: Sequence[str]) -> dict[str, float]:
        """The metrics of whole sentences, and ``loss`` a token that carries a tag."""
        gold, predicted = _sentences(rows, rows["tags"], labels), _sentences(rows, outcomes["prediction"], labels)
        scores = metric.compute(self.metrics, self.answers, predicted, gold)
        return scores | {"loss": float(outcomes["loss"].sum()) / sum(rows["items"])}

    def baseline(self, rows: Dataset, labels: Sequence[str]) -> dict[str, float]:
        """Always the most frequent tag."""
        gold = _sentences(rows, rows["tags"], labels)
        (most, _), *_ = Counter(tag for tags in gold for tag in tags).most_common(1)
        return metric.compute(self.metrics, self.answers, [[most] * len(tags) for tags in gold], gold)

    def findings(
        self, outcomes: dict[str, np.ndarray], rows: Dataset, labels: Sequence[str], processor: Any
    ) -> Findings:
        """Confusion matrix (without the words that are rightly ``O``), each tag's scores, the worst sentences."""
        names = [*labels, "(cut off)"]
        golds, guesses = list(rows["tags"]), [[tag % len(names) for tag in tags] for tags in outcomes["prediction"]]
        gold = [tag for tags in golds for tag in tags]
        predicted = [tag for tags in guesses for tag in tags]
        pairs = [pair for pair in zip(gold, predicted, strict=True) if {names[tag] for tag in pair} != {OUTSIDE}]
        wrong = []
        for tokens, firsts, truths, found in zip(rows["input_ids"], rows["first"], golds, guesses, strict=True):
            starts = [place for place in firsts if place >= 0]
            ends = dict(zip(starts, [*starts[1:], len(tokens)], strict=True))
            words = [
                f"{processor.decode(tokens[place : ends[place]], skip_special_tokens=True).strip()}: "
                f"{names[truth]} → {names[guess]}"
                for place, truth, guess in zip(firsts, truths, found, strict=True)
                if truth != guess and place >= 0
            ]
            wrong.append("; ".join(words))
        columns = {"text": processor.batch_decode(rows["input_ids"][:], skip_special_tokens=True), "wrong": wrong}
        used = names if len(labels) in predicted else list(labels)
        tables = {"tags": per_class(gold, predicted, used), "worst": worst(outcomes["loss"].tolist(), columns)}
        first, second = [pair[0] for pair in pairs], [pair[1] for pair in pairs]
        return Findings(tables, {"confusion": lambda: confusion(first, second, used)} if pairs else {})

    def texts(self, rows: Dataset) -> Iterable[str]:
        """The words with spaces in between."""
        for words in rows["tokens"]:
            yield " ".join(_list(words))


def _list(value: Any) -> list[Any]:
    """Words or tags of a sentence: a list of them, or a text with spaces in between, as a csv file holds them."""
    return value.split() if isinstance(value, str) else value


def _sentences(rows: Dataset, tags: Iterable[Sequence[int]], labels: Sequence[str]) -> list[list[str]]:
    """Names of the tags of whole sentences, their windows put together; ``O`` for a word that was cut off."""
    made: dict[int, list[str]] = {}
    for number, row in zip(rows["sentence"], tags, strict=True):
        made.setdefault(number, []).extend(OUTSIDE if tag < 0 else labels[tag] for tag in row)
    return list(made.values())
