"""Inputs: texts, lists, files, folders and patterns, as rows with the parts that a task takes."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from xp.config import compose
from xp.error import UserError
from xp.prediction import media
from xp.prediction.inputs import read
from xp.run import Run
from xp.task import Task


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    compose.initialize(None)


def task(name: str, *overrides: str) -> Task:
    return Run.parse(compose.values([f"task={name}", "command=predict", "inputs=x", *overrides])).task


def rows(inputs: Any, name: str = "text_classification", *overrides: str, **columns: str) -> list[dict[str, Any]]:
    items = read(inputs, task(name, *overrides), columns)
    assert [item.position for item in items] == list(range(len(items)))
    assert [item.error for item in items] == [""] * len(items)
    return [item.row for item in items]


def errors(inputs: Any, name: str = "text_classification", *overrides: str, **columns: str) -> list[str]:
    return [item.error for item in read(inputs, task(name, *overrides), columns)]


TYPED = [
    "What a film, really!",
    "it's = 1: {x} [y]",
    "${oc.env:HOME} \\${x} \\\\${y}",
    "a\\'b\\\\",
    "42",
    "true",
    "null-ish",
    "x # y",
    "two\nlines",
    "'a' and 'b'",
    "[MASK] is, well, it",
    "ü é 漢字 🎬",
    "  spaces  ",
    "key=value=again",
    "~x",
    "\\",
    "${",
]


@pytest.mark.parametrize("text", TYPED)
def test_a_text_is_taken_as_it_is_typed(text: str) -> None:
    assert compose.values(["command=predict", f"inputs={text}"])["inputs"] == text


@pytest.mark.parametrize(
    ("typed", "value"),
    [
        ('["a","b, c"]', ["a", "b, c"]),
        ("[a,b]", ["a", "b"]),
        ('{text: "x", text_pair: y}', {"text": "x", "text_pair": "y"}),
        ('"in quotes, too"', "in quotes, too"),
        ('["costs ${x}"]', ["costs ${x}"]),
        ('[{role: user, content: "hi, there"}]', [{"role": "user", "content": "hi, there"}]),
    ],
)
def test_lists_mappings_and_quoted_texts_are_hydras(typed: str, value: Any) -> None:
    assert compose.values(["command=predict", f"inputs={typed}"])["inputs"] == value


def test_a_list_that_does_not_parse_is_refused_not_taken_for_a_text() -> None:
    with pytest.raises(UserError, match="does not parse"):
        compose.values(["command=predict", 'inputs=["a", "b]'])


def test_a_template_is_taken_as_it_is_typed() -> None:
    given = task("zero_shot_classification", "task.hypothesis_template=This, it's about {}.")
    assert given.hypothesis_template == "This, it's about {}."  # type: ignore[attr-defined]


def test_a_text_and_a_list() -> None:
    assert rows("and/or this, is fine") == [{"text": "and/or this, is fine"}]
    assert rows(["a", {"text": "b", "text_pair": "c"}]) == [{"text": "a"}, {"text": "b", "text_pair": "c"}]
    assert rows(["missing.txt"]) == [{"text": "missing.txt"}]


def test_a_chat_is_one_input_and_chats_are_several() -> None:
    chat = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "ho"}]
    assert rows(chat, "causal_lm") == [{"text": chat}]
    assert rows([chat, chat[:1]], "causal_lm") == [{"text": chat}, {"text": chat[:1]}]


def test_a_file_of_lines() -> None:
    Path("texts.txt").write_text("one\ntwo, and more\n\nfour\n")
    items = read("texts.txt", task("text_classification"), {})
    assert [item.row.get("text") for item in items] == ["one", "two, and more", "", "four"]
    assert [item.error for item in items] == ["", "", "text: is empty", ""]
    assert items[3].place == "texts.txt:4"


def test_tables_with_columns_named_and_not() -> None:
    Path("one.csv").write_text('review\n"good, very"\nbad\n')
    Path("two.tsv").write_text('id\treview\n1\tsays "hi"\n2\tbad\n')
    assert rows("one.csv") == [{"text": "good, very"}, {"text": "bad"}]
    assert rows("two.tsv", text="review") == [{"text": 'says "hi"'}, {"text": "bad"}]
    assert errors("two.tsv") == ["text: there is no 'text', only id, review; set data.columns.text=<its name>"] * 2


def test_a_line_that_is_not_utf_8_does_not_lose_the_others() -> None:
    Path("a.txt").write_bytes(b"one\ncaf\xe9\nthree\n")
    Path("a.csv").write_bytes(b"text\none\ncaf\xe9\n" + b"x" * 200_000 + b"\n")
    Path("a.jsonl").write_bytes(b'"one"\n"caf\xe9"\n"three"\n')
    for name in ("a.txt", "a.csv", "a.jsonl"):
        assert errors(name) == ["", "this line is not UTF-8", ""]


def test_json_and_json_lines() -> None:
    Path("a.jsonl").write_text('{"text": "x"}\n"y"\n{"text": 3}\n{broken\n')
    Path("b.json").write_text(json.dumps([{"text": "x", "label": 1}, "y"]))
    found = errors("a.jsonl")
    assert found[:2] == ["", ""]
    assert found[2] == "text: 3 is no text"
    assert found[3].startswith("this line is no json")
    assert rows("b.json") == [{"text": "x"}, {"text": "y"}]


def test_null_is_empty_and_not_lacking() -> None:
    assert errors([{"text": None}, {"text": None, "id": 1}, {"code": None}, {"text": "x"}]) == [
        "text: is empty"
    ] * 3 + [""]
    assert errors([{"review": None, "id": 1}], text="review") == ["text: is empty"]
    lacking = "context: there is no 'context', only question; set data.columns.context=<its name>"
    assert errors([{"question": "why"}], "question_answering") == [lacking]
    assert errors([{"context": None, "question": "why"}], "question_answering") == ["context: is empty"]


def test_a_row_of_another_width_is_bad_and_alone() -> None:
    Path("odd.csv").write_text("text,label\na,1\nb\nc,2\n")
    assert errors("odd.csv") == ["", "this line has 1 fields, the header line has 2", ""]


def test_settings_stand_in_for_parts_that_rows_lack() -> None:
    labelled = ("task.candidate_labels=[x,y]",)
    assert rows("t", "zero_shot_classification", *labelled) == [{"text": "t", "candidate_labels": ["x", "y"]}]
    own = {"text": "t", "candidate_labels": "a, b c"}
    assert rows([own], "zero_shot_classification", *labelled) == [{"text": "t", "candidate_labels": ["a", "b c"]}]
    assert errors("t", "zero_shot_classification") == [
        "candidate_labels: is missing; set task.candidate_labels, or give each input its own"
    ]


def test_images_folders_and_patterns() -> None:
    Path("photos").mkdir()
    for name in ("b.png", "a.jpg"):
        Image.new("RGB", (4, 4)).save(f"photos/{name}")
    Path("photos/notes.md").write_text("x")
    both = [{"image": "photos/a.jpg"}, {"image": "photos/b.png"}]
    assert rows("photos", "object_detection") == both
    assert rows("photos/*.[jp]*", "object_detection") == both
    assert rows("photos/b.png", "object_detection") == both[1:]
    assert rows(["photos/b.png"], "object_detection") == both[1:]


def test_other_files_of_a_folder_are_told_of(capsys: pytest.CaptureFixture[str]) -> None:
    Path("photos").mkdir()
    Image.new("RGB", (4, 4)).save("photos/a.png")
    Path("photos/notes.md").write_text("x")
    read("photos", task("object_detection"), {})
    assert "1 files of other kinds are left alone" in capsys.readouterr().out


def test_a_link_to_nothing_is_told_and_left_alone(capsys: pytest.CaptureFixture[str]) -> None:
    Path("texts").mkdir()
    Path("texts/a.txt").write_text("a cat")
    Path("texts/b.txt").symlink_to("nowhere")
    assert rows("texts") == [{"text": "a cat"}]
    assert capsys.readouterr().out == "inputs=texts: b.txt is a link to nothing, and left alone\n"


def test_paths_in_a_table_may_be_seen_from_the_table() -> None:
    Path("set").mkdir()
    Image.new("RGB", (4, 4)).save("set/a.png")
    Path("set/questions.csv").write_text("image,question\na.png,what?\nb.png,why?\n")
    items = read("set/questions.csv", task("visual_question_answering"), {})
    assert items[0].row == {"image": "set/a.png", "question": "what?"}
    assert items[1].error == "image: there is no file b.png"


@pytest.mark.parametrize(
    ("inputs", "name", "message"),
    [
        ("reviws.txt", "text_classification", "inputs=reviws.txt: no such file. Did you mean 'reviews.txt'?"),
        ("nowhere/a.csv", "text_classification", "There is no folder nowhere either"),
        ("and/or", "text_classification", "A text that looks like a file is given in a list: inputs='[\"and/or\"]'"),
        ("*.tsv", "text_classification", "inputs=*.tsv: no file has such a name"),
        ("empty.txt", "text_classification", "there is nothing in it; give a text, a list, or a file"),
        ([], "text_classification", "there is nothing in it; give a text, a list, or a file"),
        (None, "text_classification", "inputs has no value"),
        ("broken.json", "text_classification", "inputs=broken.json: cannot be read as json"),
        ("binary.csv", "text_classification", "inputs=binary.csv: cannot be read as csv"),
        ("folder", "text_classification", "the folder has no file that ends in .txt"),
        ("a.png", "text_classification", "task=text_classification takes a text, or a pair of texts, from .txt"),
    ],
)
def test_what_cannot_be_read_is_refused_with_the_next_step(inputs: Any, name: str, message: str) -> None:
    Path("reviews.txt").write_text("x\n")
    Path("empty.txt").write_text("")
    Path("broken.json").write_text("{")
    Path("binary.csv").write_bytes(b"te\xff\xfe\x00\nlovely\n")
    Path("folder").mkdir()
    Path("a.png").write_bytes(b"")
    with pytest.raises(UserError) as caught:
        read(inputs, task(name), {})
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("inputs", "command", "message"),
    [
        ("[]", "generate", "inputs=[]: there is nothing in it; give a text, a list, or a file"),
        ("", "generate", 'inputs="": text: is empty; give a text to go on from, or a conversation'),
        ('["", 3]', "predict", 'inputs=["", 3]: text: is empty; give a text, or a pair of texts'),
        ('[{"role": "usr", "content": "x"}]', "generate", "there is no role 'usr'. Did you mean 'user'?"),
    ],
)
def test_inputs_that_cannot_be_used_are_told_before_anything_is_imported(
    inputs: str, command: str, message: str, compose: Callable[..., Any]
) -> None:
    with pytest.raises(UserError) as caught:
        compose(f"command={command}", f"inputs={inputs}").check_files()
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
    compose(f"command={command}", 'inputs=["", "x"]').check_files()


def test_an_image_is_turned_upright_and_has_three_channels() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("L", (4, 2), 128).save("turned.jpg", exif=exif)
    found = media.image("turned.jpg")
    assert (found.size, found.mode) == ((2, 4), "RGB")


def test_a_sound_is_mixed_to_one_channel_and_to_the_models_rate() -> None:
    import numpy as np
    import soundfile

    time = np.arange(8000) / 8000
    tone = np.sin(2 * np.pi * 440 * time)
    soundfile.write("tone.wav", np.stack([tone, np.zeros_like(tone)], 1), 8000, subtype="FLOAT")
    found = media.audio("tone.wav", 16000)
    wanted = np.sin(2 * np.pi * 440 * np.arange(16000) / 16000) / 2
    assert found.dtype == np.float32
    assert found.shape == (16000,)
    np.testing.assert_allclose(found[500:-500], wanted[500:-500], atol=2e-3)
    assert media.size({"audio": "tone.wav"}, 16000) == 16000


def test_files_that_are_no_image_and_no_sound_say_so() -> None:
    Path("fake.png").write_bytes(b"no image")
    Path("fake.wav").write_bytes(b"no sound")
    with pytest.raises(ValueError, match="image: fake.png cannot be read"):
        media.image("fake.png")
    with pytest.raises(ValueError, match="audio: fake.wav cannot be read"):
        media.audio("fake.wav", 16000)


def test_an_image_comes_from_the_web(monkeypatch: pytest.MonkeyPatch) -> None:
    import threading
    from functools import partial
    from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *arguments: Any) -> None:
            pass

    Image.new("RGB", (4, 2)).save("a.png")
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=".")) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        address = f"http://127.0.0.1:{server.server_port}"
        assert media.image(f"{address}/a.png").size == (4, 2)
        assert rows(f"{address}/a.png", "object_detection") == [{"image": f"{address}/a.png"}]
        with pytest.raises(ValueError, match="cannot be read"):
            media.image(f"{address}/b.png")
        server.shutdown()


@pytest.mark.parametrize(
    ("message", "install"),
    [
        ("post_process requires the Torchvision library but it was not found", "pip install 'xp[image]'"),
        ("VideoClassificationPipeline requires the PyAv library", "pip install 'xp[video]'"),
        ("apply_tesseract requires the pytesseract library", "pip install 'xp[document]'"),
        ("`pytesseract` is not installed, and `av`, which is, cannot do it", "pip install 'xp[document]'"),
    ],
)
def test_a_package_that_is_lacking_is_named_with_the_extra_that_brings_it(message: str, install: str) -> None:
    assert install in str(media.lacking(ImportError(message)))


def test_extras_are_those_of_the_package() -> None:
    import tomllib

    from conftest import ROOT

    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    assert set(media.EXTRAS.values()) <= set(extras)
