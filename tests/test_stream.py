"""Streams: rows are read as they are needed, and every backend sees the same of them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conftest import SMALL, command, curve, journal, rows, write_rows

from xp.error import UserError
from xp.task import Encoded
from xp.training.stream import Stream

Ran = Callable[..., dict[str, Any]]
CURVES = ("train/loss", "train/grad_norm", "train/lr", "train/padding")
STREAMED = ["data.streaming=true", "task=causal_lm", "task.max_length=24", "training.micro_batch_size=3"]


def test_parity_of_a_streamed_run(run: Ran) -> None:
    results = [run(*STREAMED, f"backend={name}", "training.max_steps=10") for name in ("torch", "accelerate", "hf")]
    assert len({result["digest"] for result in results}) == 1
    curves = [curve(result["points"], *CURVES) for result in results]
    assert curves[0] == curves[1] == curves[2]
    assert len(curves[0]) == 10


def test_a_worker_changes_nothing_and_two_are_refused(run: Ran) -> None:
    alone, beside = (run(*STREAMED, f"training.workers={number}") for number in (0, 1))
    assert alone["digest"] == beside["digest"]
    last = [point for point in beside["points"] if "data/train_read" in point]
    assert [point["data/train_read"] for point in last] == [60.0]
    with pytest.raises(UserError, match="training.workers=2: a stream is read by one process"):
        run(*STREAMED, "training.workers=2")


def test_two_processes_give_the_curve_of_one(run: Ran, corpus: Path) -> None:
    expected = curve(run(*STREAMED)["points"], *CURVES)
    ended = command(*SMALL, *STREAMED, "backend=accelerate", "backend.processes=2", "runs_folder=two", folder=corpus)
    assert ended.returncode == 0, ended.stderr
    (made,) = [path.parent for path in corpus.glob("two/*/journal.jsonl")]
    for got, want in zip(curve(journal(made), *CURVES), expected, strict=True):
        assert got[1:4] == pytest.approx(want[1:4], rel=1e-5)


def test_a_stream_reads_no_more_than_it_needs(run: Ran, corpus: Path) -> None:
    """Of 50,000 rows, the last of which could not be read."""
    with (corpus / "large.jsonl").open("w") as file:
        for _ in range(50):
            file.writelines(json.dumps(row) + "\n" for row in rows(1000))
        file.write("{broken\n")
    result = run(*STREAMED, "data.train=large.jsonl", "training.max_steps=3")
    (read,) = [point["data/train_read"] for point in result["points"] if "data/train_read" in point]
    assert read <= 2000
    with pytest.raises(UserError, match="large.jsonl: cannot be read as json: line 50001: "):
        run("data.train=large.jsonl", "task=causal_lm")


@pytest.mark.parametrize("ending", ["csv", "jsonl", "parquet"])
def test_every_row_is_seen_once_a_pass(ending: str, tmp_path: Path) -> None:
    from datasets import Dataset
    from test_data import files

    made = Dataset.from_list(rows(2500))
    file = str(tmp_path / f"rows.{ending}")
    {"csv": made.to_csv, "jsonl": made.to_json, "parquet": made.to_parquet}[ending](file)
    source = files(train=file, eval=file, streaming=True, filters=["label != tool"], columns={"text": "text"})
    wanted = [row["text"] for row in rows(2500) if row["label"] != "tool"]
    stream = Stream(lambda: source.blocks(["text", "label"], {}), Encoded)
    windows = stream.windows(300)
    passes = []
    for _ in range(2):
        found: list[str] = []
        while len(found) < len(wanted):
            found += next(windows)["text"][:]
        passes.append(found)
    assert passes == [wanted, wanted]
    assert len(stream.select([0, 1])) == 2


def test_what_a_stream_cannot_do_is_one_line(compose: Callable[..., Any], run: Ran) -> None:
    for overrides, message in (
        (["training.max_steps=null", "training.epochs=1"], "data.streaming=true: a stream has no epochs"),
        (["data.deduplicate=true"], "data.deduplicate=true: it needs all rows at once"),
        (["data.eval=null", "data.eval_share=0.1"], "data.eval_share=0.1: it needs all rows at once"),
    ):
        with pytest.raises(UserError, match=message):
            compose("data.streaming=true", *overrides)


UNNAMED = "data.streaming=true: the labels of a stream cannot be counted, and neither .* give task.labels="


@pytest.mark.parametrize("command", ["train", "show"])
@pytest.mark.parametrize("model", ["scratch_bert", "bundled"])
def test_labels_of_a_stream_that_nobody_names_are_asked_for(model: str, command: str, run: Ran, corpus: Path) -> None:
    for overrides in (["task=text_classification"], ["task=multi_label_classification", "data.train=lists.jsonl"]):
        lists = [row | {"label": [row["label"]]} for row in rows(60)]
        write_rows(corpus / "lists.jsonl", lists)
        evaluated = "data.eval=lists.jsonl" if len(overrides) > 1 else "data.eval=eval.jsonl"
        given = [*overrides, evaluated, f"model={model}", f"command={command}", "data.on_error=skip"]
        with pytest.raises(UserError, match=UNNAMED):
            run("data.streaming=true", *given)


@pytest.mark.parametrize("streaming", ["true", "false"])
def test_numbers_are_labels_as_they_are_typed(streaming: str, run: Ran, corpus: Path) -> None:
    numbered = [row | {"label": ["fruit", "animal", "tool"].index(row["label"])} for row in rows(60)]
    write_rows(corpus / "numbers.jsonl", numbered)
    files = ["data.train=numbers.jsonl", "data.eval=numbers.jsonl", f"data.streaming={streaming}"]
    result = run(*files, "task=text_classification", "task.labels=[2,0,1]")
    config = json.loads(Path(result["model"], "config.json").read_text())
    assert config["id2label"] == {"0": "2", "1": "0", "2": "1"}
    with pytest.raises(UserError, match="row 2: label: '[12]' is not among the labels"):
        run(*files, "task=text_classification", "task.labels=[0,3]")
    with pytest.raises(UserError, match="task.labels.1=true: it must be a string"):
        run(*files, "task=text_classification", "task.labels=[0,true]")


def test_labels_of_a_stream_are_the_models(run: Ran, corpus: Path) -> None:
    trained = run("task=text_classification")
    given = ["data.streaming=true", "task=text_classification", "model=pretrained", f"model.path={trained['model']}"]
    assert run(*given)["metrics"]["eval/loss"] > 0
    write_rows(corpus / "odd.jsonl", [*rows(60), {"text": "a b", "label": "fruits"}])
    with pytest.raises(UserError, match="odd.jsonl, row 61: label: 'fruits' is not among .* Did you mean 'fruit'"):
        run(*given, "data.train=odd.jsonl")
    result = run(*given, "data.train=odd.jsonl", "data.on_error=skip")
    assert [point["data/train_skipped"] for point in result["points"] if "data/train_skipped" in point] == [1.0]


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.csv", "text,label\na b,1\nc d,x\n" + "a,1\n" * 1200 + "a\n", "a.csv: line 1204 has 1 fields"),
        ("a.csv", "text,label\n" + "a b,1\n" * 1200 + "c d,x\n", "a.csv, row 1201: label: 'x' is no number"),
        (
            "a.jsonl",
            '{"text": "a b"}\n' * 1200 + '{"text": {"a": 1}}\n',
            "row 1201: text: is {'a': 1}, and text in",
        ),
        ("a.jsonl", '{"text": "a b"}\n' * 1200 + '{"text": null}\n', "a.jsonl, row 1201: text: is empty"),
        ("a.jsonl", '[{"text": "a b"}]', "is read at once"),
    ],
)
def test_bad_rows_of_a_stream(name: str, text: str, message: str, run: Ran, corpus: Path) -> None:
    (corpus / name).write_text(text)
    with pytest.raises(UserError) as caught:
        run(*STREAMED, f"data.train={name}", "training.max_steps=200", "data.columns.label=label")
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_repository_folder_is_streamed(tmp_path: Path) -> None:
    """As from the hub, where only what is read is fetched; the eval split is read whole."""
    from test_data import hub

    for split, number in (("train", 1500), ("validation", 20)):
        write_rows(tmp_path / f"{split}.jsonl", rows(number))
    source = hub(tmp_path, streaming=True, train_rows=1200)
    splits = source.load(("text", "label"), train=True)
    assert splits.train is not None
    assert (len(splits.train), len(splits.eval)) == (0, 20)
    found = [text for block in source.blocks(["text", "label"], {}) for text in block["text"]]
    assert found == [row["text"] for row in rows(1500)][:1200]
    with pytest.raises(UserError, match="data.train=train"):
        hub(tmp_path, streaming=True, train="train[:90%]").load(("text",), train=True)


@pytest.mark.parametrize("on_error", ["error", "skip"])
@pytest.mark.parametrize("streaming", [True, False])
def test_what_loses_an_unknown_number_of_rows_is_never_skipped(streaming: bool, on_error: str, tmp_path: Path) -> None:
    from datasets import Dataset
    from test_data import files

    quote, cut = tmp_path / "quote.csv", tmp_path / "cut.parquet"
    quote.write_text('text,label\na,x\nb,y\n"c,x\nd,y\n')
    Dataset.from_list(rows(100)).to_parquet(str(cut))
    cut.write_bytes(cut.read_bytes()[:300])
    for file, message in (
        (
            quote,
            "quote.csv: line 4: in this row a quote opens that never closes, .* mend it, or set data.quoting=false",
        ),
        (cut, "cut.parquet: cannot be read as parquet: "),
    ):
        source = files(train=str(file), eval=str(file), streaming=streaming, on_error=on_error)
        with pytest.raises(UserError, match=message) as caught:
            source.load(("text", "label"), train=True)
        assert "\n" not in str(caught.value)


def test_streams_are_mixed_by_weight_each_with_columns_of_its_own(tmp_path: Path) -> None:
    from test_data import files, mixture

    write_rows(tmp_path / "a.jsonl", [{"text": f"a{at}", "label": "x"} for at in range(6000)])
    (tmp_path / "b.csv").write_text("said,kind\n" + "".join(f"b{at},y\n" for at in range(2500)))
    a = files(train=str(tmp_path / "a.jsonl"), eval=str(tmp_path / "a.jsonl"), eval_rows=2)
    b = files(train=str(tmp_path / "b.csv"), eval=str(tmp_path / "b.csv"), eval_rows=3,
              columns={"text": "said", "label": "kind"}, filters=["said != b0"])  # fmt: skip

    def drawn(**settings: Any) -> tuple[list[str], list[str]]:
        made = mixture({"a": a, "b": b}, streaming=True, **settings)
        splits = made.load(("text", "label"), train=True)
        assert (len(splits.train or ()), len(splits.eval)) == (0, 5)
        texts, places = [], []
        for block in made.blocks(["text", "label"], {}):
            assert len(block) <= 1000
            texts += block["text"][:]
            places += [made.place("train", row) for row in block["_row"][::100]]
        return texts, places

    texts, places = drawn(weights={"a": 3, "b": 1})
    assert 0.73 < sum(text[0] == "a" for text in texts) / len(texts) < 0.77
    for name, first in (("a", 0), ("b", 1)):  # Each source in its own order, no row left out or twice.
        own = [text for text in texts if text[0] == name]
        assert own == [f"{name}{at}" for at in range(first, first + len(own))]
    assert max(texts.count("a5999"), texts.count("b2499")) == 1
    assert any(place.endswith("b.csv, row 2") or "b.csv" in place for place in places)
    assert drawn(weights={"a": 3, "b": 1})[0] == texts
    assert drawn(weights={"a": 3, "b": 1}, mixing_seed=1)[0] != texts
    assert drawn(weights={"a": 3, "b": 1}, train_rows=1500)[0] == texts[:1500]
    every = drawn(weights={"a": 3, "b": 1}, stopping="all_exhausted")[0]
    assert {*every} == {f"a{at}" for at in range(6000)} | {f"b{at}" for at in range(1, 2500)}
    assert len(every) > len({*every})


MIXED = ["data=mixture", "data.streaming=true", "data.weights={a: 2, b: 1}", "task=causal_lm", "task.max_length=24",
         *[f"+data@data.sources.{name}=files" for name in "ab"],
         *[f"data.sources.{name}.{side}={side}.jsonl" for name in "ab" for side in ("train", "eval")]]  # fmt: skip


def test_parity_of_mixed_streams(run: Ran, corpus: Path) -> None:
    shown = [each for each in SMALL if not each.startswith("data")]
    write_rows(corpus / "other.jsonl", [{"text": row["text"].upper()} for row in rows(80)])
    given = [*MIXED, "data.sources.b.train=other.jsonl"]
    curves = []
    for more in (["torch"], ["accelerate"], ["hf"], ["accelerate", "backend.processes=2"]):
        name = f"runs{len(curves)}"
        ended = command(*shown, *given, f"backend={more[0]}", *more[1:], f"runs_folder={name}", folder=corpus)
        assert ended.returncode == 0, ended.stderr
        (made,) = [path.parent for path in corpus.glob(f"{name}/*/journal.jsonl")]
        curves.append(curve(journal(made), *CURVES))
    assert curves[0] == curves[1] == curves[2]
    assert len(curves[0]) == 6
    for got, want in zip(curves[3], curves[0], strict=True):
        assert got[1:4] == pytest.approx(want[1:4], rel=1e-5)


def test_a_window_may_end_where_a_block_does(tmp_path: Path) -> None:
    from test_data import files

    write_rows(tmp_path / "a.jsonl", rows(2000))
    source = files(train=str(tmp_path / "a.jsonl"), eval=str(tmp_path / "a.jsonl"), streaming=True)
    windows = Stream(lambda: source.blocks(["text"], {}), Encoded).windows(1000)
    assert [len(next(windows)) for _ in range(4)] == [1000] * 4
