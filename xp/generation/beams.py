"""Beams: several beginnings that are followed at once."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from xp.generation.base import Generation


class Beams(Generation):
    """A way to write that follows the likeliest few beginnings at once and ends with the likeliest wholes."""

    num_beams: Annotated[int, Field(ge=2)]
    """How many beginnings are followed."""

    length_penalty: float
    """Above 0 longer answers are preferred, below 0 shorter ones: the score is divided by length to this power."""

    early_stopping: bool | Literal["never"]
    """Whether to end as soon as there are as many whole answers as beams; false: once better ones are unlikely, never:
    once there can be none."""

    @model_validator(mode="after")
    def _beams_fit(self) -> Beams:
        if self.num_return_sequences > self.num_beams:
            raise ValueError(
                f"num_return_sequences={self.num_return_sequences}: it must not exceed num_beams={self.num_beams}"
            )
        return self

    @property
    def beams(self) -> int:
        """How many beginnings are followed at once."""
        return self.num_beams
