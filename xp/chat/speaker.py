"""Speaker: the model's side of a conversation, from messages to the tokens of an answer."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from mimetypes import guess_type
from typing import TYPE_CHECKING, Any

from xp.error import UserError
from xp.generation import Generation, caching
from xp.hardware import home
from xp.task.conversation import prompt, stops
from xp.task.media import decoded_image, decoded_sound
from xp.task.messages import MEDIA, Message
from xp.task.rendering import render, specials

if TYPE_CHECKING:
    from torch import Tensor

    from xp.chat.talk import Talk


@dataclass(frozen=True)
class Answer:
    """What the assistant has said."""

    text: str
    reason: str
    """Its end: ``end`` (the model's own), ``length`` (max_new_tokens), ``time`` (max_time), ``stopped`` (by Ctrl-C)."""

    prompt_tokens: int
    tokens: int
    seconds: float

    @property
    def about(self) -> dict[str, Any]:
        """What a transcript says of it."""
        return {"reason": self.reason, "prompt_tokens": self.prompt_tokens, "tokens": self.tokens,
                "seconds": round(self.seconds, 3)}  # fmt: skip


@dataclass
class Speaker:
    """A network that answers."""

    network: Any
    processor: Any
    """The tokenizer, or the processor of a model that takes images or sounds, too."""

    generation: Generation
    context: int | None
    """Most tokens that it sees at once, its answer included; None for no bound."""

    seed: int
    draft: Any
    """The model that drafts, see `xp.generation.Generation.generate`; None for none."""

    plain: bool
    """Whether it is a model without a template of its own, which would go on with the user's next turn."""

    @property
    def tokenizer(self) -> Any:
        """What turns text into tokens."""
        return getattr(self.processor, "tokenizer", self.processor)

    @property
    def multimodal(self) -> bool:
        """Whether turns may have images or sounds."""
        return self.tokenizer is not self.processor

    def check(self, generation: Generation) -> None:
        """Refuse a way of writing in which no answer could be given here.

        Raises:
            UserError: names the setting.
        """
        if generation.num_return_sequences > 1:
            raise UserError(
                f"generation.num_return_sequences={generation.num_return_sequences}: a chat has one answer; use 1, or "
                "/retry for another"
            )
        if self.context is not None and generation.max_new_tokens >= self.context:
            raise UserError(
                f"generation.max_new_tokens={generation.max_new_tokens}: this model sees {self.context} tokens at "
                "once, and something must be left for what is asked; use fewer"
            )
        caching.check(generation, home(self.network))
        generation.arguments(self.network, self.tokenizer)
        if self.draft is not None:
            self.draft.arguments(self.network, self.tokenizer, generation)

    def attachable(self, part: dict[str, str]) -> None:
        """Refuse what could not be sent along.

        Raises:
            UserError: a kind that this model does not take, or a file that cannot be read.
        """
        kind = part["type"]
        readers = {"image": ("image_processor",), "audio": ("feature_extractor", "audio_processor")}.get(kind, ())
        if readers and all(getattr(self.processor, name, None) is None for name in readers):
            raise UserError(f"{part['path']}: this model takes no {kind}")
        _part(part, self.rate)

    @property
    def rate(self) -> int:
        """Samples a second of the sounds that the model takes."""
        return int(getattr(getattr(self.processor, "feature_extractor", None), "sampling_rate", 16000))

    def tokens(self, messages: list[Message]) -> dict[str, Tensor]:
        """What the network gets of a conversation that waits for an answer: the tokens of training, one row.

        Raises:
            UserError: the template refuses it, or an image or a sound cannot be read.
        """
        import torch

        if not self.multimodal:
            for at, message in enumerate(messages):
                if not isinstance(message["content"], str):
                    kinds = " and ".join(part["type"] for part in message["content"] if part["type"] in MEDIA)
                    raise UserError(f"messages[{at}]: it has {kinds} in it, and this model reads text alone")
            try:
                ids = torch.tensor([prompt(messages, self.tokenizer)])
            except UserError as error:
                refused = messages[0]["role"] == "system" and "system" in str(error).lower()
                raise UserError(f"{error}{'; /system none takes it away' * refused}") from error
            return {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
        turns = [message | {"content": _parts(message["content"], self.rate)} for message in messages]
        try:
            with torch.autocast(home(self.network).type, enabled=False):  # Spectrograms are computed by torch, too.
                made = self.processor.apply_chat_template(
                    turns,
                    add_generation_prompt=True,
                    tokenize=True,
                    return_dict=True,
                    return_tensors="pt",
                )
        except (OSError, ValueError, TypeError, LookupError) as error:
            raise UserError(f"this model's processor says: {' '.join(str(error).split())}") from error
        found: dict[str, Tensor] = made.to(dtype=self.network.dtype)
        return found

    def fitted(self, talk: Talk) -> tuple[dict[str, Tensor], int]:
        """What the network gets, and how many of the oldest turns it does not see: whole turns go, as few as do.

        Raises:
            UserError: what the user says now is too long by itself.
        """
        for dropped in range(talk.turns):
            inputs = self.tokens(talk.seen(dropped))
            length = inputs["input_ids"].shape[1]
            if self.context is None or length + self.generation.max_new_tokens <= self.context:
                return inputs, dropped
        raise UserError(
            f"this turn has {length:,} tokens with what is around it, and an answer may have "
            f"{self.generation.max_new_tokens:,}: the model sees {self.context:,}. Say it shorter, or "
            "/set max_new_tokens=<fewer>"
        )

    def answer(
        self, inputs: dict[str, Tensor], attempt: list[int], show: Callable[[str], None], stopped: Callable[[], bool]
    ) -> Answer:
        """The assistant's turn, shown while it is being written.

        Args:
            inputs: see `fitted`.
            attempt: what the randomness of a sampled answer depends on beside the seed: turn and try.
            show: takes the text piece by piece.
            stopped: is asked after each token whether to end here.
        """
        import torch

        from xp.chat.stream import Stream, stopping

        stream = Stream(self.tokenizer, show, [*self.generation.stop_strings, *([self.turn] if self.turn else [])])
        beams = self.generation.beams > 1  # What is best is known at the end alone.
        began = time.perf_counter()
        inputs = {name: value.to(home(self.network)) for name, value in inputs.items()}
        with torch.inference_mode():
            new = self.generation.generate(
                self.network,
                inputs,
                self.tokenizer,
                seeds=[[self.seed, *attempt]],
                draft=self.draft,
                streamer=None if beams else stream,
                criteria=[stopping(lambda: stopped() or stream.over)],
            )[0].tolist()
        seconds = time.perf_counter() - began
        if beams:
            stream.put(torch.tensor(new))
            stream.end()
        ended = bool(new) and new[-1] in stops(self.tokenizer)
        full = len(new) >= self.generation.max_new_tokens
        late = self.generation.max_time is not None and seconds >= self.generation.max_time
        reason = "stopped" if stopped() else "length" if full else "time" if late else "end"
        reason = "end" if ended or stream.over else reason
        text = stream.cut(self.tokenizer.decode(new, skip_special_tokens=True))
        return Answer(text, reason, inputs["input_ids"].shape[1], len(new), seconds)

    @property
    def turn(self) -> str:
        """What the user's turns begin with, where a model without a template would go on with it; else nothing."""
        return f"\n{opening(self.tokenizer)}" if self.plain else ""


def opening(tokenizer: Any) -> str:
    """What the template writes before what the user says, without special tokens."""
    said = ["What is it?", "Nothing.", "And that?"]
    messages = [{"role": ("user", "assistant")[at % 2], "content": text} for at, text in enumerate(said)]
    text, _ = render(messages, tokenizer)
    between = text.partition(said[1])[2].partition(said[2])[0]
    for token in specials(tokenizer).values():
        between = between.replace(token, "")
    return between.strip()


def _parts(content: Any, rate: int) -> list[dict[str, Any]]:
    """A turn's content as processors take it: a list, images and sounds read, these with ``rate`` samples a second.

    Raises:
        UserError: a file that cannot be read.
    """
    if isinstance(content, str):
        return [{"type": "text", "text": content}]
    return [_part(part, rate) for part in content]


def _part(part: dict[str, Any], rate: int) -> dict[str, Any]:
    kind = part["type"]
    file = next((part[key] for key in ("path", "url", kind) if key in part), "")
    try:
        if kind == "image":
            return {"type": kind, "image": decoded_image(file)}
        if kind == "audio":
            return {"type": kind, "audio": decoded_sound(file, rate)}
    except ValueError as error:
        raise UserError(f"{file}: {error}") from error
    return part


def file_kind(name: str) -> str | None:
    """Whether a file is an image, audio or a video, by its ending; None where it is neither."""
    kind = (guess_type(name)[0] or "").partition("/")[0]
    return kind if kind in MEDIA else None
