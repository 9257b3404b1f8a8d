"""Audio classification: one label out of several for a sound."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import Field

from xp.error import UserError
from xp.task.base import Encoded, Trainable, settled
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
from xp.task.media import beside, decoded_sound, opened_sound, shown, unreadable
from xp.task.prediction import ClassPrediction

if TYPE_CHECKING:
    import numpy as np
    from datasets import Dataset
    from torch import Tensor, nn

    from xp.findings import Findings


class AudioClassification(Trainable, name="audio_classification"):
    """Choose one of several labels for a sound, by cross-entropy over the classes."""

    auto_class: ClassVar[str] = "AutoModelForAudioClassification"
    processor_class: ClassVar[str] = "AutoFeatureExtractor"
    peft_type: ClassVar[str | None] = None
    columns: ClassVar[tuple[str, ...]] = ("audio", "label")
    answers: ClassVar[str] = "class"
    pipeline: ClassVar[str] = "audio-classification"
    inputs: ClassVar[tuple[str, ...]] = ("audio",)
    even: ClassVar[bool] = True
    takes: ClassVar[str] = "a sound: a file or an address on the web"
    gives: ClassVar[str] = "labels with their probabilities"

    max_seconds: Annotated[float, Field(gt=0)]
    """Longest sound, in seconds; of a longer one the beginning is taken."""

    overlong: Literal["truncate", "drop", "error"]
    """What becomes of a longer sound; the count is always reported."""

    unmasked: Literal["apart", "padded"]
    """For models that take no attention mask, as wav2vec2-base: ``apart`` runs the sounds of each length by themselves,
    which is exact; ``padded`` fills all up to ``max_seconds`` with silence, which is quicker and which they hear."""

    prediction: ClassPrediction
    """What command=predict gives."""

    def label_names(self, rows: Dataset) -> list[str]:
        """The label names: those of a ``ClassLabel`` column, else the sorted distinct values."""
        return class_names(rows, self.name)

    def config(self, labels: Sequence[str]) -> dict[str, Any]:
        """Number and names of the labels."""
        return class_config(labels)

    def fault(self, row: dict[str, Any]) -> str | None:
        """A sound that is missing, not readable by its header, or empty, or no label."""
        try:
            with opened_sound(row["audio"]):
                return class_fault(row)
        except ValueError as error:
            return f"audio: {error}"

    def encode(self, rows: Dataset, processor: Any, labels: Sequence[str]) -> Encoded:
        """``audio`` as it is stored, ``label`` as a class id, ``length`` in samples; decoded when its batch is made."""
        ids = class_ids(rows, labels, self.name)
        seconds = []
        for batch in rows.select_columns(["audio"]).iter(100):
            for value in batch["audio"]:
                try:
                    with opened_sound(value) as file:
                        seconds.append(file.frames / file.samplerate)
                except ValueError as error:
                    raise unreadable({"row": len(seconds), "audio": value}, "audio", str(error)) from error
        made = {
            "label": [ids[value] for value in rows["label"]],
            "length": [max(1, round(min(each, self.max_seconds) * processor.sampling_rate)) for each in seconds],
            "items": [1] * len(rows),
            "seconds": seconds,
            "over": [each > self.max_seconds for each in seconds],
        }
        types = {"label": "int64", "length": "int32", "items": "int32", "seconds": "float32", "over": "bool"}
        encoded = beside(rows, "audio", made, types)
        return settled(encoded, self.overlong, self.max_seconds, "sounds", "max_seconds", "seconds")

    def collate(self, sequences: Sequence[Sequence[dict[str, Any]]], processor: Any) -> dict[str, Tensor]:
        """What the feature extractor makes of each sound, padded to the longest, and ``labels`` (rows,).

        With ``attention_mask`` where the extractor gives one; where it does not, and the sounds are of unequal length,
        with their ``samples`` (rows,).

        Raises:
            UserError: a sound that cannot be decoded.
        """
        import numpy as np
        import torch

        features = []
        for (row,) in sequences:
            wave = decoded(row, processor.sampling_rate, self.max_seconds)
            if self.unmasked == "padded" and not processor.return_attention_mask:
                wave = np.pad(wave, (0, max(0, round(self.max_seconds * processor.sampling_rate) - len(wave))))
            # One at a time: a batch of unequal sounds would be normalised together with its padding.
            made = processor(wave, sampling_rate=processor.sampling_rate, return_tensors="np")
            features.append({name: value[0] for name, value in made.items()})
        labels = torch.tensor([row["label"] for (row,) in sequences])
        name = processor.model_input_names[0]
        lengths = [len(each[name]) for each in features]
        if len(set(lengths)) == 1:
            stacked = {key: torch.from_numpy(np.stack([each[key] for each in features])) for key in features[0]}
            return stacked | {"labels": labels}
        batch = dict(processor.pad(features, padding=True, return_tensors="pt"))
        if "attention_mask" not in batch:
            batch["samples"] = torch.tensor(lengths)
        return batch | {"labels": labels}

    def _logits(self, network: nn.Module, batch: dict[str, Tensor]) -> Tensor:
        import torch

        inputs = {name: value for name, value in batch.items() if name not in ("labels", "samples")}
        try:
            if "samples" not in batch:
                logits: Tensor = network(**inputs).logits
                return logits
            ((name, waves),) = inputs.items()
            samples = batch["samples"].tolist()  # note: waits for the device
            parts: dict[int, Tensor] = {}
            forward: Any = network
            for length in sorted(set(samples), reverse=True):
                rows = [row for row, each in enumerate(samples) if each == length]
                found = forward(**{name: waves[rows, :length]}).logits
                parts |= dict(zip(rows, found, strict=True))
                # Processes may differ in how many lengths they have, and what wraps the network for them
                # may exchange something at every call: so it is called once, and then what is inside of it.
                forward = getattr(network, "module", network)
            return torch.stack([parts[row] for row in range(len(samples))])
        except (ValueError, RuntimeError) as error:
            said = " ".join(str(error).split())
            if "mask_length" not in said and "Kernel size" not in said:
                raise
            raise UserError(
                f"data: a sound is too short for this model ({said}); remove sounds of so few milliseconds, or, "
                "if it is about mask_length, set model.config.mask_time_prob=0.0"
            ) from error

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
        """Confusion matrix, each class's scores, and the sounds with the highest loss."""
        inputs = shown(rows, "audio") | {"seconds": [round(each, 3) for each in rows["seconds"]]}
        return class_findings(outcomes, rows, labels, inputs)


def decoded(row: dict[str, Any], rate: int, max_seconds: float) -> np.ndarray:
    """The beginning of an encoded row's sound: float32, the mean of its channels, ``rate`` samples a second.

    Raises:
        UserError: it cannot be decoded (names file and row).
    """
    try:
        return decoded_sound(row["audio"], rate, max_seconds)
    except ValueError as error:
        raise unreadable(row, "audio", str(error)) from error
