"""Features: what is made once is found again, and only then; every bad row is told of in one line."""

from __future__ import annotations

import json
import struct
import wave
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import pytest
from conftest import command, from_yaml, rows, write_rows
from datasets import Dataset
from test_data import files

from xp import cache, features
from xp.data import Data, Splits
from xp.error import UserError
from xp.features import Preparation
from xp.model.tokenizer import train_tokenizer
from xp.task import Encoded, Trainable, identity
from xp.task.causal_lm import CausalLM
from xp.task.identity import processor_identity
from xp.task.text_classification import TextClassification

TEXTS = [row["text"] for row in rows(60)]
LABELS = ["animal", "fruit", "tool"]


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return train_tokenizer(TEXTS, 300)


def classification(**settings: Any) -> TextClassification:
    given = {"max_length": 64, "problem": "single_label", "metrics": ["accuracy"]} | settings
    return from_yaml(TextClassification, **given)


class Room:
    """A cache and what was said about it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "cache"
        self.said: list[str] = []

    def encoded(self, made: list[dict[str, Any]], tokenizer: Any, task: Any = None, labels: Any = LABELS) -> Encoded:
        held = Dataset.from_list([row | {"_row": at} for at, row in enumerate(made)])
        preparation = Preparation(task or classification(), "error", self.folder, self.said.append)
        return preparation.encoded("eval", Splits(None, held, "here"), tokenizer, labels)[0]

    @property
    def how(self) -> list[str]:
        return ["hit" if "cache hit" in line else "damaged" if "damaged" in line else "made" for line in self.said]


def test_the_second_time_is_a_hit_with_the_same_rows_and_notes(tmp_path: Path, tokenizer: Any) -> None:
    room = Room(tmp_path)
    task = classification(max_length=5)
    made, found = (room.encoded(rows(30), tokenizer, task) for _ in range(2))
    assert room.how == ["made", "hit"]
    assert made.notes == found.notes
    assert made.notes["truncated"] > 0
    assert made.rows[:] == found.rows[:] == task.encode(Dataset.from_list(rows(30)), tokenizer, LABELS).rows[:]


def test_one_changed_character_anywhere_is_a_miss(
    tmp_path: Path, tokenizer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    room = Room(tmp_path)
    room.encoded(rows(30), tokenizer)
    changed = rows(30)
    changed[17]["text"] += "."
    room.encoded(changed, tokenizer)
    room.encoded(rows(30), tokenizer, classification(max_length=63))
    room.encoded(rows(30), tokenizer, classification(metrics=["f1_macro"]))  # Which rows are encoded without.
    room.encoded(rows(30), tokenizer, labels=["fruit", "animal", "tool"])
    other = train_tokenizer([*TEXTS, "zebra"] * 3, 301)
    room.encoded(rows(30), other)
    other.chat_template = "{{ messages }}"
    room.encoded(rows(30), other)
    other.chat_template = "{{ messages }} "
    room.encoded(rows(30), other)
    monkeypatch.setattr(identity, "_code", lambda own: {"base.py": "other"})
    room.encoded(rows(30), tokenizer)
    assert room.how == ["made", "made", "made", "hit", "made", "made", "made", "made", "made"]


def test_the_code_of_tasks_and_features_is_part_of_the_key() -> None:
    assert {"base.py", "mapping.py", "text_classification.py", "features.py", "test_features.py"} <= set(
        identity._code(__file__)
    )


def test_what_a_tokenizer_did_last_is_not_part_of_it(tokenizer: Any) -> None:
    before = processor_identity(tokenizer)
    tokenizer(TEXTS, truncation=True, max_length=3, padding=True)
    assert processor_identity(tokenizer) == before


@pytest.mark.parametrize("harm", ["cut", "flip", "remove", "manifest"])
def test_a_damaged_entry_is_made_anew_and_said(harm: str, tmp_path: Path, tokenizer: Any) -> None:
    room = Room(tmp_path)
    expected = room.encoded(rows(30), tokenizer).rows[:]
    (file,) = room.folder.glob("*/rows/*.arrow")
    content = file.read_bytes()
    if harm == "manifest":
        next(room.folder.glob("*/manifest.json")).write_text("{")
    elif harm == "remove":
        file.unlink()
    else:
        file.write_bytes(
            content[:-100] if harm == "cut" else content[:-300] + bytes([content[-300] ^ 1]) + content[-299:]
        )
    assert room.encoded(rows(30), tokenizer).rows[:] == expected
    room.encoded(rows(30), tokenizer)
    assert room.how == ["made", "damaged", "hit"]


def test_the_cache_is_bounded(tmp_path: Path, tokenizer: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache, "KEPT", 1)
    room = Room(tmp_path)
    for number in (10, 11, 12):
        room.encoded(rows(number), tokenizer)
    assert len([path for path in room.folder.iterdir() if path.is_dir()]) == 1
    room.encoded(rows(12), tokenizer)
    assert room.how[-1] == "hit"


def test_two_processes_make_an_entry_once(tmp_path: Path) -> None:
    from threading import Barrier, Thread

    made = []
    barrier = Barrier(4)

    def ask() -> None:
        barrier.wait()
        cache.entry(tmp_path, "key", lambda part: (made.append(1), (part / "x").write_text("x"))[0])

    threads = [Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert made == [1]


def test_a_run_says_whether_it_hit_and_ends_the_same(run: Callable[..., Any], capfd: Any) -> None:
    first = run("task=text_classification")
    assert "encoded train: made from 60 rows" in capfd.readouterr().out
    second = run("task=text_classification")
    assert "encoded train: cache hit" in capfd.readouterr().out
    third = run("task=text_classification", "cache=false")
    assert "cache off" in capfd.readouterr().out
    assert first["digest"] == second["digest"] == third["digest"]


def test_many_rows_are_encoded_by_several_processes_alike(
    tmp_path: Path, tokenizer: Any, monkeypatch: pytest.MonkeyPatch, capfd: Any
) -> None:
    from xp.task import mapping

    expected = classification().encode(Dataset.from_list(rows(400)), tokenizer, LABELS).rows[:]
    monkeypatch.setattr(mapping, "PAYS", 100)
    monkeypatch.setattr(mapping, "LARGE", 100)
    monkeypatch.setenv("XP_CORES", "2")
    room = Room(tmp_path)
    assert room.encoded(rows(400), tokenizer).rows[:] == expected
    out, err = capfd.readouterr()
    assert "encoding 400 rows on 2 cores" in out
    assert err == ""
    assert not list(room.folder.glob("*/work"))


class Tagged(CausalLM, name="tagged_for_test"):
    """A task whose labels are in lists, and that takes any row."""

    columns: ClassVar[tuple[str, ...]] = ("tokens", "tags")
    label_columns: ClassVar[tuple[str, ...]] = ("tags",)

    def fault(self, row: dict[str, Any]) -> str | None:
        return None


Trainable.registry.pop("tagged_for_test")
TAGGED = Tagged(**from_yaml(CausalLM, max_length=16).model_dump() | {"name": "tagged_for_test"})


def write_bad(folder: Path) -> None:
    text = folder.joinpath
    text("a.csv").write_text("text,label\na b,x\n,x\nc,x\n")
    text("blank.csv").write_text("text,label\na b,x\n\nc,x\n")
    text("latin.csv").write_bytes("text,label\na b,x\ncafé,x\n".encode("latin-1"))
    text("wide.csv").write_text("text,label\na,x\nc,x,\n")
    text("nolabel.csv").write_text("text,label\na,x\nb,\n")
    text("a.tsv").write_text("text\tlabel\na\tx\n \tx\n")
    text("wide.tsv").write_text("text\tlabel\na\tx\nb\n")
    text("null.jsonl").write_text('{"text": "a", "label": "x"}\n{"text": null, "label": "x"}\n')
    text("absent.jsonl").write_text('{"text": "a", "label": "x"}\n{"label": "x"}\n')
    text("mixed.jsonl").write_text('{"text": "a", "label": "x"}\n{"text": 5, "label": "x"}\n')
    text("broken.jsonl").write_text('{"text": "a", "label": "x"}\n{"text"\n')
    text("blank.jsonl").write_text('{"text": "a", "label": "x"}\n\n{"text": "b", "label": "x"}\n')
    text("list.jsonl").write_text('{"text": "a", "label": "x"}\n[1]\n')
    text("latin.jsonl").write_bytes(b'{"text": "a", "label": "x"}\n{"text": "caf\xe9", "label": "x"}\n')
    text("array.json").write_text('[{"text": "a", "label": "x"}, {"text": "", "label": "x"}]')
    Dataset.from_list([{"text": "a", "label": "x"}, {"text": None, "label": "x"}]).to_parquet(str(text("a.parquet")))
    Dataset.from_list(rows(500)).to_parquet(str(text("whole.parquet")))
    text("cut.parquet").write_bytes(text("whole.parquet").read_bytes()[:-50])


BAD: list[tuple[str, str, int | None]] = [
    ("a.csv", "data.eval=a.csv, row 2: text: is empty", 1),
    ("blank.csv", "data.eval=blank.csv: line 3 is empty", 1),
    ("latin.csv", "data.eval=latin.csv: line 3 is not UTF-8", 1),
    ("wide.csv", "data.eval=wide.csv: line 3 has 3 fields, the header line has 2", 1),
    ("nolabel.csv", "data.eval=nolabel.csv, row 2: label: is missing", 1),
    ("a.tsv", "data.eval=a.tsv, row 2: text: is empty", 1),
    ("wide.tsv", "data.eval=wide.tsv: line 3 has 1 fields", 1),
    ("null.jsonl", "data.eval=null.jsonl, row 2: text: is empty", 1),
    ("absent.jsonl", "data.eval=absent.jsonl, row 2: text: is empty", 1),
    ("mixed.jsonl", "data.eval=mixed.jsonl, row 2: text: is 5, which is not text", 1),
    ("broken.jsonl", "data.eval=broken.jsonl: cannot be read as json: line 2: ", 1),
    ("blank.jsonl", "data.eval=blank.jsonl: cannot be read as json: line 2: is empty", 1),
    ("list.jsonl", "data.eval=list.jsonl: cannot be read as json: line 2: is no json object", 1),
    ("latin.jsonl", "data.eval=latin.jsonl: cannot be read as json: line 2: is not UTF-8", 1),
    ("array.json", "data.eval=array.json, row 2: text: is empty", 1),
    ("a.parquet", "data.eval=a.parquet, row 2: text: is empty", 1),
    ("cut.parquet", "data.eval=cut.parquet: cannot be read as parquet: ", None),
]


def checked(source: Data, task: Any, said: list[str]) -> Splits:
    splits = source.load(task.columns, train=False)
    return Preparation(task, source.on_error, None, said.append).checked(splits)


@pytest.mark.parametrize(("file", "message", "skipped"), BAD, ids=[file for file, _, _ in BAD])
def test_a_bad_row_is_one_line_or_skipped_and_counted(
    file: str, message: str, skipped: int | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write_bad(tmp_path)
    said: list[str] = []
    with pytest.raises(UserError) as caught:
        checked(files(eval=file), classification(), said)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
    lenient = files(eval=file, on_error="skip")
    if skipped is None:
        with pytest.raises(UserError, match=file):
            checked(lenient, classification(), said)
        return
    splits = checked(lenient, classification(), said)
    assert splits.notes["eval_skipped"] == skipped
    assert "1 of " in said[0]
    assert file in said[0]
    assert splits.eval["text"][:1] in (["a b"], ["a"])
    assert all(isinstance(value, str) and value.strip() for value in splits.eval["text"])
    assert set(splits.eval.column_names) == {"text", "label", "_row"}


def test_the_file_of_a_bad_row_is_told_of_several(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_rows(tmp_path / "one.jsonl", rows(10))
    write_rows(tmp_path / "two.jsonl", [*rows(3), {"text": "", "label": "x"}])
    with pytest.raises(UserError, match=r"data.eval=two.jsonl, row 4: text: is empty"):
        checked(files(eval=["one.jsonl", "two.jsonl"]), classification(), [])
    filtered = files(eval=["one.jsonl", "two.jsonl"], filters=["label != tool"])
    with pytest.raises(UserError, match=r"data.eval=two.jsonl, row 4: text: is empty"):
        checked(filtered, classification(), [])


def test_every_row_at_fault_is_an_error_even_if_rows_are_skipped(tmp_path: Path) -> None:
    write_rows(tmp_path / "a.jsonl", [{"text": "", "label": "x"}] * 3)
    with pytest.raises(UserError, match="all 3 eval rows at fault"):
        checked(files(eval=str(tmp_path / "a.jsonl"), on_error="skip"), classification(), [])


def test_a_label_unseen_in_training_is_told_with_its_row(run: Callable[..., Any], corpus: Path) -> None:
    write_rows(corpus / "eval.jsonl", [*rows(20), {"text": "a b", "label": "fruits"}])
    with pytest.raises(UserError) as caught:
        run("task=text_classification")
    assert str(caught.value) == (
        "data.eval=eval.jsonl, row 21: label: 'fruits' is not among the labels of the model or of training. "
        "Did you mean 'fruit'?; mend the row or set data.on_error=skip"
    )
    result = run("task=text_classification", "data.on_error=skip")
    assert [point["data/eval_skipped"] for point in result["points"] if "data/eval_skipped" in point] == [1.0]


def test_labels_in_lists_are_looked_at_too() -> None:
    data = Dataset.from_dict({"tokens": [["a"], ["b", "c"], []], "tags": [["O"], ["O", "B-X"], []]})
    assert [fault.at for fault in features.unknown_labels(TAGGED, data, ["O"])] == [1]
    assert features.unknown_labels(TAGGED, data, ["O", "B-X"]) == []


def test_a_mistake_in_two_processes_is_one_line(corpus: Path) -> None:
    from conftest import SMALL

    write_rows(corpus / "eval.jsonl", [*rows(20), {"text": None, "label": "fruit"}])
    ended = command(*SMALL, "backend=accelerate", "backend.processes=2", folder=corpus)
    assert (ended.returncode, ended.stderr.count("\n")) == (2, 1), ended.stderr
    assert ended.stderr.startswith("xp: data.eval=eval.jsonl, row 21: text: is empty")


def sound(file: Path) -> None:
    with wave.open(str(file), "wb") as out:
        out.setparams((1, 2, 8000, 0, "NONE", ""))
        out.writeframes(struct.pack("<100h", *range(100)))


def picture(file: Path) -> None:
    from PIL import Image

    Image.new("RGB", (4, 4), (200, 0, 0)).save(file)


@pytest.mark.parametrize(("kind", "column", "make", "name"), [
    ("images", "image", picture, "1.png"), ("audio", "audio", sound, "1.wav"),
])  # fmt: skip
def test_folders_of_images_and_audio(kind: str, column: str, make: Any, name: str, tmp_path: Path) -> None:
    folder = tmp_path / "media"
    for label in ("cat", "dog"):
        (folder / label).mkdir(parents=True)
        make(folder / label / name)
    splits = files(eval=str(folder)).load((column, "label"), train=False)
    assert splits.eval["label"][:] == ["cat", "dog"]
    assert splits.eval[0][column] == {"bytes": None, "path": str(folder / "cat" / name)}
    before = splits.fingerprint
    assert files(eval=str(folder)).load((column, "label"), train=False).fingerprint == before
    (folder / "dog" / "notes.txt").write_text("x")
    with pytest.raises(UserError, match=f"notes.txt is no file of {kind}"):
        files(eval=str(folder)).load((column, "label"), train=False)
    skipping = files(eval=str(folder), on_error="skip")
    found = skipping.load((column, "label"), train=False)
    assert len(Preparation(TAGGED, "skip", None, print).checked(found).eval) == 2
    (folder / "dog" / "notes.txt").unlink()
    (folder / "metadata.csv").write_text(f"file_name,label,caption\ncat/{name},a cat,one\ndog/2.png,a dog,two\n")
    with pytest.raises(UserError, match=r"metadata.csv, row 2: file_name: there is no .*2.png"):
        files(eval=str(folder)).load((column, "label"), train=False)
    (folder / "metadata.csv").write_text(f"file_name,label,caption\ncat/{name},a cat,one\n")
    described = files(eval=str(folder), columns={"text": "caption"}).load((column, "text"), train=False)
    assert described.eval["text"][:] == ["one"]


def test_broken_metadata_are_one_line(tmp_path: Path) -> None:
    folder = tmp_path / "media"
    folder.mkdir()
    picture(folder / "1.png")
    with pytest.raises(UserError, match=r"1.png is not in a subfolder of one label"):
        files(eval=str(folder)).load(("image", "label"), train=False)
    (folder / "metadata.jsonl").write_text(json.dumps({"file": "1.png", "label": "x"}) + "\n")
    with pytest.raises(UserError, match="no column file_name"):
        files(eval=str(folder)).load(("image", "label"), train=False)
    sound(folder / "1.wav")
    with pytest.raises(UserError, match="there are images and audio in it"):
        files(eval=str(folder)).load(("image", "label"), train=False)
