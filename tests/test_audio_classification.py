"""Audio classification: files become waves or spectrograms, and what is wrong with one is said in a line."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from conftest import command, curve, from_yaml, journal
from datasets import Dataset

from xp.config import compose as composing
from xp.data.tones import Tones
from xp.error import UserError
from xp.launch import start
from xp.model import Loaded
from xp.model.processor import new_processor
from xp.prepare import check_fit
from xp.process import world
from xp.run import Run
from xp.task.audio_classification import AudioClassification, decoded
from xp.task.media import shown

Ran = Callable[..., dict[str, Any]]

TONES = [
    "data=tones",
    "data.train_rows=40",
    "data.eval_rows=20",
    "training=default",
    "training.epochs=null",
    "training.max_steps=3",
    "task.max_seconds=0.3",
    "training.batch_size=8",
    "training.learning_rate=1e-2",
    "training.log_every=1",
    "precision=fp32",
    "tracking.log_model=false",
]
WAV2VEC2 = [
    "model=scratch_wav2vec2",
    "model.config.conv_dim=[16,16,16]",
    "model.config.hidden_size=16",
    "model.config.intermediate_size=32",
    "model.config.num_hidden_layers=1",
]
AST = ["model=scratch_ast", "model.config.hidden_size=16", "model.config.num_hidden_layers=1"]
"""Runs of a second or two: tiny random models on a few generated tones."""

WAVE = {
    "conv_dim": [16, 16],
    "conv_kernel": [10, 8],
    "conv_stride": [5, 8],
    "num_conv_pos_embeddings": 8,
    "num_conv_pos_embedding_groups": 2,
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
}
SPECTRUM = {
    "max_length": 48,
    "num_mel_bins": 32,
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
}
KINDS = {
    "group": ("wav2vec2", WAVE | {"feat_extract_norm": "group"}),
    "layer": ("wav2vec2", WAVE | {"feat_extract_norm": "layer"}),
    "hubert": ("hubert", WAVE),
    "wavlm": ("wavlm", WAVE),
    "ast": ("audio-spectrogram-transformer", SPECTRUM),
}


@pytest.fixture
def small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Ran:
    """Does a small run and gives its result, with the ``points`` of its journal."""
    monkeypatch.chdir(tmp_path)

    def ran(*overrides: str) -> dict[str, Any]:
        composing.initialize(None)
        result = start(Run.parse(composing.values([*TONES, *overrides])))
        return result | {"points": journal(Path(result["folder"]))}

    return ran


def task(max_seconds: float = 1.0, overlong: str = "truncate", unmasked: str = "apart") -> AudioClassification:
    return from_yaml(
        AudioClassification, max_seconds=max_seconds, overlong=overlong, unmasked=unmasked, metrics=["accuracy"]
    )


def sound(seconds: float, rate: int = 16_000, kind: str = "WAV", channels: int = 1, pitch: float = 440.0) -> bytes:
    wave = 0.5 * np.sin(2 * np.pi * pitch * np.arange(round(seconds * rate)) / rate)
    file = io.BytesIO()
    soundfile.write(file, np.repeat(wave[:, None], channels, 1), rate, format=kind)
    return file.getvalue()


def rows(lengths: tuple[float, ...] = (0.2, 0.3, 0.2, 0.25)) -> Dataset:
    return Dataset.from_list(
        [
            {"audio": {"bytes": sound(seconds, pitch=300 + 99 * at), "path": f"{at}.wav"}, "label": "ab"[at % 2]}
            for at, seconds in enumerate(lengths)
        ]
    )


def network(kind: str) -> tuple[Any, Any]:
    """A tiny network in evaluation mode, and its feature extractor."""
    import transformers

    torch.manual_seed(0)
    name, values = KINDS[kind]
    config = transformers.AutoConfig.for_model(name, **values, **task().config(["a", "b"]))
    made = transformers.AutoModelForAudioClassification.from_config(config).eval()
    return made, new_processor("AutoFeatureExtractor", config, {})


def batch_of(data: Dataset, processor: Any, asked: AudioClassification | None = None) -> dict[str, torch.Tensor]:
    asked = asked or task()
    return asked.collate([[row] for row in asked.encode(data, processor, ["a", "b"]).rows], processor)


@pytest.mark.parametrize("kind", KINDS)
def test_a_sound_counts_the_same_alone_and_among_longer_ones(kind: str) -> None:
    """And as the extractor and the model of plain transformers take it by itself."""
    model, processor = network(kind)
    data = rows()
    together = task()._logits(model, batch_of(data, processor))
    for at, row in enumerate(data):
        wave, rate = soundfile.read(io.BytesIO(row["audio"]["bytes"]), dtype="float32")
        with torch.no_grad():
            own = model(**processor(wave, sampling_rate=rate, return_tensors="pt")).logits[0]
        torch.testing.assert_close(together[at], own, atol=1e-6, rtol=1e-5)
    assert (together[0] - together[1]).abs().max() > 1e-6


@pytest.mark.parametrize("kind", KINDS)
def test_loss_is_the_models_own_times_the_rows(kind: str) -> None:
    model, processor = network(kind)
    batch = batch_of(rows((0.2, 0.2, 0.2)), processor)
    torch.testing.assert_close(task().loss(model, batch, 0.0), model(**batch).loss * 3)


def test_padded_fills_up_to_max_seconds_and_asks_the_model_once() -> None:
    _, processor = network("group")
    batch = batch_of(rows(), processor, task(unmasked="padded"))
    assert batch["input_values"].shape == (4, 16_000)
    assert "samples" not in batch
    batch = batch_of(rows(), network("layer")[1], task(unmasked="padded"))
    assert batch["input_values"].shape == (4, 4800)


@pytest.mark.parametrize("kind", ["WAV", "FLAC", "OGG", "MP3"])
@pytest.mark.parametrize("rate", [8_000, 16_000, 44_100])
def test_formats_rates_and_channels_give_one_wave(kind: str, rate: int) -> None:
    content = sound(0.5, rate, kind, channels=2)
    wave = decoded({"row": 0, "audio": {"bytes": content, "path": None}}, 16_000, 1.0)
    assert wave.dtype == np.float32
    assert abs(len(wave) - 8000) <= (2000 if kind == "MP3" else 1)
    middle = wave[2000:6000]
    peak = np.abs(np.fft.rfft(middle * np.hanning(len(middle)))).argmax() * 16_000 / len(middle)
    assert abs(peak - 440) < 5
    assert 0.45 < np.abs(middle).max() < 0.55


def test_long_sounds_are_cut_to_their_beginning_dropped_or_refused_and_counted() -> None:
    _, processor = network("group")
    data = rows((0.2, 0.6, 0.7))
    cut = task(0.5).encode(data, processor, ["a", "b"])
    assert cut.notes == {"rows": 3, "truncated": 2}
    assert cut.rows["length"][:] == [3200, 8000, 8000]
    whole, _ = soundfile.read(io.BytesIO(data[1]["audio"]["bytes"]), dtype="float32")
    assert (decoded(cut.rows[1], 16_000, 0.5) == whole[:8000]).all()
    dropped = task(0.5, "drop").encode(data, processor, ["a", "b"])
    assert dropped.notes == {"rows": 3, "dropped": 2}
    assert dropped.rows["row"][:] == [0]
    with pytest.raises(UserError, match="2 of 3 sounds have more than task.max_seconds=0.5 seconds"):
        task(0.5, "error").encode(data, processor, ["a", "b"])


@pytest.mark.parametrize(
    ("audio", "said"),
    [
        (None, "audio: is missing"),
        ({"bytes": None, "path": None}, "audio: is missing"),
        ("nowhere.wav", "audio: there is no such file"),
        ({"bytes": b"no sound at all", "path": "x.wav"}, "audio: cannot be read: Format not recognised"),
        ({"bytes": b"", "path": "x.wav"}, "audio: cannot be read"),
        ({"bytes": sound(0.0), "path": "x.wav"}, "audio: is empty"),
    ],
)
def test_a_sound_that_cannot_be_used_says_why(audio: Any, said: str) -> None:
    found = task().fault({"audio": audio, "label": "a"})
    assert found is not None
    assert found.startswith(said)
    made = Dataset.from_list([rows()[0], {"audio": {"bytes": b"x", "path": "broken.wav"}, "label": "a"}])
    with pytest.raises(UserError, match=r"data: row 1 \(broken.wav\): audio: cannot be read"):
        task().encode(made, network("group")[1], ["a", "b"])


def test_a_row_without_label_is_at_fault() -> None:
    good = {"bytes": sound(0.1), "path": None}
    assert task().fault({"audio": good, "label": ""}) == "label: is missing"
    assert task().fault({"audio": good, "label": "a"}) is None


def test_samples_that_are_no_numbers_name_row_and_file() -> None:
    file = io.BytesIO()
    soundfile.write(file, np.full(100, np.nan), 16_000, format="WAV", subtype="FLOAT")
    row = {"row": 7, "audio": {"bytes": file.getvalue(), "path": "nan.wav"}}
    with pytest.raises(UserError, match=r"data: row 7 \(nan.wav\): audio: has samples that are no numbers"):
        decoded(row, 16_000, 1.0)


@pytest.mark.parametrize("kind", ["group", "layer"])
def test_sounds_that_are_too_short_for_the_model_are_told(kind: str) -> None:
    model, processor = network(kind)
    with pytest.raises(UserError, match="a sound is too short for this model"):
        task().loss(model, batch_of(rows((0.001, 0.001)), processor), 0.0)
    with pytest.raises(UserError, match="set model.config.mask_time_prob=0.0"):
        task().loss(model.train(), batch_of(rows((0.02, 0.02)), processor), 0.0)


@pytest.mark.parametrize("norm", ["group", "layer"])
def test_parity_with_masks_that_numpy_draws(norm: str, small: Ran) -> None:
    """The three engines agree to the last bit, with SpecAugment, layers left out, dropout and accumulation."""
    config = {"feat_extract_norm": norm, "mask_time_prob": 0.4, "layerdrop": 0.3, "hidden_dropout": 0.2}
    more = [*WAV2VEC2, *(f"model.config.{name}={value}" for name, value in config.items())]
    more += ["training.micro_batch_size=3"]
    results = [small(*more, f"backend={name}") for name in ("torch", "accelerate", "hf")]
    curves = [curve(result["points"], "train/loss", "train/grad_norm", "train/padding") for result in results]
    assert curves[0] == curves[1] == curves[2]
    assert len({result["digest"] for result in results}) == 1
    unmasked = small(*[each for each in more if "mask_time_prob" not in each], "model.config.mask_time_prob=0.0")
    assert curve(unmasked["points"], "train/loss") != curve(results[0]["points"], "train/loss")


def test_masks_do_not_depend_on_what_numpy_drew_before(small: Ran) -> None:
    first = small(*WAV2VEC2, "model.config.mask_time_prob=0.4")
    np.random.seed(5)
    np.random.random(3)
    assert small(*WAV2VEC2, "model.config.mask_time_prob=0.4")["digest"] == first["digest"]


EXACT = [
    *WAV2VEC2,
    "task.max_seconds=0.45",
    "training.learning_rate=1e-3",
    *(f"model.config.{each}=0.0" for each in ("mask_time_prob", "hidden_dropout", "attention_dropout")),
    *(f"model.config.{each}=0.0" for each in ("activation_dropout", "feat_proj_dropout", "final_dropout")),
]
"""Nothing random, and sounds of unequal length."""


def agree(first: dict[str, Any], second: dict[str, Any]) -> None:
    curves = [curve(result["points"], "train/loss", "train/grad_norm") for result in (first, second)]
    for (_, loss, norm), (_, other_loss, other_norm) in zip(*curves, strict=True):
        assert other_loss == pytest.approx(loss, rel=1e-5)
        assert other_norm == pytest.approx(norm, rel=1e-3)


@pytest.mark.parametrize("norm", ["group", "layer"])
def test_accumulation_changes_neither_loss_nor_gradient(norm: str, small: Ran) -> None:
    """With an attention mask (layer) and without (group)."""
    more = [*EXACT, f"model.config.feat_extract_norm={norm}"]
    agree(*(small(*more, f"training.micro_batch_size={size}") for size in (8, 1)))


def test_two_processes_give_the_curve_of_one_where_each_has_other_lengths(small: Ran) -> None:
    more = [*EXACT, "model.config.feat_extract_norm=group", "backend=accelerate"]
    agree(*(small(*more, f"backend.processes={number}") for number in (1, 2)))


@pytest.mark.parametrize("model", [WAV2VEC2, AST], ids=["wav2vec2", "ast"])
@pytest.mark.parametrize("peft", ["none", "lora"])
def test_the_saved_folder_scores_the_same_and_opens_in_plain_transformers(
    peft: str, model: list[str], small: Ran
) -> None:
    trained = small(*model, f"peft={peft}")
    again = small("command=evaluate", "model=pretrained", f"model.path={trained['model']}")
    assert again["metrics"] == pytest.approx(trained["metrics"], rel=1e-6)
    if peft == "lora":
        saved = json.loads((Path(trained["model"]) / "adapter_config.json").read_text())
        assert any(name.startswith("classifier") for name in saved["modules_to_save"])
        return
    from transformers import pipeline

    held_out = from_yaml(Tones, columns={}, eval_rows=20).load(["audio", "label"], train=False).eval
    waves = [soundfile.read(io.BytesIO(row["audio"]["bytes"]), dtype="float32")[0] for row in held_out]
    answers = pipeline("audio-classification", trained["model"])(waves)
    names = held_out.features["label"].names
    right = [answer[0]["label"] == names[row["label"]] for answer, row in zip(answers, held_out, strict=True)]
    assert sum(right) / len(right) == pytest.approx(trained["metrics"]["eval/accuracy"])


def test_layers_left_out_at_random_are_refused_in_several_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    model, processor = network("group")
    assert model.config.layerdrop > 0
    check_fit(task(), Loaded(model, processor, ["a", "b"]))
    monkeypatch.setattr(world, "size", lambda: 2)
    with pytest.raises(UserError, match="set model.config.layerdrop=0.0"):
        check_fit(task(), Loaded(model, processor, ["a", "b"]))


@pytest.mark.parametrize("type", ["whisper", "wav2vec2-bert"])
def test_new_feature_extractors_fit_their_architecture(type: str) -> None:
    import transformers

    values = {
        "whisper": {"d_model": 16, "encoder_layers": 1, "encoder_attention_heads": 2, "encoder_ffn_dim": 16,
                    "max_source_positions": 100, "decoder_layers": 1, "decoder_attention_heads": 2},
        "wav2vec2-bert": {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16},
    }[type]  # fmt: skip
    config = transformers.AutoConfig.for_model(type, **values, **task().config(["a", "b"]))
    model = transformers.AutoModelForAudioClassification.from_config(config).eval()
    processor = new_processor("AutoFeatureExtractor", config, {})
    logits = task()._logits(model, batch_of(rows(), processor))
    alone = task()._logits(model, batch_of(rows().select([0]), processor))
    torch.testing.assert_close(logits[:1], alone, atol=1e-6, rtol=1e-5)


def test_findings_name_the_sounds() -> None:
    _, processor = network("ast")
    encoded = task().encode(rows(), processor, ["a", "b"]).rows
    assert shown(encoded, "audio") == {"file": ["0.wav", "1.wav", "2.wav", "3.wav"]}
    outcomes = {"loss": np.arange(4.0), "prediction": np.zeros(4, dtype=int)}
    found = task().findings(outcomes, encoded, ["a", "b"], processor)
    assert set(found.tables) == {"classes", "worst"}
    assert set(found.pictures) == {"confusion"}


def test_tones_are_the_same_every_time_and_of_all_kinds() -> None:
    first, again = (from_yaml(Tones, columns={}, eval_rows=None).read(True) for _ in range(2))
    assert first[1] is not None
    assert again[1] is not None
    assert first[1][5] == again[1][5]
    assert set(first[1]["label"]) == set(range(6))
    assert all(task().fault(row) is None for row in first[1].select(range(50)))
    assert first[1].features["label"].names == sorted(first[1].features["label"].names)


@pytest.mark.slow
@pytest.mark.parametrize(("model", "least"), [("scratch_ast", 0.9), ("scratch_wav2vec2", 0.5)])
def test_a_small_model_learns_tones(model: str, least: float, tmp_path: Path) -> None:
    ended = command("data=tones", f"model={model}", folder=tmp_path)
    assert ended.returncode == 0, ended.stderr
    assert "warn" not in ended.stderr.lower()
    (file,) = tmp_path.glob("runs/*/result.json")
    result = json.loads(file.read_text())
    assert result["metrics"]["eval/accuracy"] > least
    assert result["baseline"]["eval/accuracy"] < 0.25
