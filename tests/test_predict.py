"""Predictions: for every task, what transformers' own pipeline gives on the same folder, or the network by hand."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from models import build
from PIL import Image

from xp.commands.predict import predict
from xp.config import compose
from xp.report import Report
from xp.run import Run
from xp.task import Task
from xp.tracking.tracker import Untracked

TEXTS = ["the cat sat on the mat", "a dog", "is the red hen on a mat the cat saw", "what a saw"]
LABELS = ["cat", "red dog", "hen"]
TABLE = {"cat": ["red", "a", "the"], "how many": ["1", "2", "3"]}
RATE = 16000


@dataclass
class Case:
    """A task, its inputs, and what is told to the pipeline by hand."""

    kind: str
    inputs: Callable[[Path], list[Any]]
    task: str = ""
    overrides: tuple[str, ...] = ()
    told: dict[str, Any] = field(default_factory=dict)
    entry: Callable[[Any], Any] = lambda given: given
    twice: bool = True
    """Whether the pipeline takes a list of such inputs; several unpack a list of one, so it gets the input twice."""


def texts(folder: Path) -> list[Any]:
    return TEXTS


def images(folder: Path, number: int = 3, size: int = 32) -> list[str]:
    """Pictures of noise in blocks, none of them square, two of one size."""
    paths = []
    for at in range(number):
        noise = np.random.default_rng(at).integers(0, 256, (5 + at % 2, 6, 3), dtype=np.uint8)
        paths.append(str(folder / f"image{at}.png"))
        Image.fromarray(noise).resize((size + 8, size + 8 * (at % 2)), Image.Resampling.NEAREST).save(paths[-1])
    return paths


def sounds(folder: Path, number: int = 4) -> list[str]:
    """Tones of unequal length, two of one, at the rate that the models take."""
    import soundfile

    paths = []
    for at in range(number):
        time = np.arange(2000 + 900 * (at % 3)) / RATE
        paths.append(str(folder / f"sound{at}.wav"))
        soundfile.write(paths[-1], np.sin(time * 2000 * (at + 1)) * 0.5, RATE, subtype="FLOAT")
    return paths


def videos(folder: Path) -> list[str]:
    import av

    paths = []
    for at in range(2):
        paths.append(str(folder / f"video{at}.mp4"))
        with av.open(paths[-1], "w") as container:
            stream = container.add_stream("mpeg4", rate=8)
            stream.width, stream.height, stream.pix_fmt = 48, 32, "yuv420p"
            for frame in np.random.default_rng(at).integers(0, 256, (8, 32, 48, 3), dtype=np.uint8):
                container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
            container.mux(stream.encode())
    return paths


def samples(path: str) -> np.ndarray:
    import soundfile

    return soundfile.read(path, dtype="float32")[0]


def beside(part: str, *values: str) -> Callable[[Path], list[Any]]:
    """Each image with another part."""
    return lambda folder: [{"image": path, part: value} for path, value in zip(images(folder), values, strict=False)]


GREEDY = {"max_new_tokens": 8, "do_sample": False, "num_beams": 1}
SHORT = ("generation.max_new_tokens=8",)
WORD_BOXES = [["the", [10, 10, 40, 20]], ["red", [50, 10, 90, 20]], ["hen", [10, 30, 40, 40]]]
QUESTIONS = {"what": {"type": "choice", "instructions": "what is it", "criteria": {"cat": None, "dog": "red"}}}

LOW = ("threshold=0.0", "mask_threshold=0.1", "overlap_mask_area_threshold=0.0")
"""So low that a network with random weights finds something."""


def said(*settings: str) -> dict[str, float]:
    return {name: float(value) for name, _, value in (setting.partition("=") for setting in settings)}


CASES = {
    "text_classification": Case("text_classification", texts),
    "text_classification of pairs": Case(
        "text_classification", lambda folder: [{"text": text, "text_pair": "a red mat"} for text in TEXTS]
    ),
    "text_classification, all classes": Case(
        "text_classification", texts, overrides=("task.prediction.top_k=all",), told={"top_k": None}
    ),
    "token_classification": Case("token_classification", texts, told={"aggregation_strategy": "simple"}),
    "masked_lm": Case("masked_lm", lambda folder: [f"{text} [MASK]" for text in TEXTS]),
    "masked_lm, some words": Case(
        "masked_lm",
        lambda folder: [f"{text} [MASK]" for text in TEXTS],
        overrides=("task.prediction.targets=[cat,hen]", "task.prediction.top_k=2"),
        told={"top_k": 2, "targets": ["cat", "hen"]},
    ),
    "causal_lm": Case("causal_lm", texts, overrides=SHORT, told=GREEDY),
    "causal_lm on chats": Case(
        "causal_lm",
        lambda folder: [[{"role": "user", "content": text}] for text in TEXTS],
        overrides=(*SHORT, "task.prediction.return_full_text=false"),
        told=GREEDY | {"return_full_text": False},
    ),
    "causal_lm without a padding token": Case("no_padding_token", texts, "causal_lm", SHORT, GREEDY),
    "chat": Case(
        "causal_lm",
        lambda folder: [[{"role": "user", "content": text}, {"role": "assistant", "content": "hm"},
                         {"role": "user", "content": "go on"}] for text in TEXTS],
        "chat", SHORT, GREEDY | {"return_full_text": False},
    ),
    "chat from a text": Case(
        "causal_lm", texts, "chat", SHORT, GREEDY | {"return_full_text": False},
        entry=lambda given: [{"role": "user", "content": given}],
    ),
    "feature_extraction": Case("feature_extraction", texts, told={"return_tensors": True}),
    "zero_shot_classification": Case(
        "zero_shot_classification", texts, overrides=("task.candidate_labels=[cat,red dog,hen]",),
        told={"candidate_labels": LABELS},
    ),
    "zero_shot_classification, several right": Case(
        "zero_shot_classification", texts,
        overrides=("task.candidate_labels=[cat,hen]", "task.multi_label=true", "task.hypothesis_template=what {}"),
        told={"candidate_labels": ["cat", "hen"], "multi_label": True, "hypothesis_template": "what {}"},
    ),
    "table_question_answering": Case(
        "table_question_answering",
        lambda folder: [{"query": text, "table": TABLE} for text in ("how many", "what is the cat")],
    ),
    "decision": Case("decision", lambda folder: [{"state": text, "questions": QUESTIONS} for text in TEXTS]),
    "text_to_audio": Case("text_to_audio", texts),
    "automatic_speech_recognition": Case("automatic_speech_recognition", sounds, entry=samples),
    "automatic_speech_recognition in pieces": Case(
        "automatic_speech_recognition", sounds, entry=samples,
        overrides=("task.chunk_length_s=0.1", "task.return_timestamps=char"),
        told={"chunk_length_s": 0.1, "return_timestamps": "char"},
    ),
    "automatic_speech_recognition by Whisper": Case(
        "whisper", sounds, "automatic_speech_recognition", entry=samples,
        overrides=("task.max_new_tokens=8", "task.num_beams=1"), told={"max_new_tokens": 8, "num_beams": 1},
    ),
    "audio_classification": Case("audio_classification", sounds, entry=samples),
    "zero_shot_audio_classification": Case(
        "zero_shot_audio_classification", sounds, entry=samples,
        overrides=("task.candidate_labels=[cat,red dog,hen]",), told={"candidate_labels": LABELS},
    ),
    "image_classification": Case("image_classification", images),
    "image_feature_extraction": Case("image_feature_extraction", images, told={"return_tensors": True}),
    "image_feature_extraction, pooled": Case(
        "image_feature_extraction", images, overrides=("task.pool=true",), told={"return_tensors": True, "pool": True}
    ),
    "image_segmentation": Case("image_segmentation", images),
    "image_segmentation, panoptic": Case(
        "panoptic_segmentation", images, "image_segmentation", tuple(f"task.{each}" for each in LOW), said(*LOW)
    ),
    "image_segmentation by a class that no Auto class has": Case(
        "universal_segmentation", images, "image_segmentation", tuple(f"task.{each}" for each in LOW), said(*LOW)
    ),
    "object_detection": Case("object_detection", images, overrides=("task.threshold=0.1",), told={"threshold": 0.1}),
    "depth_estimation": Case("depth_estimation", images),
    "video_classification": Case("video_classification", videos),
    "mask_generation": Case(
        "mask_generation", lambda folder: images(folder, 2),
        overrides=("task.points_per_crop=4", "task.pred_iou_thresh=0.0", "task.stability_score_thresh=0.0"),
        told={"points_per_crop": 4, "pred_iou_thresh": 0.0, "stability_score_thresh": 0.0},
    ),
    "keypoint_matching": Case(
        "keypoint_matching",
        lambda folder: [{"image": one, "other_image": two} for one, two in pairwise(images(folder))],
        entry=lambda given: [given["image"], given["other_image"]],
    ),
    "zero_shot_image_classification": Case(
        "zero_shot_image_classification", images, overrides=("task.candidate_labels=[cat,red dog,hen]",),
        told={"candidate_labels": LABELS},
    ),
    "zero_shot_object_detection": Case(
        "zero_shot_object_detection", beside("candidate_labels", "cat, hen", "dog"), overrides=("task.threshold=0.0",),
        told={"threshold": 0.0},
        entry=lambda given: given | {"candidate_labels": given["candidate_labels"].split(", ")},
    ),
    "document_question_answering": Case(
        "document_question_answering",
        lambda folder: [{"image": path, "question": "what is", "word_boxes": WORD_BOXES} for path in images(folder)],
    ),
    "image_text_to_text": Case(
        "image_text_to_text", beside("text", "<image> what is", "<image> how many dog"), overrides=SHORT,
        told={"generate_kwargs": GREEDY}, entry=lambda given: {"images": given["image"], "text": given["text"]},
        twice=False,
    ),
    "any_to_any": Case(
        "any_to_any", lambda folder: [{"text": "<|audio_bos|><|AUDIO|><|audio_eos|> what is", "audio": path}
                                      for path in sounds(folder, 2)],
        overrides=SHORT, told={"generate_kwargs": GREEDY},
        entry=lambda given: given | {"audio": samples(given["audio"])},
    ),
    "any_to_any on chats": Case(
        "any_to_any",
        lambda folder: [[{"role": "user", "content": [{"type": "text", "text": text}]}] for text in TEXTS],
        "any_to_any", SHORT, {"generate_kwargs": GREEDY},
    ),
}  # fmt: skip


def asked(task: str, model: str, inputs: Any, *overrides: str) -> Run:
    """A run that predicts, composed as from the command line."""
    compose.initialize(None)
    chosen = ["command=predict", "model=pretrained", f"model.path={model}", "precision=fp32", f"task={task}"]
    values = compose.values([*chosen, *overrides])
    return Run.parse(values | {"inputs": inputs})


def predicted(folder: Path, run: Run) -> list[dict[str, Any]]:
    """The lines of ``predictions.jsonl``, of a run in ``folder``."""
    folder.mkdir(exist_ok=True)
    predict(run, folder, Untracked(), Report())
    return [json.loads(line) for line in (folder / "predictions.jsonl").read_text().splitlines()]


def assert_same(got: Any, wanted: Any, folder: Path) -> None:
    """What was written is what was wanted; arrays, images and sounds are in files beside it."""
    if isinstance(wanted, dict):
        assert isinstance(got, dict)
        assert sorted(got) == sorted(map(str, wanted))
        for name, value in wanted.items():
            assert_same(got[str(name)], value, folder)
    elif isinstance(wanted, (list, tuple)):
        assert len(got) == len(wanted)
        for one, other in zip(got, wanted, strict=True):
            assert_same(one, other, folder)
    elif isinstance(wanted, (torch.Tensor, np.ndarray, Image.Image)):
        found, wanted = read(got, folder), np.asarray(wanted)
        wanted = wanted * 255 if wanted.dtype == bool else wanted
        np.testing.assert_allclose(found, wanted.reshape(found.shape), rtol=1e-3, atol=1e-4)
    elif isinstance(wanted, (float, np.floating)):
        assert got == pytest.approx(float(wanted), rel=1e-3, abs=1e-5)
    else:
        assert got == wanted


def read(got: Any, folder: Path) -> np.ndarray:
    if not isinstance(got, str):
        return np.asarray(got)
    if got.endswith(".npy"):
        return np.load(folder / got)
    if got.endswith(".wav"):
        return samples(str(folder / got))
    return np.asarray(Image.open(folder / got))


def reference(task: str, model: str) -> Any:
    """transformers' own pipeline, made to read images with Pillow as xp does, whatever is installed."""
    from transformers import AutoImageProcessor, pipeline

    made = pipeline(Task.find(task).pipeline, model=model, device="cpu", dtype=torch.float32)
    if made.image_processor is not None:
        made.image_processor, made.video_processor = AutoImageProcessor.from_pretrained(model, backend="pil"), None
        if made.processor is not None:
            made.processor.image_processor = made.image_processor
    return made


@pytest.mark.parametrize("name", CASES)
def test_predictions_are_those_of_the_pipeline(name: str, tmp_path: Path) -> None:
    if name == "mask_generation":  # Its masks go through torchvision's non-maximum suppression, on any architecture.
        pytest.importorskip("torchvision", reason="needs torchvision (of the same build as torch, CPU or CUDA)")
    case = CASES[name]
    task = case.task or case.kind
    model = build(case.kind, tmp_path / "model")
    inputs = case.inputs(tmp_path)
    run = asked(task, model, inputs, "prediction.batch_size=3", *case.overrides)
    lines = predicted(tmp_path / "run", run)
    made = reference(task, model)
    assert [line["position"] for line in lines] == list(range(len(inputs)))
    assert any(len(line["output"]) for line in lines), "there is nothing to compare"
    for line, given in zip(lines, inputs, strict=True):
        assert line["input"] == given
        entry = case.entry(given)
        wanted = made([entry, copy.deepcopy(entry)], **case.told)[0] if case.twice else made(**entry, **case.told)
        assert "error" not in line, line["error"]
        assert_same(line["output"], wanted, tmp_path / "run")


def test_every_pipeline_of_transformers_has_a_task_and_a_test() -> None:
    from transformers.pipelines import SUPPORTED_TASKS

    assert {kind.pipeline for kind in Task.all().values() if kind.pipeline} == set(SUPPORTED_TASKS)
    tested = {case.task or case.kind for case in CASES.values()}
    assert tested >= {name for name, kind in Task.all().items() if kind.pipeline}


def by_hand(model: str, auto: str, processor: str) -> tuple[Any, Any]:
    import transformers

    network = getattr(transformers, auto).from_pretrained(model, dtype=torch.float32).eval()
    if processor == "AutoImageProcessor":
        return network, transformers.AutoImageProcessor.from_pretrained(model, backend="pil")
    made = getattr(transformers, processor).from_pretrained(model)
    if processor == "AutoProcessor":
        made.image_processor = transformers.AutoImageProcessor.from_pretrained(model, backend="pil")
    return network, made


@pytest.mark.parametrize("batch_size", [1, 3])
def test_visual_question_answering_is_what_the_network_gives_by_hand(tmp_path: Path, batch_size: int) -> None:
    model = build("visual_question_answering", tmp_path / "model")
    inputs = beside("question", "what is red", "how many", "is the cat on the mat")(tmp_path)
    run = asked("visual_question_answering", model, inputs, f"prediction.batch_size={batch_size}", "task.top_k=2")
    network, processor = by_hand(model, "ViltForQuestionAnswering", "AutoProcessor")
    for line, given in zip(predicted(tmp_path / "run", run), inputs, strict=True):
        image = Image.open(given["image"]).convert("RGB")
        with torch.no_grad():
            logits = network(**processor(images=image, text=given["question"], return_tensors="pt")).logits[0]
        scores, ids = logits.sigmoid().topk(2)
        wanted = [
            {"score": score, "answer": network.config.id2label[at]}
            for score, at in zip(scores.tolist(), ids.tolist(), strict=True)
        ]
        assert_same(line["output"], wanted, tmp_path)


def test_visual_question_answering_by_a_model_that_writes(tmp_path: Path) -> None:
    model = build("written_answers", tmp_path / "model")
    inputs = beside("question", "what is red", "how many", "is the cat on the mat")(tmp_path)
    run = asked("visual_question_answering", model, inputs, *SHORT)
    network, processor = by_hand(model, "BlipForQuestionAnswering", "AutoProcessor")
    for line, given in zip(predicted(tmp_path / "run", run), inputs, strict=True):
        image = Image.open(given["image"]).convert("RGB")
        batch = processor(images=image, text=given["question"], return_tensors="pt")
        (wanted,) = processor.batch_decode(network.generate(**batch, **GREEDY), skip_special_tokens=True)
        assert line["output"] == [{"answer": wanted}]


def test_image_to_text_is_what_generate_gives_by_hand(tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    model = build("image_to_text", tmp_path / "model")
    inputs = images(tmp_path)
    network, processor = by_hand(model, "VisionEncoderDecoderModel", "AutoImageProcessor")
    for line, given in zip(
        predicted(tmp_path / "run", asked("image_to_text", model, inputs, *SHORT)), inputs, strict=True
    ):
        pixels = processor(images=Image.open(given).convert("RGB"), return_tensors="pt")
        (wanted,) = AutoTokenizer.from_pretrained(model).batch_decode(
            network.generate(**pixels, **GREEDY), skip_special_tokens=True
        )
        assert line["output"] == [{"generated_text": wanted.strip()}]
        assert wanted


@pytest.mark.parametrize("crop", [True, False])
def test_image_to_image_is_what_the_network_gives_by_hand(tmp_path: Path, crop: bool) -> None:
    model = build("image_to_image", tmp_path / "model")
    inputs = images(tmp_path)
    network, processor = by_hand(model, "Swin2SRForImageSuperResolution", "AutoImageProcessor")
    run = asked("image_to_image", model, inputs, f"task.crop={str(crop).lower()}")
    for line, given in zip(predicted(tmp_path / "run", run), inputs, strict=True):
        image = Image.open(given).convert("RGB")
        with torch.no_grad():
            made = network(**processor(images=image, return_tensors="pt")).reconstruction[0]
        wanted = (made.clamp(0, 1) * 255).round().byte().permute(1, 2, 0).numpy()
        wanted = wanted[: image.height * 2, : image.width * 2] if crop else wanted
        found = read(line["output"], tmp_path / "run")
        assert found.shape == wanted.shape
        assert np.abs(found.astype(int) - wanted.astype(int)).max() <= 1


@pytest.mark.parametrize("task", ["text2text_generation", "summarization", "translation"])
def test_text_to_text_is_what_generate_gives_by_hand(tmp_path: Path, task: str) -> None:
    model = build("text_to_text", tmp_path / "model")
    network, tokenizer = by_hand(model, "BartForConditionalGeneration", "AutoTokenizer")
    run = asked(task, model, TEXTS, *SHORT, "task.max_length=48", "prediction.batch_size=3")
    for line, text in zip(predicted(tmp_path / "run", run), TEXTS, strict=True):
        (wanted,) = network.generate(**tokenizer([text], return_tensors="pt", return_token_type_ids=False), **GREEDY)
        assert line["output"]["generated_text"] == tokenizer.decode(wanted, skip_special_tokens=True).strip()
        assert line["output"]["generated_text"]


def test_question_answering_is_the_best_span_of_the_logits_by_hand(tmp_path: Path) -> None:
    model = build("question_answering", tmp_path / "model")
    network, tokenizer = by_hand(model, "BertForQuestionAnswering", "AutoTokenizer")
    inputs = [{"question": "what is red", "context": text} for text in TEXTS]
    settings = ["task.no_answer_threshold=null", "task.max_length=48", "task.max_question_tokens=16", "task.stride=8"]
    run = asked("question_answering", model, inputs, *settings, "prediction.batch_size=3")
    for line, given in zip(predicted(tmp_path / "run", run), inputs, strict=True):
        batch = tokenizer(given["question"], given["context"], return_tensors="pt", return_offsets_mapping=True)
        places = batch.pop("offset_mapping")[0].tolist()
        with torch.no_grad():
            logits = network(**batch)
        own = [at for at, part in enumerate(batch.sequence_ids(0)) if part == 1]
        spans = [(first, last) for first in own for last in own if first <= last < first + 30]
        first, last = max(
            spans, key=lambda span: float(logits.start_logits[0, span[0]] + logits.end_logits[0, span[1]])
        )
        start, end = places[first][0], places[last][1]
        assert (line["output"]["start"], line["output"]["end"]) == (start, end)
        assert line["output"]["answer"] == given["context"][start:end]


def test_multiple_choice_is_the_largest_of_the_logits_by_hand(tmp_path: Path) -> None:
    model = build("multiple_choice", tmp_path / "model")
    network, tokenizer = by_hand(model, "BertForMultipleChoice", "AutoTokenizer")
    choices = [["a cat", "the red dog is"], ["hen", "saw", "mat"], ["is", "how many"], ["what", "a photo"]]
    inputs = [{"text": text, "choices": own} for text, own in zip(TEXTS, choices, strict=True)]
    for line, given in zip(predicted(tmp_path / "run", asked("multiple_choice", model, inputs)), inputs, strict=True):
        pairs = tokenizer([given["text"]] * len(given["choices"]), given["choices"], padding=True, return_tensors="pt")
        with torch.no_grad():
            logits = network(**{name: value[None] for name, value in pairs.items()}).logits[0]
        assert line["output"]["choice"] == int(logits.argmax())
        assert line["output"]["score"] == pytest.approx(float(logits.softmax(-1).max()), abs=1e-4)
