"""Image classification: one label out of several for an image."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from xp.error import UserError
from xp.task.base import Encoded, Trainable
from xp.task.classification import (
    class_baseline,
    class_config,
    class_fault,
    class_findings,
    class_ids,
    class_loss,
    class_names,
    class_outcomes,
    class_scores,
)
from xp.task.media import beside, decoded_image, opened_image, shown, unreadable
from xp.task.prediction import ClassPrediction

if TYPE_CHECKING:
    import numpy as np
    from datasets import Dataset
    from PIL.Image import Image
    from torch import Tensor, nn

    from xp.findings import Findings

WORST = 16
"""Images in the picture of the worst errors."""


class ImageClassification(Trainable, name="image_classification"):
    """Choose one of several labels for an image, by cross-entropy over the classes."""

    auto_class: ClassVar[str] = "AutoModelForImageClassification"
    processor_class: ClassVar[str] = "AutoImageProcessor"
    peft_type: ClassVar[str | None] = None
    columns: ClassVar[tuple[str, ...]] = ("image", "label")
    answers: ClassVar[str] = "class"
    pipeline: ClassVar[str] = "image-classification"
    inputs: ClassVar[tuple[str, ...]] = ("image",)
    takes: ClassVar[str] = "an image: a file or an address on the web"
    gives: ClassVar[str] = "labels with their probabilities"

    augment: Literal["none", "flip", "crop_flip"]
    """What training does to an image at random: mirror it left to right, crop it to half its area or more, or both.
    Digits and letters are other ones in a mirror; evaluation always sees the image as it is."""

    prediction: ClassPrediction
    """What command=predict gives."""

    def label_names(self, rows: Dataset) -> list[str]:
        """The label names: those of a ``ClassLabel`` column, else the sorted distinct values."""
        return class_names(rows, self.name)

    def config(self, labels: Sequence[str]) -> dict[str, Any]:
        """Number and names of the labels."""
        return class_config(labels)

    def fault(self, row: dict[str, Any]) -> str | None:
        """An image that is missing, broken or of more than 8 bits a colour, or no label.

        Reads no more than the file's header and checksums; what only decoding can tell is told by `collate`.
        """
        try:
            with opened_image(row["image"]) as image:
                image.verify()
        except ValueError as error:
            return f"image: {error}"
        return class_fault(row)

    def encode(self, rows: Dataset, processor: Any, labels: Sequence[str]) -> Encoded:
        """``image`` as it is stored and ``label`` as a class id; an image is decoded when its batch is made."""
        ids = class_ids(rows, labels, self.name)
        made = {
            "label": [ids[value] for value in rows["label"]],
            "length": [1] * len(rows),
            "items": [1] * len(rows),
        }
        types = {"label": "int64", "length": "int32", "items": "int32"}
        return Encoded(beside(rows, "image", made, types), {"rows": len(rows)})

    def vary(self, row: dict[str, Any], generator: np.random.Generator) -> dict[str, Any]:
        """Whether the image is mirrored, and the ``box`` it is cropped to, as shares of width and height.

        The box is that of Szegedy et al. (2014, arXiv:1409.4842), but covers at least half of the image.
        """
        if self.augment == "none":
            return row
        changes: dict[str, Any] = {"mirrored": bool(generator.integers(2))}
        if self.augment == "crop_flip":
            side, ratio = math.sqrt(generator.uniform(0.5, 1)), math.exp(generator.uniform(-1, 1) * math.log(4 / 3) / 2)
            width, height = min(1.0, side * ratio), min(1.0, side / ratio)
            left, top = generator.uniform(0, 1 - width), generator.uniform(0, 1 - height)
            changes["box"] = (left, top, left + width, top + height)
        return row | changes

    def collate(self, sequences: Sequence[Sequence[dict[str, Any]]], processor: Any) -> dict[str, Tensor]:
        """``pixel_values`` (rows, channels, height, width) and whatever else the processor gives, ``labels`` (rows,).

        Raises:
            UserError: an image that cannot be decoded, or that the processor makes of unequal sizes.
        """
        import torch

        images = [_changed(decoded(row), row) for (row,) in sequences]
        try:
            inputs = processor(images, return_tensors="pt")
        except ValueError as error:
            raise UserError(f"model.processor: {_said(error)}") from error
        return {**inputs, "labels": torch.tensor([row["label"] for (row,) in sequences])}

    def _logits(self, network: nn.Module, batch: dict[str, Tensor]) -> Tensor:
        try:
            logits: Tensor = network(**{name: value for name, value in batch.items() if name != "labels"}).logits
        except ValueError as error:  # For example a model for other sizes or numbers of channels.
            raise UserError(f"model.processor: its images do not fit the model: {_said(error)}") from error
        return logits

    def loss(self, network: nn.Module, batch: dict[str, Tensor], label_smoothing: float) -> Tensor:
        """Cross-entropy, summed over the rows."""
        return class_loss(self._logits(network, batch), batch["labels"], label_smoothing)

    def outcomes(
        self, network: nn.Module, batch: dict[str, Tensor], processor: Any, generation: Any
    ) -> dict[str, np.ndarray]:
        """``loss`` and the predicted class id of each row."""
        return class_outcomes(self._logits(network, batch), batch["labels"])

    def score(self, outcomes: dict[str, np.ndarray], rows: Dataset, labels: Sequence[str]) -> dict[str, float]:
        """The metrics, and ``loss`` a row."""
        return class_scores(self.metrics, outcomes, rows)

    def baseline(self, rows: Dataset, labels: Sequence[str]) -> dict[str, float]:
        """Always the most frequent class of ``rows``."""
        return class_baseline(self.metrics, rows)

    def findings(
        self, outcomes: dict[str, np.ndarray], rows: Dataset, labels: Sequence[str], processor: Any
    ) -> Findings:
        """Confusion matrix, each class's scores, and the images with the highest loss, as a table and a picture."""
        pictures = {"worst": lambda: _gallery(outcomes, rows, labels)}
        return class_findings(outcomes, rows, labels, shown(rows, "image"), pictures)


def decoded(row: dict[str, Any]) -> Image:
    """The image of an encoded row, upright, in 8-bit red, green and blue.

    Raises:
        UserError: it cannot be decoded (names file and row).
    """
    try:
        return decoded_image(row["image"])
    except ValueError as error:
        raise unreadable(row, "image", str(error)) from error


def _changed(image: Image, row: dict[str, Any]) -> Image:
    """The image as `ImageClassification.vary` has decided."""
    from PIL import ImageOps

    if "box" in row:
        sides = (image.width, image.height, image.width, image.height)
        left, top, right, bottom = (round(share * side) for share, side in zip(row["box"], sides, strict=True))
        left, top = min(left, image.width - 1), min(top, image.height - 1)
        image = image.crop((left, top, max(right, left + 1), max(bottom, top + 1)))
    return ImageOps.mirror(image) if row.get("mirrored") else image


def _gallery(outcomes: dict[str, np.ndarray], rows: Dataset, labels: Sequence[str]) -> Any:
    """The images with the highest loss, each with what it is and what it was taken for; a matplotlib figure."""
    import numpy as np
    from matplotlib.figure import Figure

    order = np.argsort(-outcomes["loss"], kind="stable")[:WORST]
    across = min(4, len(order))
    down = -(-len(order) // across)
    figure = Figure(figsize=(2.2 * across, 2.5 * down), layout="constrained")
    for place, number in enumerate(order):
        row = rows[int(number)]
        axes = figure.add_subplot(down, across, place + 1)
        axes.imshow(np.asarray(decoded(row)), interpolation="nearest")
        axes.set_axis_off()
        gold, predicted = labels[row["label"]], labels[int(outcomes["prediction"][number])]
        axes.set_title(f"{gold}, taken for {predicted}" if gold != predicted else f"{gold}, unsure", fontsize=8)
    return figure


def _said(error: BaseException) -> str:
    return " ".join(str(error).split())[:300] or type(error).__name__
