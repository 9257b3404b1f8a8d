"""Image classification: files become pixels, and what is wrong with one is said in a line."""

from __future__ import annotations

import io
import json
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import command, curve, from_yaml, journal
from datasets import ClassLabel, Dataset, Features, Image
from PIL import Image as Pillow

from xp.config import compose as composing
from xp.data.digits import Digits
from xp.error import UserError
from xp.launch import start
from xp.model.processor import load_processor, new_processor
from xp.run import Run
from xp.task.image_classification import ImageClassification, _changed, decoded
from xp.task.media import shown

Ran = Callable[..., dict[str, Any]]

SCRATCH = [
    "model=scratch_vit",
    "model.config.hidden_size=16",
    "model.config.intermediate_size=32",
    "model.config.num_hidden_layers=1",
]
DIGITS = [
    "data=digits",
    "data.train_rows=40",
    "data.eval_rows=20",
    "training=default",
    "training.epochs=null",
    "training.max_steps=6",
    "training.batch_size=8",
    "training.learning_rate=1e-2",
    "training.log_every=1",
    "precision=fp32",
    "tracking.log_model=false",
]
"""A run of a second: a tiny random model on a few digits."""


@pytest.fixture
def small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Ran:
    """Does a small run and gives its result, with the ``points`` of its journal."""
    monkeypatch.chdir(tmp_path)

    def ran(*overrides: str) -> dict[str, Any]:
        composing.initialize(None)
        model = [] if any(each.startswith("model=") for each in overrides) else SCRATCH
        result = start(Run.parse(composing.values([*DIGITS, *model, *overrides])))
        return result | {"points": journal(Path(result["folder"]))}

    return ran


def task(augment: str = "none") -> ImageClassification:
    return from_yaml(ImageClassification, augment=augment, metrics=["accuracy", "f1_macro"])


def png(pixels: Any, **options: Any) -> bytes:
    file = io.BytesIO()
    Pillow.fromarray(np.asarray(pixels, dtype=np.uint8)).save(file, "PNG", **options)
    return file.getvalue()


def rows(number: int = 12) -> Dataset:
    """Squares of 10 by 10 pixels, as bytes, dark or bright."""
    random = np.random.default_rng(0)
    made = [
        {
            "image": {"bytes": png(random.integers(0, 99, (10, 10, 3)) + 150 * (at % 2)), "path": f"{at}.png"},
            "label": at % 2,
        }
        for at in range(number)
    ]
    features = Features({"image": Image(decode=False), "label": ClassLabel(names=["dark", "bright"])})
    return Dataset.from_list(made, features=features)


def network(size: int = 8) -> tuple[Any, Any]:
    """A tiny vision transformer in evaluation mode, and its image processor."""
    import transformers

    torch.manual_seed(0)
    config = transformers.ViTConfig(
        image_size=size,
        patch_size=2,
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        **task().config(["dark", "bright"]),
    )
    made = transformers.AutoModelForImageClassification.from_config(config).eval()
    return made, new_processor("AutoImageProcessor", config, {})


def test_loss_is_the_models_own_times_the_rows() -> None:
    model, processor = network()
    encoded = task().encode(rows(), processor, ["dark", "bright"]).rows
    batch = task().collate([[row] for row in encoded], processor)
    assert batch["pixel_values"].shape == (12, 3, 8, 8)
    torch.testing.assert_close(task().loss(model, batch, 0.0), model(**batch).loss * 12)


def test_labels_follow_the_models_order() -> None:
    _, processor = network()
    assert task().label_names(rows()) == ["dark", "bright"]
    assert task().encode(rows(4), processor, ["bright", "dark"]).rows["label"][:] == [1, 0, 1, 0]
    with pytest.raises(UserError, match="'bright' is not one the model has. Did you mean 'brigth'"):
        task().encode(rows(), processor, ["brigth", "dark"])


def test_a_column_of_paths_gives_the_pixels_of_one_of_bytes(tmp_path: Path) -> None:
    _, processor = network()
    made = []
    for row in rows(3):
        (tmp_path / row["image"]["path"]).write_bytes(row["image"]["bytes"])
        made.append({"image": str(tmp_path / row["image"]["path"]), "label": ["dark", "bright"][row["label"]]})
    paths = Dataset.from_list(made)
    labels = task().label_names(paths)
    assert labels == ["bright", "dark"]
    batches = [
        task().collate([[row] for row in task().encode(data, processor, labels).rows], processor)
        for data in (paths, rows(3))
    ]
    for name in ("pixel_values", "labels"):
        torch.testing.assert_close(batches[0][name], batches[1][name], rtol=0, atol=0)


def test_encoding_decodes_and_copies_no_image(tmp_path: Path) -> None:
    rows(12).save_to_disk(tmp_path / "rows")
    stored = Dataset.load_from_disk(str(tmp_path / "rows"))
    _, processor = network()
    import pyarrow

    before = pyarrow.total_allocated_bytes()
    encoded = task().encode(stored, processor, ["dark", "bright"]).rows
    assert pyarrow.total_allocated_bytes() - before < len(stored[0]["image"]["bytes"]) * 12
    assert encoded.features["image"] == Image(decode=False)
    assert encoded[3]["image"] == stored[3]["image"]


def test_images_stand_upright_and_without_palette_or_alpha() -> None:
    """And equal what transformers' own pipelines make of them."""
    from transformers.image_utils import load_image

    pixels = np.random.default_rng(0).integers(0, 255, (6, 4, 3)).astype(np.uint8)
    sideways = Pillow.Exif()
    sideways[274] = 6
    palette = Pillow.fromarray(pixels).quantize(4)
    file = io.BytesIO()
    palette.save(file, "PNG", transparency=b"\x00\x80\xff\xff")
    alpha = np.dstack([pixels, np.full((6, 4), 7)])
    for content in (png(pixels), png(pixels, exif=sideways), file.getvalue(), png(alpha), png(pixels[..., 0])):
        image = decoded({"row": 0, "image": {"bytes": content, "path": None}})
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            theirs = load_image(Pillow.open(io.BytesIO(content)))
        assert image.mode == "RGB"
        assert (np.asarray(image) == np.asarray(theirs)).all()
    upright = decoded({"row": 0, "image": {"bytes": png(pixels, exif=sideways), "path": None}})
    assert upright.size == (6, 4)


@pytest.mark.parametrize(
    ("image", "said"),
    [
        (None, "image: is missing"),
        ({"bytes": None, "path": None}, "image: is missing"),
        ({"bytes": None, "path": "nowhere.png"}, "image: there is no such file"),
        ("nowhere.png", "image: there is no such file"),
        ({"bytes": b"no image at all", "path": "x.png"}, "image: cannot be read: cannot identify image file"),
        ({"bytes": png(np.zeros((9, 9)))[:-30], "path": "x.png"}, "image: cannot be read"),
        ({"bytes": b"", "path": "x.png"}, "image: cannot be read"),
        (7, "image: is a int, not a file"),
    ],
)
def test_an_image_that_cannot_be_used_says_why(image: Any, said: str) -> None:
    found = task().fault({"image": image, "label": "a"})
    assert found is not None
    assert found.startswith(said)


def test_images_of_16_bits_are_refused() -> None:
    """Pillow would make them white: it cuts at 255."""
    file = io.BytesIO()
    Pillow.fromarray(np.full((4, 4), 4096, dtype=np.uint16)).save(file, "PNG")
    assert "more than 8 bits" in str(task().fault({"image": {"bytes": file.getvalue(), "path": None}, "label": 0}))


def test_a_row_without_label_is_at_fault() -> None:
    good = {"bytes": png(np.zeros((9, 9))), "path": None}
    assert task().fault({"image": good, "label": None}) == "label: is missing"
    assert task().fault({"image": good, "label": 0}) is None


def test_what_only_decoding_tells_names_row_and_file() -> None:
    """A photograph that ends early has a whole header."""
    file = io.BytesIO()
    Pillow.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64, 3)).astype(np.uint8)).save(file, "JPEG")
    cut = {"bytes": file.getvalue()[:-1500], "path": "cut.jpg"}
    assert task().fault({"image": cut, "label": 0}) is None
    _, processor = network()
    data = Dataset.from_list([*rows(2), {"image": cut, "label": 0}], features=rows(1).features)
    encoded = task().encode(data, processor, ["dark", "bright"]).rows
    with pytest.raises(UserError, match=r"data: row 2 \(cut.jpg\): image: cannot be read: .*truncated"):
        task().collate([[row] for row in encoded], processor)


def test_a_broken_image_ends_a_run_in_one_line(small: Ran, monkeypatch: pytest.MonkeyPatch) -> None:
    """From a process that prepares batches, too."""
    read = Digits.read

    def broken(self: Digits, train: bool) -> Any:
        train_rows, eval_rows, source = read(self, train)
        assert train_rows is not None
        made = [row | {"image": {"bytes": b"broken", "path": "broken.png"}} for row in train_rows.select(range(8))]
        return Dataset.from_list(made, features=train_rows.features), eval_rows, source

    monkeypatch.setattr(Digits, "read", broken)
    for workers in (0, 1):
        with pytest.raises(UserError) as error:
            small(f"training.workers={workers}")
        assert "(broken.png): image: cannot be " in str(error.value)
        assert "\n" not in str(error.value)


def test_sizes_that_do_not_fit_are_told() -> None:
    model, processor = network()
    encoded = task().encode(rows(2), processor, ["dark", "bright"]).rows
    _, larger = network(16)
    batch = task().collate([[row] for row in encoded], larger)
    with pytest.raises(UserError, match="model.processor: its images do not fit the model"):
        task().loss(model, batch, 0.0)


def test_augmentation_is_of_training_alone_and_keeps_half_the_image(small: Ran) -> None:
    row = {"image": None, "label": 0}
    boxes = []
    for seed in range(200):
        varied = task("crop_flip").vary(row, np.random.default_rng(seed))
        assert varied == task("crop_flip").vary(row, np.random.default_rng(seed))
        left, top, right, bottom = varied["box"]
        assert 0 <= left < right <= 1
        assert 0 <= top < bottom <= 1
        boxes.append((right - left) * (bottom - top))
    assert 0.4 < min(boxes) < 0.6
    assert {task("flip").vary(row, np.random.default_rng(seed))["mirrored"] for seed in range(20)} == {True, False}
    assert task().vary(row, np.random.default_rng(0)) == row
    plain, flipped = (small(f"task.augment={each}", "training.learning_rate=1e-9") for each in ("none", "crop_flip"))
    assert plain["metrics"]["eval/loss"] == pytest.approx(flipped["metrics"]["eval/loss"], rel=1e-4)
    assert curve(plain["points"], "train/loss") != curve(flipped["points"], "train/loss")


def test_a_changed_image_is_cropped_and_mirrored() -> None:
    pixels = np.arange(64, dtype=np.uint8).reshape(8, 8)
    image = _changed(Pillow.fromarray(pixels), {"box": (0.25, 0.5, 1.0, 1.0), "mirrored": True})
    assert (np.asarray(image) == pixels[4:, 2:][:, ::-1]).all()
    dot = _changed(Pillow.fromarray(pixels[:1, :1]), {"box": (0.4, 0.4, 0.9, 0.9)})
    assert dot.size == (1, 1)


@pytest.mark.parametrize("peft", ["none", "lora"])
def test_parity(peft: str, small: Ran) -> None:
    """The three engines agree to the last bit, with dropout, augmentation and accumulation."""
    more = ["task.augment=crop_flip", "model.config.hidden_dropout_prob=0.2", f"peft={peft}"]
    more += ["training.micro_batch_size=3", "training.workers=1"]
    results = [small(*more, f"backend={name}") for name in ("torch", "accelerate", "hf")]
    curves = [curve(result["points"], "train/loss", "train/grad_norm", "train/padding") for result in results]
    assert curves[0] == curves[1] == curves[2]
    assert curves[0][0][1] != curves[0][-1][1]
    assert all(point[3] == 0 for point in curves[0])
    assert len({result["digest"] for result in results}) == 1


@pytest.mark.parametrize("peft", ["none", "lora"])
def test_the_saved_folder_scores_the_same_and_opens_in_plain_transformers(peft: str, small: Ran) -> None:
    trained = small(f"peft={peft}")
    again = small("command=evaluate", "model=pretrained", f"model.path={trained['model']}")
    assert again["metrics"] == pytest.approx(trained["metrics"], rel=1e-6)
    if peft == "lora":
        saved = json.loads((Path(trained["model"]) / "adapter_config.json").read_text())
        assert saved["modules_to_save"] == ["classifier"]
        return
    from transformers import pipeline

    digits = from_yaml(Digits, columns={}, eval_rows=20).load(["image", "label"], train=False).eval
    answers = pipeline(
        "image-classification",
        trained["model"],
        image_processor=load_processor("AutoImageProcessor", trained["model"], {}),
    )([Pillow.open(io.BytesIO(row["image"]["bytes"])) for row in digits])
    right = [answer[0]["label"] == str(row["label"]) for answer, row in zip(answers, digits, strict=True)]
    assert sum(right) / len(right) == pytest.approx(trained["metrics"]["eval/accuracy"])


def test_processors_are_pillows_and_take_options(tmp_path: Path) -> None:
    _, processor = network()
    processor.save_pretrained(tmp_path)
    assert type(processor).__name__ == "ViTImageProcessorPil"
    loaded = load_processor(
        "AutoImageProcessor", str(tmp_path), {"size": {"height": 4, "width": 6}, "do_normalize": False}
    )
    assert type(loaded).__name__ == "ViTImageProcessorPil"
    assert loaded(Pillow.new("RGB", (9, 9)), return_tensors="pt")["pixel_values"].shape == (1, 3, 4, 6)
    assert not loaded.do_normalize
    with pytest.raises(UserError, match="model.processor.do_normalise: .*Did you mean 'do_normalize'"):
        load_processor("AutoImageProcessor", str(tmp_path), {"do_normalise": False})


@pytest.mark.parametrize("type", ["resnet", "convnext", "swin", "deit", "mobilenet_v2"])
def test_new_processors_fit_their_architecture(type: str) -> None:
    import transformers

    config = transformers.AutoConfig.for_model(type)
    wanted = {"size": {"shortest_edge": 32}} if type == "resnet" else {}
    processor = new_processor("AutoImageProcessor", config, wanted)
    size = 32 if type == "resnet" else config.image_size
    assert processor(Pillow.new("RGB", (70, 50)), return_tensors="pt")["pixel_values"].shape == (1, 3, size, size)


def test_an_architecture_without_image_processor_is_told(small: Ran) -> None:
    with pytest.raises(UserError, match="model.type=bert: transformers has no ImageProcessor for it"):
        small("model=scratch_bert")


def test_findings_show_the_worst_images_and_name_them() -> None:
    _, processor = network()
    encoded = task().encode(rows(20), processor, ["dark", "bright"]).rows
    outcomes = {"loss": np.arange(20.0), "prediction": np.zeros(20, dtype=int)}
    found = task().findings(outcomes, encoded, ["dark", "bright"], processor)
    assert set(found.pictures) == {"confusion", "worst"}
    figure = found.pictures["worst"]()
    assert [axes.get_title() for axes in figure.axes][:2] == ["bright, taken for dark", "dark, unsure"]
    assert len(figure.axes) == 16
    first = figure.axes[0].images[0].get_array()
    assert (np.asarray(first) == np.asarray(decoded(encoded[19]))).all()


def test_worst_errors_are_found_by_file() -> None:
    _, processor = network()
    encoded = task().encode(rows(3), processor, ["dark", "bright"]).rows
    assert shown(encoded.select([2, 0]), "image") == {"file": ["2.png", "0.png"]}


def test_digits_are_real_whole_and_split_once() -> None:
    splits = from_yaml(Digits, columns={}, eval_rows=None).load(["image", "label"], train=True)
    assert splits.train is not None
    train, held_out = ({image["path"] for image in side["image"]} for side in (splits.train, splits.eval))
    assert (len(train), len(held_out), len(train | held_out)) == (1438, 359, 1797)
    assert all(task().fault(row) is None for row in splits.eval)


@pytest.mark.slow
def test_a_small_model_learns_digits(tmp_path: Path) -> None:
    ended = command("data=digits", "model=scratch_vit", folder=tmp_path)
    assert ended.returncode == 0, ended.stderr
    assert "warn" not in ended.stderr.lower()
    (file,) = tmp_path.glob("runs/*/result.json")
    result = json.loads(file.read_text())
    assert result["metrics"]["eval/accuracy"] > 0.85
    assert result["baseline"]["eval/accuracy"] < 0.15
