"""Tasks on images with texts that can only predict."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, NonNegativeInt, PositiveInt

from xp.hardware import home
from xp.task.task import Hypothesis, Task


class ZeroShotImageClassification(Task, name="zero_shot_image_classification"):
    """Labels of one's own for an image, by a model that knows which text goes with it (Radford et al., 2021)."""

    pipeline: ClassVar[str] = "zero-shot-image-classification"
    takes: ClassVar[str] = "an image, and candidate_labels"
    gives: ClassVar[str] = "the labels with their scores, the likeliest first"
    inputs: ClassVar[tuple[str, ...]] = ("image", "candidate_labels")
    batches: ClassVar[bool] = False

    candidate_labels: list[str] | None
    """The labels to choose from, for inputs that name none of their own."""

    hypothesis_template: Hypothesis
    """The sentence that a label is put into, for ``{}``."""

    def arguments(self, row: dict[str, Any]) -> dict[str, Any]:
        """The input's labels among them."""
        return self.options | {"candidate_labels": row["candidate_labels"]}

    def entry(self, row: dict[str, Any]) -> Any:
        """The image."""
        return row["image"]


class ZeroShotObjectDetection(Task, name="zero_shot_object_detection"):
    """Boxes around what one's own words name (Minderer et al., 2022)."""

    pipeline: ClassVar[str] = "zero-shot-object-detection"
    takes: ClassVar[str] = "an image, and candidate_labels"
    gives: ClassVar[str] = "labels with their boxes in pixels and their scores"
    inputs: ClassVar[tuple[str, ...]] = ("image", "candidate_labels")
    batches: ClassVar[bool] = False

    candidate_labels: list[str] | None
    """What to look for, for inputs that do not say it themselves."""

    threshold: Annotated[float, Field(ge=0, le=1)]
    """Least score of a box."""

    top_k: PositiveInt | None
    """At most so many boxes an image, the best first; null gives all."""


class DocumentQuestionAnswering(Task, name="document_question_answering"):
    """An answer out of the picture of a document."""

    pipeline: ClassVar[str] = "document-question-answering"
    takes: ClassVar[str] = "an image and a question; word_boxes where the words are known"
    gives: ClassVar[str] = "answers with their scores"
    inputs: ClassVar[tuple[str, ...]] = ("image", "question")
    optional_inputs: ClassVar[tuple[str, ...]] = ("word_boxes",)
    batches: ClassVar[bool] = False
    generates: ClassVar[bool] = True

    top_k: PositiveInt
    """How many answers are given, the best first."""

    doc_stride: NonNegativeInt | None
    """Tokens that the windows of a long document share; null: half a window, at most 256."""

    max_answer_len: PositiveInt
    """Longest answer, in tokens."""

    max_seq_len: PositiveInt | None
    """Longest window, in tokens with the question; null: as long as the model reaches."""

    handle_impossible_answer: bool
    """Whether "no answer" is an answer."""

    lang: str | None
    """Language that Tesseract reads in; null: English."""

    tesseract_config: str
    """More flags for Tesseract."""

    @property
    def splits_long(self) -> bool:
        """Into windows."""
        return True


class ImageTextToText(Task, name="image_text_to_text"):
    """What a model says to an image and a text."""

    pipeline: ClassVar[str] = "image-text-to-text"
    takes: ClassVar[str] = "an image and a text, or a chat with images"
    gives: ClassVar[str] = "the text with what follows it"
    inputs: ClassVar[tuple[str, ...]] = ("image", "text")
    batches: ClassVar[bool] = False
    generates: ClassVar[bool] = True

    return_full_text: bool
    """Whether the text that was given comes before what was written."""

    def entry(self, row: dict[str, Any]) -> Any:
        """Under the pipeline's own names, or the chat."""
        return {"images": row["image"], "text": row["text"]} if "image" in row else row["text"]


class AnyToAny(Task, name="any_to_any"):
    """What a model of several senses answers, in the form it was made for."""

    pipeline: ClassVar[str] = "any-to-any"
    takes: ClassVar[str] = "a text, with an image, a video or audio beside it, or a chat"
    gives: ClassVar[str] = "a text, an image or a sound"
    inputs: ClassVar[tuple[str, ...]] = ("text",)
    optional_inputs: ClassVar[tuple[str, ...]] = ("image", "video", "audio")
    batches: ClassVar[bool] = False
    generates: ClassVar[bool] = True

    generation_mode: Literal["text", "image", "audio"]
    """What is to be made; a model can make only what it was made for."""

    return_full_text: bool | None
    """Whether a text that was given comes before what was written; null where no text is made."""

    def entry(self, row: dict[str, Any]) -> Any:
        """Under the pipeline's own names, or the chat."""
        if isinstance(row["text"], list) and len(row) == 1:  # The pipeline has a class of chats of its own.
            from transformers.pipelines.any_to_any import Chat

            return Chat(row["text"])
        names = {"image": "images", "video": "videos"}
        return {names.get(part, part): value for part, value in row.items()} if len(row) > 1 else row["text"]


class VisualQuestionAnswering(Task, name="visual_question_answering"):
    """An answer to a question about an image; transformers 5 has no pipeline for it."""

    auto_class: ClassVar[str] = "AutoModelForVisualQuestionAnswering"
    processor_class: ClassVar[str] = "AutoProcessor"
    takes: ClassVar[str] = "an image and a question"
    gives: ClassVar[str] = "answers with their scores, or one that is written"
    inputs: ClassVar[tuple[str, ...]] = ("image", "question")
    generates: ClassVar[bool] = True

    top_k: PositiveInt
    """How many answers are given, the best first, by a model that chooses from known ones."""

    def answer(self, inputs: Sequence[dict[str, Any]], network: Any, processor: Any, generation: Any) -> list[Any]:
        """Sigmoid of a classifier's numbers, or what a model writes."""
        if network.can_generate() and len(inputs) > 1:  # One by one: BLIP attends to the padding of questions.
            return [self.answer([row], network, processor, generation)[0] for row in inputs]
        images, questions = [row["image"] for row in inputs], [row["question"] for row in inputs]
        batch = processor(images=images, text=questions, padding=True, return_tensors="pt")
        batch = batch.to(home(network), network.dtype)
        if network.can_generate():
            told = generation.arguments(network, processor.tokenizer)
            (written,) = processor.batch_decode(network.generate(**batch, **told), skip_special_tokens=True)
            return [[{"answer": written.strip()}]]
        names = network.config.id2label
        scores, ids = network(**batch).logits.float().sigmoid().topk(min(self.top_k, len(names)))
        return [
            [{"score": score, "answer": names[at]} for score, at in zip(row, numbers, strict=True)]
            for row, numbers in zip(scores.tolist(), ids.tolist(), strict=True)
        ]


class ImageToText(Task, name="image_to_text"):
    """A text about an image, or the text in it; transformers 5 has no pipeline for it."""

    auto_class: ClassVar[str] = "AutoModelForImageTextToText"
    parts: ClassVar[tuple[str, ...]] = ("tokenizer", "image_processor")
    takes: ClassVar[str] = "an image"
    gives: ClassVar[str] = "a text"
    inputs: ClassVar[tuple[str, ...]] = ("image",)
    generates: ClassVar[bool] = True

    def answer(self, inputs: Sequence[dict[str, Any]], network: Any, processor: Any, generation: Any) -> list[Any]:
        """What the model writes to each image."""
        images = [row["image"] for row in inputs]
        pixels = processor.image_processor(images=images, return_tensors="pt").to(home(network), network.dtype)
        written = network.generate(**pixels, **generation.arguments(network, processor.tokenizer))
        return [[{"generated_text": text.strip()}]
                for text in processor.tokenizer.batch_decode(written, skip_special_tokens=True)]  # fmt: skip
