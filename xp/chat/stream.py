"""Stream: an answer's text, shown piece by piece while its tokens come."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from transformers import StoppingCriteria


def stopping(stopped: Callable[[], bool]) -> StoppingCriteria:
    """Ends a generation after the token at which ``stopped`` says so."""
    import torch
    from transformers import StoppingCriteria

    class Asked(StoppingCriteria):  # type: ignore[misc]
        def __call__(self, input_ids: torch.Tensor, scores: Any, **kwargs: Any) -> torch.Tensor:
            return torch.full((len(input_ids),), stopped(), device=input_ids.device)

    return Asked()


class Stream:
    """Shows an answer as transformers' ``TextStreamer`` would, up to a text that ends it."""

    def __init__(self, tokenizer: Any, show: Callable[[str], None], until: list[str]) -> None:
        from transformers import TextStreamer

        class Streamer(TextStreamer):  # type: ignore[misc]
            def on_finalized_text(streamer, text: str, stream_end: bool = False) -> None:
                self._take(text, stream_end)

        self._streamer = Streamer(tokenizer, skip_prompt=False, skip_special_tokens=True)
        self._show = show
        self._until = until
        self._prompted = False
        self._held = ""
        self.over = False
        """Whether one of the texts was written that end an answer."""

    def put(self, tokens: Any) -> None:
        """New tokens; the first ones that ``generate`` gives are the prompt, (1, length), and not shown."""
        if tokens.dim() > 1 and not self._prompted:
            self._prompted = True
        elif not self.over:
            self._streamer.put(tokens)

    def end(self) -> None:
        """No more tokens."""
        self._streamer.end()

    def cut(self, text: str) -> str:
        """A whole text up to the first of those that end an answer."""
        found = [at for each in self._until if (at := text.find(each)) >= 0]
        return text[: min(found)] if found else text

    def _take(self, text: str, ends: bool) -> None:
        """Show text, but for an end of it that may be the beginning of what an answer is not to hold."""
        if self.over:
            return
        text = self._held + text
        before = self.cut(text)
        self.over = before != text
        held = 0 if ends or self.over else self._overlap(before)
        self._held = before[len(before) - held :] if held else ""
        shown = before[: len(before) - held]
        if shown:
            self._show(shown)

    def _overlap(self, text: str) -> int:
        """How many characters at the end of a text may be the beginning of one that ends an answer."""
        return max((_overlap(text, each) for each in self._until), default=0)


def _overlap(text: str, end: str) -> int:
    most = min(len(text), len(end) - 1)
    return next((size for size in range(most, 0, -1) if text.endswith(end[:size])), 0)
