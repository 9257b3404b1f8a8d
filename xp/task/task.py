"""Task: the kind, and how a task predicts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from string import Formatter
from typing import Annotated, Any, ClassVar

from pydantic import AfterValidator

from xp.component import Component
from xp.error import UserError


def _hypothesis(text: str) -> str:
    try:
        places = [name for _, name, _, _ in Formatter().parse(text) if name is not None]
    except ValueError:
        places = []
    if places != [""]:
        raise ValueError("it must have just one place for a label, as in: This example is {}.")
    return text


Hypothesis = Annotated[str, AfterValidator(_hypothesis)]
"""A sentence that a label is put into, for ``{}``."""


class Task(Component):
    """What the model is asked to do. A task that can only predict is just this; see `Trainable` for the others."""

    pipeline: ClassVar[str] = ""
    """transformers' pipeline that predicts for this task; empty where xp does it itself."""

    takes: ClassVar[str] = ""
    """What one input of a prediction is, for a person to read."""

    gives: ClassVar[str] = ""
    """What one prediction is, for a person to read."""

    inputs: ClassVar[tuple[str, ...]] = ("text",)
    """The parts of one input of a prediction; a table has columns of these names."""

    optional_inputs: ClassVar[tuple[str, ...]] = ()
    """Parts that an input may have beside them."""

    batches: ClassVar[bool] = True
    """Whether predictions can be made for several inputs at once."""

    even: ClassVar[bool] = False
    """Whether inputs share a batch only if they have one size, because padding would change what comes out."""

    generates: ClassVar[bool] = False
    """Whether the ``generation`` group says how answers are written."""

    bf16: ClassVar[bool] = True
    """Whether the pipeline can read what a network gives in bf16."""

    spare: ClassVar[tuple[str, ...]] = ()
    """Parts of a network whose weights a prediction does not need."""

    parts: ClassVar[tuple[str, ...]] = ()
    """What `answer` gets as attributes of its processor (tokenizer, ...); where empty, it gets a `processor_class`."""

    def check_files(self) -> None:
        """See whether the files that the settings name are there, before anything heavy is imported.

        Raises:
            UserError: one is not.
        """

    @classmethod
    def known_columns(cls) -> set[str]:
        """All columns that this task may read."""
        return {*cls.inputs, *cls.optional_inputs}

    @property
    def options(self) -> dict[str, Any]:
        """The settings under the names of the pipeline's parameters; null leaves one to the pipeline."""
        return self.model_dump(exclude={"name", *self.inputs, *self.optional_inputs}, exclude_none=True)

    @property
    def splits_long(self) -> bool:
        """Whether an input that is longer than the model reaches is cut into windows, and so no trouble."""
        return "stride" in self.options  # The pipeline's word for what windows share.

    def truncating(self, limit: int) -> dict[str, Any] | None:
        """What tells the pipeline to cut texts off after ``limit`` tokens; None where it cannot."""
        return None

    def arguments(self, row: dict[str, Any]) -> dict[str, Any]:
        """What the pipeline is told along with an input; inputs that it is told the same about share batches."""
        return self.options

    def understood(self, value: Any, columns: Mapping[str, str]) -> dict[str, Any] | None:
        """The parts of an input in a shape that this task alone knows; None for one that is read like any other's.

        Args:
            value: a text, or a row of a file.
            columns: what parts are called in files, as ``data.columns``.

        Raises:
            UserError: what is wrong with it.
        """
        return None

    def entry(self, row: dict[str, Any]) -> Any:
        """One input as the pipeline takes it.

        Args:
            row: the parts of the input, images and sounds loaded.
        """
        return row[self.inputs[0]] if list(row) == [self.inputs[0]] else row

    def measured(self, row: dict[str, Any]) -> tuple[str, ...]:
        """The texts of an input whose tokens are its length: one, or a pair that the tokenizer puts together."""
        return tuple(row[part] for part in self.inputs if isinstance(row.get(part), str))

    def answer(self, inputs: Sequence[dict[str, Any]], network: Any, processor: Any, generation: Any) -> list[Any]:
        """A prediction for each input, where transformers has no pipeline that makes them.

        Args:
            inputs: of similar length, images and sounds loaded, no text empty.
            network: in evaluation mode, on its device.
            processor: of `processor_class`, or with `parts`.
            generation: an `xp.generation.Generation`.

        Raises:
            ValueError: an input for which there is no prediction.
        """
        raise UserError(f"task={self.name}: it has no predictions; choose another task, command=tasks lists them")
