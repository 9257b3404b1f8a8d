"""Backend: the kind."""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING

from pydantic import PositiveInt

from xp.component import Component

if TYPE_CHECKING:
    from xp.training.job import Job


class Backend(Component):
    """Who turns the crank of a training. All of them give the same curve."""

    processes: PositiveInt
    """How many processes train together, one device each; the batch size does not grow with them."""

    @abstractmethod
    def fit(self, job: Job) -> None:
        """Do the job: leaves its network trained, on every process alike."""
