"""Data: files, hub repositories and the standard library."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from conftest import SMALL, from_yaml, rows, write_rows
from datasets import Dataset

from xp.data.files import Files
from xp.data.hub import Hub
from xp.data.standard_library import StandardLibrary, held_out
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
    ({"eval": "quote.csv"}, "data.eval=quote.csv: line 2: in this row a quote opens that never closes"),
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


PLACES = [
    {"text": "good film", "stars": 5, "language": "en", "share": 0.5, "ok": True, "endings": ["a", "b"]},
    {"text": "bad", "stars": 1, "language": "fr", "share": 0.25, "ok": False, "endings": []},
    {"text": None, "stars": None, "language": None, "share": None, "ok": None, "endings": None},
    {"text": "so, so", "stars": 3, "language": "de", "share": 1.0, "ok": True, "endings": ["a"]},
]


@pytest.mark.parametrize(
    ("condition", "met"),
    [
        ("stars >= 3", [0, 3]),
        ("stars!=1", [0, 3]),
        ("share < 0.5", [1]),
        ("stars > 1.5", [0, 3]),
        ("language == en", [0]),
        ("language != 'en'", [1, 3]),
        ("language in [en, fr]", [0, 1]),
        ("language not in [en, fr]", [3]),
        ('text == "so, so"', [3]),
        ('text in ["so, so", bad]', [1, 3]),
        ("text is not null", [0, 1, 3]),
        ("stars is null", [2]),
        ("length(text) > 3", [0, 3]),
        ("length(endings) == 0", [1]),
        ("ok == true", [0, 3]),
        ("stars in [1, 3]", [1, 3]),
    ],
)
def test_filters_keep_the_rows_that_meet_them(condition: str, met: list[int], tmp_path: Path) -> None:
    write_rows(tmp_path / "a.jsonl", PLACES)
    source = files(eval=str(tmp_path / "a.jsonl"), filters=[condition])
    splits = source.load(("text",), train=False)
    assert splits.eval["_row"][:] == met
    assert splits.notes == {"eval_filtered": 4 - len(met)}
    assert splits.place("eval", met[-1]).endswith(f"a.jsonl, row {met[-1] + 1}")


@pytest.mark.parametrize(
    ("condition", "message"),
    [
        ("star >= 3", "no column 'star'. Did you mean 'stars'"),
        ("stars >= many", "stars holds int64, and many is none"),
        ("ok == yes", "ok holds true and false, and yes is none"),
        ("ok > true", "> is for numbers and text"),
        ("endings == a", "endings holds list"),
        ("length(stars) > 3", "stars holds int64, which has no length"),
        ("stars > 9", "none of the 4 eval rows meets them all"),
    ],
)
def test_filters_that_do_not_fit_the_rows_are_one_line(condition: str, message: str, tmp_path: Path) -> None:
    write_rows(tmp_path / "a.jsonl", PLACES)
    with pytest.raises(UserError) as caught:
        files(eval=str(tmp_path / "a.jsonl"), filters=[condition]).load(("text",), train=False)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "condition",
    ["stars", "stars => 3", "stars = 3", "stars >= ", "language in en", "language in []", "text is null 3",
     "__import__('os').system('x')", "stars >= 3 and stars < 5", "lambda x: x", "length(text > 3"],
)  # fmt: skip
def test_what_is_no_condition_is_refused_before_anything_is_read(condition: str) -> None:
    with pytest.raises(ValueError, match="filters"):
        files(eval="nowhere.csv", filters=[condition])


def test_filters_know_the_names_of_classes(tmp_path: Path) -> None:
    from datasets import ClassLabel, Features, Value

    kinds = Features({"text": Value("string"), "label": ClassLabel(names=["no", "yes"])})
    Dataset.from_list([{"text": "a", "label": 0}, {"text": "b", "label": 1}], features=kinds).save_to_disk(
        tmp_path / "x"
    )
    given = {"path": str(tmp_path / "x"), "train": None, "eval": "all"}
    for condition in ("label == yes", "label == 1", "label in [yes]", "label != no"):
        assert saved(**given, filters=[condition]).load(("text",), train=False).eval["text"][:] == ["b"]
    with pytest.raises(UserError, match="'yess' is no label of label. Did you mean 'yes'"):
        saved(**given, filters=["label == yess"]).load(("text",), train=False)


def test_a_share_is_set_aside_by_seed(tmp_path: Path) -> None:
    file = written(tmp_path, ".jsonl")
    splits = [files(train=file, eval_share=0.3, split_seed=seed).load(("text",), train=True) for seed in (0, 0, 1)]
    parts = [(each.train["_row"][:], each.eval["_row"][:]) for each in splits if each.train is not None]
    assert parts[0] == parts[1] != parts[2]
    assert sorted(parts[0][0] + parts[0][1]) == list(range(10))
    assert len(parts[0][1]) == 3
    assert files(train=file, eval_share=0.3).load(("text",), train=False).eval["_row"][:] == parts[0][1]
    assert splits[0].key("eval") == "data.train="
    with pytest.raises(ValueError, match="eval_share=0.3: there is an eval split"):
        files(train=file, eval=file, eval_share=0.3)


def test_repeated_rows_and_rows_of_the_eval_split_are_left_out_of_train(tmp_path: Path) -> None:
    one, two, three = ({"text": word, "label": "x", "id": at} for at, word in enumerate("abc"))
    write_rows(tmp_path / "train.jsonl", [one, two, one | {"id": 9}, three, three | {"label": "y"}])
    write_rows(tmp_path / "eval.jsonl", [two, two])
    source = files(train=str(tmp_path / "train.jsonl"), eval=str(tmp_path / "eval.jsonl"), deduplicate=True)
    splits = source.load(("text", "label"), train=True)
    assert splits.train is not None
    assert splits.train["_row"][:] == [0, 3, 4]
    assert len(splits.eval) == 2
    assert splits.notes == {"train_duplicates": 1, "train_also_in_eval": 1}
    (tmp_path / "eval.jsonl").write_text((tmp_path / "train.jsonl").read_text())
    with pytest.raises(UserError, match="it leaves no train rows"):
        source.load(("text", "label"), train=True)


def test_nested_and_combined_columns(tmp_path: Path) -> None:
    made = [{"translation": {"en": "one", "fr": "un"}, "e0": "a", "e1": "b"},
            {"translation": {"en": "two", "fr": "deux"}, "e0": "c", "e1": None}]  # fmt: skip
    write_rows(tmp_path / "a.jsonl", made)

    def load(**columns: Any) -> Any:
        return plain(files(eval=str(tmp_path / "a.jsonl"), columns=columns).load(tuple(columns), train=False).eval)

    assert load(source="translation.en", target="translation.fr", endings=["e0", "e1"]) == [
        {"source": "one", "target": "un", "endings": ["a", "b"]},
        {"source": "two", "target": "deux", "endings": ["c", None]},
    ]
    with pytest.raises(UserError, match="no such column. Did you mean 'translation.en'"):
        load(source="translation.eng")
    with pytest.raises(UserError, match="no such column as 'e2'. Did you mean 'e"):
        load(endings=["e0", "e2"])


def saved(**settings: Any) -> Any:
    from xp.data.saved import Saved

    return Saved(name="saved", **BASE | {"train": "train", "eval": None} | settings)


def test_saved_folders(tmp_path: Path) -> None:
    from datasets import DatasetDict

    whole = Dataset.from_list(rows(10))
    whole.save_to_disk(tmp_path / "one")
    DatasetDict({"train": whole, "dev": whole.select(range(4))}).save_to_disk(tmp_path / "two")
    splits = saved(path=str(tmp_path / "two"), eval="dev").load(("text",), train=True)
    assert splits.train is not None
    assert (len(splits.train), len(splits.eval)) == (10, 4)
    assert len(saved(path=str(tmp_path / "one"), eval_share=0.2).load(("text",), train=True).eval) == 2
    with pytest.raises(UserError, match="data.eval=test: .* has no such split"):
        saved(path=str(tmp_path / "two"), eval="test").load(("text",), train=True)
    with pytest.raises(UserError, match="set data.eval=null and data.eval_share"):
        saved(path=str(tmp_path / "one"), eval="dev").load(("text",), train=True)
    with pytest.raises(UserError, match="no such folder. Did you mean .*two"):
        saved(path=str(tmp_path / "twoo")).load(("text",), train=True)
    next((tmp_path / "one").glob("*.arrow")).write_bytes(b"x")
    with pytest.raises(UserError, match="cannot be read as a saved data set"):
        saved(path=str(tmp_path / "one"), eval_share=0.2).load(("text",), train=True)


CONLL = "-DOCSTART- -X- -X- O\n\nEU NNP B-NP B-ORG\nrejects VBZ B-VP O\n\n\nPeter NNP B-NP B-PER\n"


def test_conll(tmp_path: Path) -> None:
    file = tmp_path / "a.conll"
    file.write_text(CONLL)
    load = lambda **given: plain(files(eval=str(file), **given).load(("tokens", "tags"), train=False).eval)  # noqa: E731
    assert load() == [
        {"tokens": ["EU", "rejects"], "tags": ["B-ORG", "O"]},
        {"tokens": ["Peter"], "tags": ["B-PER"]},
    ]
    assert load(tag_column=1)[0]["tags"] == ["NNP", "VBZ"]
    file.write_text("New York\tB-LOC\nis\tO")
    assert load() == [{"tokens": ["New York", "is"], "tags": ["B-LOC", "O"]}]


@pytest.mark.parametrize(
    ("content", "given", "message"),
    [
        (b"a X O\nb O\n\nc X O\n", {}, "line 2 has 2 columns, the first line has 3"),
        (b"a\n\nb O\n", {}, "line 1 has 1 columns, none at"),
        (b"a O\n", {"tag_column": 3}, "none at data.token_column=0 or data.tag_column=3"),
        (b"caf\xe9 O\n\nb O\n", {}, "line 1 is not UTF-8"),
        (b"a\t\n\nb\tO\n", {}, "line 1 has no tag"),
    ],
)
def test_bad_conll(content: bytes, given: Any, message: str, tmp_path: Path) -> None:
    (tmp_path / "a.conll").write_bytes(content)
    with pytest.raises(UserError) as caught:
        files(eval=str(tmp_path / "a.conll"), **given).load(("tokens", "tags"), train=False)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_squad(tmp_path: Path) -> None:
    import json

    answers = [{"text": "here", "answer_start": 3}]
    asked = [{"id": "1", "question": "where?", "answers": answers}, {"id": "2", "question": "why?", "answers": []}]
    (tmp_path / "a.json").write_text(
        json.dumps({"version": "2", "data": [{"paragraphs": [{"context": "is here", "qas": asked}]}]})
    )
    source = files(eval=str(tmp_path / "a.json"))
    assert plain(source.load(("id", "question", "context", "answers"), train=False).eval) == [
        {"id": "1", "question": "where?", "context": "is here", "answers": {"text": ["here"], "answer_start": [3]}},
        {"id": "2", "question": "why?", "context": "is here", "answers": {"text": [], "answer_start": []}},
    ]
    (tmp_path / "a.json").write_text(json.dumps({"data": [{"paragraphs": [{"context": "is here"}]}]}, indent=1))
    with pytest.raises(UserError, match=r"a.json: data\[0\].paragraphs\[0\] has no list 'qas'"):
        source.load(("question",), train=False)
    (tmp_path / "a.json").write_text(json.dumps({"data": rows(3)}, indent=1))
    assert plain(source.load(("text", "label"), train=False).eval) == rows(3)
    (tmp_path / "a.json").write_text(json.dumps(rows(3)))
    assert plain(source.load(("text", "label"), train=False).eval) == rows(3)


def test_lists_of_messages_survive(tmp_path: Path) -> None:
    turns = [
        [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}],
        [{"role": "user", "content": "c"}],
    ]
    write_rows(tmp_path / "a.jsonl", [{"messages": each} for each in turns])
    assert files(eval=str(tmp_path / "a.jsonl")).load(("messages",), train=False).eval["messages"][:] == turns


def test_the_fingerprint_is_of_content_alone_and_ignores_row_numbers(tmp_path: Path) -> None:
    from xp.data.fingerprint import fingerprint

    made = [
        row | {"n": None if at % 3 else at, "tags": ["a"] * (at % 3), "d": {"x": at}} for at, row in enumerate(rows(30))
    ]
    whole = Dataset.from_list(made)
    expected = fingerprint(whole)
    assert fingerprint(whole.add_column("_row", range(30))) == expected
    assert fingerprint(Dataset.from_list([made[9], *made]).select(range(1, 31))) == expected
    whole.to_parquet(str(tmp_path / "a.parquet"))
    assert fingerprint(Dataset.from_parquet(str(tmp_path / "a.parquet"), cache_dir=str(tmp_path))) == expected
    for change in ({"n": 1}, {"tags": ["b"]}, {"d": {"x": -1}}, {"text": "x"}, {"label": None}):
        assert fingerprint(Dataset.from_list([*made[:7], made[7] | change, *made[8:]])) != expected
    assert fingerprint(whole.select(range(29, -1, -1))) != expected


def mixture(sources: dict[str, Any], **settings: Any) -> Any:
    from xp.data.mixture import Mixture

    own = {"weights": {}, "mixing_seed": 0, "stopping": "first_exhausted"}
    return Mixture(name="mixture", sources=sources, **BASE | own | settings)


def test_sources_are_mixed_by_weight_each_with_columns_of_its_own(tmp_path: Path) -> None:
    write_rows(tmp_path / "a.jsonl", [{"text": f"a{at}", "label": "x"} for at in range(300)])
    write_rows(tmp_path / "b.jsonl", [{"said": f"b{at}", "kind": "y"} for at in range(300)])
    a = files(train=str(tmp_path / "a.jsonl"), eval_share=0.1)
    b = files(train=str(tmp_path / "b.jsonl"), eval=str(tmp_path / "b.jsonl"), eval_rows=5,
              columns={"text": "said", "label": "kind"}, filters=["said != b0"])  # fmt: skip
    splits = mixture({"a": a, "b": b}, weights={"a": 3, "b": 1}).load(("text", "label"), train=True)
    assert splits.train is not None
    texts = splits.train["text"][:]
    share = sum(text.startswith("a") for text in texts) / len(texts)
    assert 0.7 < share < 0.8
    assert len(texts) == len({*texts})
    assert len(splits.eval) == 35
    assert splits.notes == {"train_filtered": 1, "eval_filtered": 1}
    row = splits.train[texts.index("b7")]
    assert splits.place("train", row["_row"]).endswith("b.jsonl, row 8")
    again = mixture({"a": a, "b": b}, weights={"a": 3, "b": 1}).load(("text", "label"), train=True)
    assert again.fingerprint == splits.fingerprint
    both = mixture({"a": a, "b": b}, stopping="all_exhausted").load(("text", "label"), train=True)
    assert both.train is not None
    assert {*both.train["text"]} >= {f"b{at}" for at in range(1, 300)}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"weights": {"c": 1}}, "weights.c: there is no such source"),
        ({"weights": {"a": 1}}, "weights.b: has no value"),
        ({"filters": ["x == 1"]}, "filters: a mixture has none of its own"),
        ({"eval_share": 0.1}, "eval_share: a mixture has none of its own"),
        ({"stopping": "all_exhausted", "deduplicate": True}, "repeats rows"),
        ({"sources": {}}, "sources: a mixture needs some"),
        (
            {"sources": {"a": files(train="a", eval="a", streaming=True)}},
            "sources.a.streaming=true: all stream or none",
        ),
        (
            {"sources": {"a": files(train="a", eval_share=0.1)}, "streaming": True},
            "sources.a.eval_share: it needs all rows",
        ),
        ({"streaming": True, "deduplicate": True}, "deduplicate=true: it needs all rows at once"),
    ],
)
def test_mixtures_that_make_no_sense_are_refused(settings: Any, message: str) -> None:
    source = files(train="a.jsonl", eval="a.jsonl")
    with pytest.raises(ValueError, match=message):
        mixture(settings.pop("sources", {"a": source, "b": source}), **settings)


def test_sources_that_do_not_go_together_are_one_line(tmp_path: Path) -> None:
    write_rows(tmp_path / "a.jsonl", [{"text": "a", "label": "x"}] * 3)
    write_rows(tmp_path / "b.jsonl", [{"text": "b", "label": 1}] * 3)
    a, b = (files(train=str(tmp_path / f"{name}.jsonl"), eval_share=0.4) for name in "ab")
    with pytest.raises(UserError, match="data.sources.b: its column label holds int64, that of a string"):
        mixture({"a": a, "b": b}).load(("text", "label"), train=True)
    with pytest.raises(UserError, match="data.sources.b: data.train=.*: no such file"):
        mixture({"a": a, "b": files(train=str(tmp_path / "c.jsonl"), eval_share=0.4)}).load(("text",), train=True)


def test_a_mixture_runs_from_the_command_line(corpus: Path) -> None:
    from xp.config import compose
    from xp.launch import start
    from xp.run import Run

    sources = [f"data.sources.{name}.{split}={split}.jsonl" for name in "ab" for split in ("train", "eval")]
    given = ["+data@data.sources.a=files", "+data@data.sources.b=files", *sources, "data.weights={a: 0.7, b: 0.3}"]
    compose.initialize(None)
    small = [each for each in SMALL if not each.startswith("data")]
    wrong = [*small, "data=mixture", *given, "+data.sources.a.trian=x"]
    with pytest.raises(UserError, match="data.sources.a.trian: there is no such key"):
        Run.parse(compose.values(wrong))
    assert start(Run.parse(compose.values([*small, "data=mixture", *given])))["metrics"]["eval/loss"] > 0


def test_numbers_with_an_empty_cell_among_them_stay_numbers(tmp_path: Path) -> None:
    """pandas makes texts of them, and 10 comes before 3 among those."""
    (tmp_path / "stars.csv").write_text("text,stars\n" + "".join(f"a,{at}\n" for at in range(12)) + "b,\n")
    rows = files(eval=str(tmp_path / "stars.csv"), filters=["stars >= 3"]).load(("text",), train=False).eval
    assert len(rows) == 9
    (tmp_path / "words.csv").write_text("text,stars\na,10\nb,few\n")
    with pytest.raises(UserError, match="holds texts, which are no numbers"):
        files(eval=str(tmp_path / "words.csv"), filters=["stars >= 3"]).load(("text",), train=False)


def test_a_question_without_answers_is_at_fault_and_one_with_none_is_not(tmp_path: Path) -> None:
    import json

    from xp.task.question_answering import QuestionAnswering

    asked = [{"id": "1", "question": "q", "answers": []}, {"id": "2", "question": "q"}, {"id": "3", "question": "q"}]
    asked[2]["answers"] = ["c"]
    paragraphs = [{"context": "c d", "qas": asked}]
    (tmp_path / "a.json").write_text(json.dumps({"version": "2.0", "data": [{"paragraphs": paragraphs}]}))
    source = files(eval=str(tmp_path / "a.json"))
    rows = source.load(("question", "context", "answers"), train=False).eval
    task = from_yaml(QuestionAnswering)
    assert [task.fault(row) is None for row in rows] == [True, False, False]


def test_an_array_is_told_apart_from_lines(tmp_path: Path) -> None:
    def read(content: bytes, on_error: str = "error") -> Any:
        (tmp_path / "a.json").write_bytes(content)
        return files(eval=str(tmp_path / "a.json"), on_error=on_error).load(("text",), train=False).eval["text"][:]

    assert read(b'[\n{"text": "a"},\n3\n]', "skip")[0] == "a"
    for content, message in (
        (b'[\n{"text": "a"},\n{"text": "caf\xe9"}\n]', "line 3 is not UTF-8"),
        (b'[\n{"text": "a"},\n{"text":', "cannot be read as json: line 3"),
        (b'[\n{"text": "a"},\n3\n]', "item 2: is no json object"),
    ):
        with pytest.raises(UserError, match=message):
            read(content)


@pytest.mark.parametrize("hole", ["n/a", "NA", "nan", "null", "-", "1_0", "inf"])
def test_a_number_that_is_none_is_told_with_its_row(hole: str, tmp_path: Path) -> None:
    """However many numbers are around it; the rows beside it are of use."""
    from xp.features import Preparation
    from xp.task.text_classification import TextClassification

    task = from_yaml(TextClassification, problem="regression")
    file = tmp_path / "stars.csv"
    file.write_text(f"text,label\na,1.5\nb,-2\nc,{hole}\nd,\ne,.5e1\n")
    said: list[str] = []

    def checked(on_error: str) -> Any:
        splits = files(eval=str(file), on_error=on_error).load(task.columns, train=False)
        return Preparation(task, splits.data.on_error, None, said.append).checked(splits).eval

    with pytest.raises(UserError) as caught:
        checked("error")
    value = hole if hole == "inf" and "'" not in str(caught.value) else repr(hole)
    assert f"stars.csv, row 3: label: {value} is not a finite number; mend the row" in str(caught.value)
    rows = checked("skip")
    numbers = task._problem.targets(rows, [])
    assert [numbers(label) for label in rows["label"]] == [1.5, -2.0, 5.0]


@pytest.mark.parametrize(
    "words", [["NA", "null", "nan", "n/a"], ["nan", "inf", "nan", "NaN"], ["None", "", "nan", "-"]]
)
@pytest.mark.parametrize("kind", ["csv", "tsv", "faulty", "streamed", "conll"])
def test_words_that_elsewhere_mean_nothing_stay_words(kind: str, words: list[str], tmp_path: Path) -> None:
    """Namibia's code is NA, and null is a word of many programs."""
    if kind == "conll":
        words = [word or "x" for word in words]
        (tmp_path / "a.conll").write_text("".join(f"{word} {word}\n" for word in words) + "\n")
        rows = files(eval=str(tmp_path / "a.conll")).load(("tokens", "tags"), train=False).eval
        assert (rows[0]["tokens"], rows[0]["tags"]) == (words, words)
        return
    sign = "\t" if kind == "tsv" else ","
    file = tmp_path / f"a.{'tsv' if kind == 'tsv' else 'csv'}"
    lines = [f"text{sign}label", *[f"{word}{sign}{word}" for word in words], *["a,b,c"] * (kind == "faulty")]
    file.write_text("\n".join(lines) + "\n")
    source = files(train=str(file), eval=str(file), streaming=kind == "streamed", on_error="skip")
    made = (
        next(source.blocks(["text", "label"], {}))
        if kind == "streamed"
        else source.load(("text", "label"), train=False).eval
    )
    assert made["text"][: len(words)] == made["label"][: len(words)] == words
