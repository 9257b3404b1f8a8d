"""Tasks on sounds that can only predict."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from pydantic import PositiveFloat, PositiveInt

from xp.task.task import Hypothesis, Task


class AutomaticSpeechRecognition(Task, name="automatic_speech_recognition"):
    """What is said in a recording."""

    pipeline: ClassVar[str] = "automatic-speech-recognition"
    takes: ClassVar[str] = "a recording"
    gives: ClassVar[str] = "its text, and where asked for, when each part of it was said"
    inputs: ClassVar[tuple[str, ...]] = ("audio",)
    even: ClassVar[bool] = True

    chunk_length_s: PositiveFloat | None
    """Cut a long recording into pieces of so many seconds; null gives it to the model as a whole."""

    stride_length_s: PositiveFloat | None
    """Seconds that pieces share on each side; null: a sixth of the piece."""

    return_timestamps: Literal["char", "word", "segment"] | None
    """When each character, word or (Whisper) segment was said; null: the text alone."""

    return_language: bool | None
    """Whether Whisper says which language it heard."""

    max_new_tokens: PositiveInt | None
    """Most tokens of a text that is generated; null: the pipeline's 256."""

    num_beams: PositiveInt | None
    """How many beginnings a generated text is searched with; null: the pipeline's 5."""

    def arguments(self, row: dict[str, Any]) -> dict[str, Any]:
        """With the pipeline's own word for segments."""
        given = self.options
        return given | ({"return_timestamps": True} if self.return_timestamps == "segment" else {})


class ZeroShotAudioClassification(Task, name="zero_shot_audio_classification"):
    """Labels of one's own for a sound, by a model that knows which text goes with it (Wu et al., 2023)."""

    pipeline: ClassVar[str] = "zero-shot-audio-classification"
    takes: ClassVar[str] = "a recording, and candidate_labels"
    gives: ClassVar[str] = "the labels with their scores, the likeliest first"
    inputs: ClassVar[tuple[str, ...]] = ("audio", "candidate_labels")
    batches: ClassVar[bool] = False

    candidate_labels: list[str] | None
    """The labels to choose from, for inputs that name none of their own."""

    hypothesis_template: Hypothesis
    """The sentence that a label is put into, for ``{}``."""

    def arguments(self, row: dict[str, Any]) -> dict[str, Any]:
        """The input's labels among them."""
        return self.options | {"candidate_labels": row["candidate_labels"]}

    def entry(self, row: dict[str, Any]) -> Any:
        """The samples."""
        return row["audio"]


class TextToAudio(Task, name="text_to_audio"):
    """Speech, music or other sound from a text."""

    pipeline: ClassVar[str] = "text-to-audio"
    takes: ClassVar[str] = "a text"
    gives: ClassVar[str] = "a sound, as a .wav file, and its sampling rate"
    batches: ClassVar[bool] = False

    max_new_tokens: PositiveInt | None
    """Most tokens of sound that are generated; null leaves it to the model and the pipeline."""

    do_sample: bool | None
    """Whether they are drawn at random; null leaves it to the model."""

    def arguments(self, row: dict[str, Any]) -> dict[str, Any]:
        """Under the pipeline's own name for them."""
        return {"generate_kwargs": self.options} if self.options else {}
