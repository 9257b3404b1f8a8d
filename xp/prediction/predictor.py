"""Predictor: what makes predictions of a batch, a pipeline of transformers or the task itself."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from xp.error import UserError
from xp.generation import Generation
from xp.model import Loaded, positions
from xp.model.base import loading
from xp.model.placement import place, shown_whole
from xp.model.processor import saved_processor
from xp.model.tokenizer import settle_pad
from xp.prediction import media
from xp.prediction.inputs import KINDS
from xp.task import Task, Trainable

if TYPE_CHECKING:
    import torch

PARTS = {
    "tokenizer": "AutoTokenizer",
    "image_processor": "AutoImageProcessor",
    "video_processor": "AutoVideoProcessor",
    "feature_extractor": "AutoFeatureExtractor",
    "processor": "AutoProcessor",
}
"""What a pipeline may need beside the network, and which of transformers' Auto classes loads it."""

NO_LIMIT = 1 << 60


@dataclass(frozen=True)
class Predictor:
    """What makes predictions of a batch."""

    task: Task
    call: Callable[[list[dict[str, Any]]], list[Any]]
    """Takes the parts of inputs that may share a batch, images and sounds loaded; gives a prediction each."""

    tokenizer: Any
    """Measures texts; None where the task has none."""

    rate: int | None
    """Samples a second of sounds."""

    limit: int
    """Most tokens that an input may have."""

    limit_means: str
    """What sets the limit, for messages."""

    truncates: bool
    """Whether a longer one is cut off there."""

    even: bool
    """Whether inputs share a batch only if they have one size."""

    notes: list[str]
    """What a person should know of it, a line each."""

    def measure(self, rows: Sequence[dict[str, Any]]) -> list[int]:
        """The size of each input: tokens of a text with the special ones, samples of a sound, pixels of an image."""
        texts = [self.task.measured(row) if self.tokenizer is not None else () for row in rows]
        sizes = [0 if text else media.size(row, self.rate) for text, row in zip(texts, rows, strict=True)]
        for width in {len(text) for text in texts if text}:
            numbers = [at for at, text in enumerate(texts) if len(text) == width]
            if width > 2:  # No tokenizer takes more than a pair: what it sees is for the task to say.
                encoded = [[self.tokenizer(part)["input_ids"] for part in texts[at]] for at in numbers]
                counts = [sum(map(len, each)) for each in encoded]
            else:
                columns = [list(each) for each in zip(*(texts[at] for at in numbers), strict=True)]
                counts = [len(each) for each in self.tokenizer(*columns, verbose=False)["input_ids"]]
            for at, count in zip(numbers, counts, strict=True):
                sizes[at] = count
        return sizes


def candidates(task: Task) -> tuple[str, ...]:
    """The Auto classes that may have the task's network: those of its pipeline, or the task's own.

    Raises:
        UserError: a task that has no predictions.
    """
    if not task.pipeline:
        if type(task).answer is Task.answer:
            task.answer([], None, None, None)
        return (getattr(task, "auto_class", ""),)
    from transformers.pipelines import check_task

    return tuple(auto.__name__ for auto in check_task(task.pipeline)[1]["pt"])


def make(task: Task, loaded: Loaded, source: dict[str, Any], generation: Generation, device: torch.device) -> Predictor:
    """A predictor on a device.

    Args:
        loaded: the network; its ``described_by`` is where tokenizers and the like come from.
        source: revision and the like, for loading those.
        generation: how answers are written that are texts.

    Raises:
        UserError: something beside the network is missing: a file of the model, or a package.
    """
    loaded.network = network = place(loaded.network, device).eval()
    if not task.pipeline:
        return _own(task, loaded, source, generation)
    from transformers import Pipeline, pipeline
    from transformers.pipelines import check_task
    from transformers.pipelines import logging as news

    kind = _pipeline_class(check_task(task.pipeline)[1]["impl"])
    parts = _parts(loaded.described_by, {part: getattr(kind, f"_load_{part}", False) for part in PARTS}, source)
    tokenizer = parts.get("tokenizer") or getattr(parts.get("processor"), "tokenizer", None)
    notes = _equipped(task, tokenizer, network)
    pads = tokenizer is not None and _pads(tokenizer, network)
    if task.generates and kind._pipeline_calls_generate and network.can_generate():
        parts |= generation.arguments(network, tokenizer)
    news.set_verbosity(news.CRITICAL)  # It complains of networks with adapters, which it runs all the same.
    try:
        with loading(loaded.described_by), shown_whole(network) as place_of:
            made = pipeline(task.pipeline, model=network, device=place_of, **parts)
    except UserError as error:
        raise _explained(error) from error
    finally:
        news.set_verbosity_error()
    if getattr(made, "image_processor", None) is not None:
        # Only with torchvision is there a video processor, made of the same file; it takes other frames of a video.
        made.video_processor = None
    batches = task.batches and (tokenizer is None or pads)

    measures = made.tokenizer if not any(part in KINDS for part in task.inputs) else None
    most, means = limit(task, network, measures, generation)
    even = task.even and not _fixed(made.feature_extractor)
    uneven = even and getattr(task, "chunk_length_s", None) is not None  # The last piece of a recording is shorter.
    cut = task.truncating(most) if _truncates(task) and most < NO_LIMIT else None

    def call(rows: list[dict[str, Any]]) -> list[Any]:
        entries = [task.entry(row) for row in rows]
        size = len(entries) if batches and not uneven else 1
        # The pipelines' own calls unpack a list of one, each in its way; their common one does not.
        found: list[Any] = Pipeline.__call__(made, entries, batch_size=size, **task.arguments(rows[0]), **(cut or {}))
        return found

    rate = getattr(made.feature_extractor, "sampling_rate", None)
    return Predictor(task, call, measures, rate, most, means, cut is not None, even, notes)


def _own(task: Task, loaded: Loaded, source: dict[str, Any], generation: Generation) -> Predictor:
    """The task's own way, for what transformers has no pipeline for."""
    processor = loaded.processor
    if task.parts:
        processor = SimpleNamespace(**_parts(loaded.described_by, dict.fromkeys(task.parts, True), source))

    def call(rows: list[dict[str, Any]]) -> list[Any]:
        return task.answer(rows, loaded.network, processor, generation)

    tokenizer = processor if hasattr(processor, "model_max_length") else None
    bound = task.longest if isinstance(task, Trainable) and not task.splits_long else None
    longest = NO_LIMIT if bound is None else bound
    rate = getattr(getattr(processor, "feature_extractor", processor), "sampling_rate", None)
    means = f"task.max_length={longest}"
    notes = _equipped(task, processor, loaded.network)
    return Predictor(task, call, tokenizer, rate, longest, means, _truncates(task), task.even, notes)


def _equipped(task: Task, processor: Any, network: Any) -> list[str]:
    """Make a trainable task's processor fit for it, as in a training; gives what a person should know."""
    return task.equip(processor, network, adapted=True) if isinstance(task, Trainable) and processor is not None else []


def _truncates(task: Task) -> bool:
    return getattr(task, "overlong", None) == "truncate"


def _parts(path: str, flags: dict[str, bool | None], source: dict[str, Any]) -> dict[str, Any]:
    """What goes along with a network: what a flag of True names must be there, of None may be."""
    import transformers

    parts = {}
    for part, needed in flags.items():
        if needed is False:
            continue
        try:
            with loading(path):
                found = saved_processor(PARTS[part], path, **source)
        except UserError as error:
            if needed:
                raise _explained(error) from error
            continue
        if part != "processor" or isinstance(found, transformers.ProcessorMixin):  # It may give a mere tokenizer.
            parts[part] = found
        elif needed:
            raise UserError(f"model.path={path}: it has no processor that takes images or sounds together with texts")
    return parts


def _explained(error: UserError) -> UserError:
    """A missing package by the extra that brings it; anything else as it was said."""
    return media.lacking(error.__cause__) if isinstance(error.__cause__, ImportError) else error


def _pipeline_class(implementation: Any) -> Any:
    """The class that a pipeline's entry names."""
    from transformers.pipelines import _resolve_impl

    return _resolve_impl(implementation)


def _pads(tokenizer: Any, network: Any) -> bool:
    """Whether texts of unequal length can share a batch."""
    try:
        settle_pad(tokenizer, network.config)
    except UserError:
        return False
    return True


def _fixed(extractor: Any) -> bool:
    """Whether a feature extractor makes all sounds equally long, as Whisper's does."""
    if extractor is None:
        return False
    import numpy as np

    silence = np.zeros(extractor.sampling_rate, dtype=np.float32)
    shapes = [
        {name: value.shape for name, value in extractor(part, sampling_rate=extractor.sampling_rate,
                                                        return_tensors="np").items()}
        for part in (silence, silence[: len(silence) // 2])
    ]  # fmt: skip
    return shapes[0] == shapes[1]


def limit(task: Task, network: Any, tokenizer: Any, generation: Generation) -> tuple[int, str]:
    """Most tokens of an input, and what sets that."""
    if tokenizer is None or task.splits_long:
        return NO_LIMIT, ""
    bounds = [tokenizer.model_max_length or NO_LIMIT, positions(network.config.get_text_config()) or NO_LIMIT]
    if not task.generates or min(bounds) >= NO_LIMIT or network.config.is_encoder_decoder:
        return min(bounds), f"the model takes {min(bounds)}"
    room = min(bounds) - generation.max_new_tokens
    return room, f"the model takes {min(bounds)}, generation.max_new_tokens={generation.max_new_tokens} leaves {room}"
