"""Data: files, hub repositories and the standard library."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from conftest import rows, write_rows
from datasets import Dataset

from xp.data import Files, Hub, StandardLibrary
from xp.data.standard_library import held_out
from xp.error import UserError

BASE: dict[str, Any] = {
    "columns": {},
    "train_rows": None,
    "eval_rows": None,
    "eval_share": None,
    "split_seed": 0,
    "filters": [],
    "deduplicate": False,
    "streaming": False,
    "on_error": "error",
}
"""What every source has."""


def files(**settings: Any) -> Files:
    own = {"train": None, "eval": None, "format": "auto", "header": None, "quoting": None}
    return Files(name="files", **BASE | own | {"token_column": 0, "tag_column": -1} | settings)


def plain(rows: Any) -> list[dict[str, Any]]:
    """Rows without the number that they have in their source."""
    return list(rows.remove_columns("_row"))


def written(folder: Path, ending: str) -> str:
    file = str(folder / f"rows{ending}")
    data = Dataset.from_list(rows(10))
    match ending:
        case ".parquet":
            data.to_parquet(file)
        case ".jsonl" | ".json":
            data.to_json(file)
        case _:
            data.to_csv(file, sep="\t" if ending == ".tsv" else ",", index=False)
    return file


@pytest.mark.parametrize("ending", [".csv", ".tsv", ".jsonl", ".json", ".parquet"])
def test_files_of_every_format_give_the_same_rows(ending: str, tmp_path: Path) -> None:
    file = written(tmp_path, ending)
    splits = files(train=file, eval=[file, file]).load(("text", "label"), train=True)
    assert splits.train is not None
    assert plain(splits.train) == rows(10)
    assert len(splits.eval) == 20


def test_columns_are_mapped_and_headers_given(tmp_path: Path) -> None:
    (tmp_path / "a.tsv").write_text('said "yes"\t1\nNA\t0\n')
    source = files(
        eval=str(tmp_path / "a.tsv"),
        header=["sentence", "stars"],
        quoting=False,
        columns={"text": "sentence", "label": "stars"},
    )
    assert plain(source.load(("text", "label"), train=False).eval) == [
        {"text": 'said "yes"', "label": 1},
        {"text": "NA", "label": 0},
    ]


def test_a_home_folder_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written(tmp_path, ".csv")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert len(files(eval="~/rows.csv").load(("text",), train=False).eval) == 10


def test_quoted_fields_may_hold_line_breaks(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text('text,label\n"one\ntwo, three",x\n')
    assert files(eval=str(tmp_path / "a.csv")).load(("text",), train=False).eval["text"][:] == ["one\ntwo, three"]


WRONG: list[tuple[dict[str, Any], str]] = [
    ({"eval": "nowhere.csv"}, "data.eval=nowhere.csv: no such file"),
    ({"eval": "rows.jsonll"}, "Did you mean '.jsonl'"),
    ({"eval": "row.jsonl"}, "no such file. Did you mean 'rows.jsonl'"),
    ({"eval": "empty.csv"}, "the file is empty"),
    ({"eval": "broken.jsonl"}, "cannot be read as json"),
    ({"eval": ["rows.jsonl", "rows.csv"]}, "need one format"),
    ({"eval": "rows.jsonl", "header": ["a"]}, "data.header is for csv and tsv"),
    ({}, "data.eval is not set"),
    (
        {"eval": "rows.jsonl", "columns": {"text": "txet"}},
        "no such column. Did you mean 'text'? Their columns: text, label",
    ),
    ({"eval": "rows.jsonl", "columns": {"text": "number"}}, "no such column"),
    ({"eval": "header.csv"}, "the eval split has no rows"),
    ({"eval": "numbers.csv"}, "hold int64 there, not text"),
    ({"eval": "wide.csv"}, "data.eval=wide.csv: line 3 has 3 fields, the header line has 2"),
    ({"eval": "wide.csv", "header": ["text"]}, "line 1 has 2 fields, data.header has 1"),
    ({"eval": "quote.csv"}, "data.eval=quote.csv: line 3: unexpected end of data"),
    ({"eval": "latin.csv"}, "data.eval=latin.csv: line"),
]


@pytest.mark.parametrize(("settings", "message"), WRONG, ids=lambda value: str(value)[:40])
def test_wrong_files_are_one_line(settings: Any, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    written(tmp_path, ".jsonl")
    written(tmp_path, ".csv")
    (tmp_path / "empty.csv").touch()
    (tmp_path / "broken.jsonl").write_text('{"text": "a"\n{')
    (tmp_path / "header.csv").write_text("text,label\n")
    (tmp_path / "numbers.csv").write_text("text,label\n1,2\n")
    (tmp_path / "wide.csv").write_text("text,label\na,b\nc,d,\n")
    (tmp_path / "quote.csv").write_text('text,label\n"a,b\nc,d\n')
    (tmp_path / "latin.csv").write_bytes("text,label\ncafé,b\n".encode("latin-1"))
    with pytest.raises(UserError) as caught:
        files(**settings).load(("text",), train=False)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_cap_takes_the_same_rows_each_time(tmp_path: Path) -> None:
    capped = files(eval=written(tmp_path, ".csv"), eval_rows=4)
    taken = capped.load(("text",), train=False)
    assert len(taken.eval) == 4
    assert taken.fingerprint == capped.load(("text",), train=False).fingerprint


def test_fingerprint_is_of_the_content(tmp_path: Path) -> None:
    csv, parquet = (files(eval=written(tmp_path, e)).load(("text", "label"), train=False) for e in (".csv", ".parquet"))
    assert csv.fingerprint == parquet.fingerprint
    (tmp_path / "other.csv").write_text((tmp_path / "rows.csv").read_text().replace("apple", "appel", 1))
    assert files(eval=str(tmp_path / "other.csv")).load(("text", "label"), train=False).fingerprint != csv.fingerprint


def hub(path: Path | str, **settings: Any) -> Hub:
    own = {"subset": None, "revision": None, "train": "train", "eval": "validation"}
    return Hub(name="hub", path=str(path), **BASE | own | settings)


def test_a_repository_folder_loads_through_load_dataset(tmp_path: Path) -> None:
    for split in ("train", "validation"):
        Dataset.from_list(rows(10)).to_json(str(tmp_path / f"{split}.jsonl"))
    splits = hub(tmp_path, train="train[:50%]").load(("text", "label"), train=True)
    assert splits.train is not None
    assert (len(splits.train), len(splits.eval)) == (5, 10)
    with pytest.raises(UserError, match="Did you mean 'validation'"):
        hub(tmp_path, eval="valid").load(("text",), train=False)


def test_a_repository_out_of_reach_is_one_line() -> None:
    with pytest.raises(UserError, match="data.path=nobody/nothing") as caught:
        hub("nobody/nothing").load(("text",), train=False)
    assert "\n" not in str(caught.value)


def test_standard_library_splits_by_file_and_never_shares_one() -> None:
    source = StandardLibrary(name="standard_library", unit="function", packages=12, **BASE)
    train, held, _ = source.read(True)
    assert train is not None
    assert held is not None
    assert not set(train["path"]) & set(held["path"])
    assert all(map(held_out, held.unique("path")))
    assert 8 <= len(set(train["label"])) <= 12
    assert set(held["label"]) <= set(train["label"])
    assert len(train) > 2000
    assert all(text.startswith(("def ", "async def ", "@")) for text in train["text"][:500])
    assert all(path.startswith(label + "/") for path, label in zip(train["path"], train["label"], strict=True))


def test_standard_library_files_are_whole() -> None:
    import sysconfig

    source = StandardLibrary(name="standard_library", unit="file", packages=None, **BASE)
    train, held, _ = source.read(True)
    assert train is not None
    assert held is not None
    row = train[0]
    assert row["text"] == (Path(sysconfig.get_path("stdlib")) / row["path"]).read_text("utf-8")
    assert not [path for path in train["path"] if "site-packages" in path or "/tests/" in path]
    assert 0.03 < len(held) / (len(held) + len(train)) < 0.2


@pytest.mark.parametrize("ending", [".csv", ".tsv", ".parquet"])
@pytest.mark.parametrize("task", ["text_classification", "causal_lm"])
def test_strings_of_every_format_become_features(ending: str, task: str, run: Any, tmp_path: Path) -> None:
    """pandas and parquet bring other string types than json does."""
    file = written(tmp_path, ending)
    assert (
        run(f"data.train={file}", f"data.eval={file}", f"task={task}", "training.max_steps=1")["metrics"]["eval/loss"]
        > 0
    )


def test_labels_may_be_booleans(run: Any, corpus: Path) -> None:
    write_rows(corpus / "b.jsonl", [{"text": "a b", "label": number % 2 == 0} for number in range(8)])
    result = run("data.train=b.jsonl", "data.eval=b.jsonl", "task=text_classification", "training.max_steps=1")
    assert result["baseline"]["eval/accuracy"] == 0.5
