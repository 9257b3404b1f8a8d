"""Stopping: an answer ends where one of some texts was written."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor


def stopping(texts: Sequence[str], start: int, processor: Any, more: Sequence[Any] = ()) -> Any:
    """Stopping criteria of transformers: rows end once they have written one of ``texts``.

    transformers has such a criterion, which counts what the prompt ends with too; here only what is new counts. As
    no text has fewer bytes than tokens, the last few tokens of a row are all that can be looked at anew.

    Args:
        texts: none for no such end.
        start: tokens of a row that were there before any was written.
        processor: the tokenizer.
        more: further criteria.
    """
    from transformers import StoppingCriteria, StoppingCriteriaList

    if not texts:
        return StoppingCriteriaList(more)
    window = max(len(text.encode()) for text in texts) + 4

    class Stop(StoppingCriteria):  # type: ignore[misc]
        seen = start
        """Tokens that were looked at; a draft adds several before the next look."""

        def __call__(self, input_ids: Tensor, scores: Any, **_: Any) -> Tensor:
            last = input_ids[:, max(start, self.seen - window) :].tolist()
            self.seen = input_ids.shape[1]
            found = [any(text in written for text in texts) for written in map(processor.decode, last)]
            return input_ids.new_tensor(found).bool()

    return StoppingCriteriaList([Stop(), *more])
