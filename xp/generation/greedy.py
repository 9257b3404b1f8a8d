"""Greedy: always the most likely next token."""

from __future__ import annotations

from pydantic import model_validator

from xp.generation.drafts import Drafted


class Greedy(Drafted, name="greedy"):
    """Always the most likely next token."""

    @model_validator(mode="after")
    def _one_answer(self) -> Greedy:
        if self.num_return_sequences > 1:
            raise ValueError(
                f"num_return_sequences={self.num_return_sequences}: greedy writes the same each time; "
                "choose generation=sample, or beam"
            )
        return self
