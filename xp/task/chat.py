"""Chat: supervised fine-tuning on conversations, with loss on what the assistant says alone."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import Field

from xp.error import UserError
from xp.findings import Findings, worst
from xp.task.base import IGNORE, Encoded, Trainable, mapped, settled
from xp.task.conversation import Conversation, encode_all, end_there
from xp.task.language import laid, predicted, token_losses
from xp.task.messages import OPTIONAL, SHAPES, asked, conversation, question, spoken, tools
from xp.task.template import check_there, marked, settle

if TYPE_CHECKING:
    import numpy as np
    from datasets import Dataset
    from torch import Tensor, nn
    from transformers import PreTrainedModel

PROVED = 8
"""Conversations of each split whose marked tokens are held against those of the prefix difference."""

WARNINGS = {
    "system": "the template leaves out the system message",
    "user": "the template leaves out or changes what the user says",
    "assistant": "the template changes what the assistant says, so it is not learned as it stands",
    "tool": "the template leaves out or changes what a tool says",
    "tools": "the template leaves out the tools that may be called",
    "unended": "no end token is trained after an answer, so the model would not learn to stop there",
    "extended": "the template's marks leave out the token that ends an answer; it is trained all the same "
    "(task.train_end=false would not)",
    "prompt": "the template's generation prompt is not what an answer goes on from here, so the model will be asked "
    "otherwise than it was trained",
    "control": "a message holds control tokens of the tokenizer as text; they count as such",
    "beginless": "the template writes no begin token, which this tokenizer otherwise puts first",
    "differ": "the template's marks and its generation prompt do not agree on what the assistant says",
}
"""What can be odd about a conversation and is told before training."""


class Chat(Trainable, name="chat"):
    """Learn what the assistant says in conversations, by cross-entropy over its tokens and no others."""

    auto_class: ClassVar[str] = "AutoModelForCausalLM"
    peft_type: ClassVar[str] = "CAUSAL_LM"
    columns: ClassVar[tuple[str, ...]] = SHAPES[0]
    other_columns: ClassVar[tuple[tuple[str, ...], ...]] = SHAPES[1:]
    optional_columns: ClassVar[tuple[str, ...]] = OPTIONAL
    own_scores: ClassVar[tuple[str, ...]] = ("loss", "perplexity", "token_accuracy")
    packable: ClassVar[bool] = True
    pipeline: ClassVar[str] = "text-generation"
    inputs: ClassVar[tuple[str, ...]] = ("messages",)
    generates: ClassVar[bool] = True
    takes: ClassVar[str] = "a conversation, whose last answer is asked for again, or a text"
    gives: ClassVar[str] = "what the assistant says next"

    template: str
    """``auto`` (the tokenizer's own, else plain), a name of the library (xp/assets/templates), or a .jinja file."""

    add_tokens: bool
    """Whether control tokens of the template that the tokenizer lacks are added; their embeddings start new."""

    train_end: bool
    """Whether the token that ends an answer is trained in any case; false leaves it to the template's marks."""

    max_length: Annotated[int, Field(ge=2)]
    """Longest conversation, in tokens."""

    overlong: Literal["truncate", "drop", "error"]
    """What becomes of a longer conversation; the count is always reported."""

    truncation_side: Literal["right", "left"]
    """Where a longer conversation is cut: right loses its end, left its start (but not the begin token)."""

    @property
    def longest(self) -> int:
        """Longest conversation, in tokens."""
        return self.max_length

    def arguments(self, row: dict[str, Any]) -> dict[str, Any]:
        """What the assistant says, without the conversation before it, and the functions that it may call."""
        return {"return_full_text": False} | {name: row[name] for name in ("tools",) if row.get(name)}

    def understood(self, value: Any, columns: Mapping[str, str]) -> dict[str, Any] | None:
        """A conversation of any shape that rows have; what the assistant says last in it is asked for again."""
        if not isinstance(value, dict):
            return {"messages": asked(value)} if isinstance(value, list) else None
        names = {columns.get(part, part): part for part in self.known_columns()}
        row: dict[str, Any] = {names.get(str(name), str(name)): each for name, each in value.items()}
        turns = question(row)
        if turns is None and len(row) == 1:
            turns = asked(*row.values())
        return None if turns is None else {"messages": turns} | ({"tools": tools(row)} if tools(row) else {})

    def entry(self, row: dict[str, Any]) -> Any:
        """The conversation; a text is its first message."""
        return asked(row["messages"])

    def measured(self, row: dict[str, Any]) -> tuple[str, ...]:
        """All that is said in the conversation."""
        return ("\n".join(message["content"] for message in self.entry(row)),)

    def fault(self, row: dict[str, Any]) -> str | None:
        """Why a row is no conversation that a model could learn from."""
        try:
            conversation(row)
            tools(row)
        except UserError as error:
            return str(error)
        return None

    def check_files(self) -> None:
        """The template, where it is a file."""
        check_there(self.template)

    def equip(self, processor: Any, network: PreTrainedModel | None, adapted: bool) -> list[str]:
        """Give the tokenizer its template, and let the model's generation end where an answer does."""
        said = settle(self.template, processor, network, add_tokens=self.add_tokens, adapted=adapted)
        end_there(processor, network)
        return said

    def encode(self, rows: Dataset, processor: Any, labels: Sequence[str]) -> Encoded:
        """``input_ids``, and ``trained``: for each token, whether the assistant says it."""
        begin = processor.bos_token_id

        def cut(tokens: list[Any], begins: bool) -> list[Any]:
            if len(tokens) <= self.max_length:
                return tokens
            if self.truncation_side == "right":
                return tokens[: self.max_length]
            return [*tokens[:begins], *tokens[begins - self.max_length :]]

        def features(batch: dict[str, list[Any]], positions: list[int]) -> dict[str, list[Any]]:
            columns: dict[str, list[Any]] = {"input_ids": [], "trained": [], "over": [], "notes": [], "fault": []}
            for made in self._conversations(batch, processor, proves=positions[0] == 0):
                columns["notes"].append(" ".join(sorted(made.notes)))
                columns["fault"].append(made.fault)
                begins = made.tokens[:1] == [begin]
                columns["input_ids"].append(cut(made.tokens, begins))
                columns["trained"].append(cut(made.trained, begins))
                columns["over"].append(len(made.tokens) > self.max_length)
            return columns | {
                "length": [len(tokens) for tokens in columns["input_ids"]],
                "items": [sum(trained[1:]) for trained in columns["trained"]],
            }

        types = {"input_ids": ["int32"], "trained": ["bool"], "over": "bool", "length": "int32", "items": "int32"}
        made = mapped(rows, features, types | {"notes": "string", "fault": "string"}, positions=True)
        faults = [(at, reason) for at, reason in enumerate(made["fault"]) if reason]
        noted = {at: notes.split() for at, notes in enumerate(made["notes"])}
        for at, _ in faults:
            del noted[at]
        made = made.select([*noted]).remove_columns(["notes", "fault"])
        if not noted:
            return Encoded(made.remove_columns("over"), faults=faults)
        if self.train_end and all("unended" in notes for notes in noted.values()):
            raise UserError(
                "task.template: no special token ends the assistant's answers, so the model would never learn to stop; "
                "choose another template, or task.train_end=false if that is wanted"
            )
        encoded = settled(made, self.overlong, self.max_length, "conversations")
        empty = sum(not items for items in encoded.rows["items"])
        kept = encoded.rows.filter(lambda items: [count > 0 for count in items], input_columns="items", batched=True)
        if len(encoded.rows) and not len(kept):
            raise UserError(
                f"task.max_length={self.max_length}: no row has an answer left to train on; raise it, or choose "
                f"task.truncation_side={'left' if self.truncation_side == 'right' else 'right'}"
            )
        odd = {note: [at for at, notes in noted.items() if note in notes] for note in WARNINGS}
        told = [
            f"{len(found):,} of {len(rows):,} conversations (the first is row {found[0]}): {WARNINGS[note]}"
            for note, found in odd.items()
            if found
        ]
        return Encoded(kept, encoded.notes | {"without_answer": empty}, told, faults)

    def _conversations(self, batch: dict[str, list[Any]], processor: Any, *, proves: bool) -> Iterator[Conversation]:
        """The conversations of some rows.

        Args:
            batch: columns of the rows.
            processor: the tokenizer.
            proves: whether the first ones are tried in both ways.
        """
        rows = [dict(zip(batch, values, strict=True)) for values in zip(*batch.values(), strict=True)]
        found = [(conversation(row), tools(row)) for row in rows]
        made = encode_all(found, processor, train_end=self.train_end)
        proved = encode_all(found[:PROVED], processor, train_end=True, by="difference") if proves else []
        for number, each in enumerate(made):
            if not each.fault and number < len(proved) and self.train_end and marked(processor, found[number][1]):
                other = proved[number]
                if not other.fault and other.trained != each.trained:
                    each.notes.add("differ")
            yield each

    def collate(self, sequences: Sequence[Sequence[dict[str, Any]]], processor: Any) -> dict[str, Tensor]:
        """``input_ids`` and ``labels``, see `laid`; the labels of what the assistant does not say are ignored."""

        def labels(row: dict[str, Any]) -> list[int]:
            pairs = zip(row["input_ids"], row["trained"], strict=True)
            return [token if trained else IGNORE for token, trained in pairs]

        return laid(sequences, labels, processor.pad_token_id)

    def loss(self, network: nn.Module, batch: dict[str, Tensor], label_smoothing: float) -> Tensor:
        """Cross-entropy, summed over what the assistant says."""
        return token_losses(*predicted(network, batch), label_smoothing).sum()

    def outcomes(
        self, network: nn.Module, batch: dict[str, Tensor], processor: Any, generation: Any
    ) -> dict[str, np.ndarray]:
        """The summed ``loss`` of each row, and how many of its tokens are ``right``."""
        logits, labels = predicted(network, batch)
        right = (logits.argmax(-1) == labels).sum(-1)
        losses = token_losses(logits, labels, 0.0).sum(-1)
        return {"loss": losses.cpu().double().numpy(), "right": right.cpu().numpy()}

    def score(self, outcomes: dict[str, np.ndarray], rows: Dataset, labels: Sequence[str]) -> dict[str, float]:
        """``loss`` in nats a token, ``perplexity`` a token, and ``token_accuracy``: the share of tokens foreseen."""
        items = sum(rows["items"])
        return _scores(float(outcomes["loss"].sum()) / items, float(outcomes["right"].sum()) / items)

    def baseline(self, rows: Dataset, labels: Sequence[str]) -> dict[str, float]:
        """The best answer that ignores all that was said: how often each token is trained in ``rows``."""
        tokens: Counter[int] = Counter()
        for row in rows:
            tokens.update(token for token, said in zip(row["input_ids"][1:], row["trained"][1:], strict=True) if said)
        total = tokens.total()
        entropy = -sum(count / total * math.log(count / total) for count in tokens.values())
        return _scores(entropy, max(tokens.values()) / total)

    def findings(
        self, outcomes: dict[str, np.ndarray], rows: Dataset, labels: Sequence[str], processor: Any
    ) -> Findings:
        """The conversations with the highest loss a token."""
        columns = {"conversation": processor.batch_decode(rows["input_ids"][:]), "tokens": list(rows["items"])}
        losses = [float(loss) / items for loss, items in zip(outcomes["loss"], rows["items"], strict=True)]
        return Findings(tables={"worst": worst(losses, columns)})

    def texts(self, rows: Dataset) -> Iterable[str]:
        """All that is said in ``rows``."""
        for row in rows:
            yield from spoken(row)


def _scores(loss: float, accuracy: float) -> dict[str, float]:
    perplexity = math.exp(loss) if loss < 700 else math.inf
    return {"loss": loss, "perplexity": perplexity, "token_accuracy": accuracy}
