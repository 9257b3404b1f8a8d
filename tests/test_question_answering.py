"""Question answering: windows over long contexts, no answer, and answers that are pieces of the original text."""

from __future__ import annotations

import ast
import inspect
import itertools
import json
import math
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import from_yaml, same_on_all_backends, write_rows
from datasets import Dataset

from xp.data.stdlib_questions import questions
from xp.error import UserError
from xp.evaluation import evaluate
from xp.generation.greedy import Greedy
from xp.model import Wish
from xp.model.pretrained import Pretrained
from xp.model.tokenizer import train_tokenizer
from xp.task.question_answering import QuestionAnswering
from xp.task.spans import likeliest
from xp.task.windows import golds, layout, pieces

GREEDY = from_yaml(Greedy, max_new_tokens=8)
PLACES = ["Rome", "Oslo", "Lima", "Bonn am Rhein", "Łódź", "São Paulo"]


def asked(number: int) -> list[dict[str, Any]]:
    """Questions about who lives where, in contexts of very unequal length; a third of them have no answer."""
    made = []
    for at in range(number):
        people = [f"person{(at * 3 + each) % 11}" for each in range(1 + (at * 5) % 9)]
        homes = [PLACES[(at + 2 * each) % len(PLACES)] for each in range(len(people))]
        context = " ".join(f"{who} lives in {home}." for who, home in zip(people, homes, strict=True))
        about = at % len(people)
        who, home = ("nobody", "") if at % 3 == 2 else (people[about], homes[about])
        start = context.index(f"{who} lives in {home}.") + len(f"{who} lives in ") if home else 0
        answers = {"text": [home] if home else [], "answer_start": [start] if home else []}
        made.append({"id": f"q{at}", "question": f"Where does {who} live?", "context": context, "answers": answers})
    return made


ROWS = asked(30)
TEXTS = [text for row in ROWS for text in (row["question"], row["context"])]


def task(**settings: Any) -> QuestionAnswering:
    given: dict[str, Any] = {"max_length": 40, "max_question_tokens": 16, "stride": 8, "max_answer_tokens": 12}
    given |= {"no_answer_threshold": 0.0, "metrics": ["squad"]}
    return QuestionAnswering(name="question_answering", **given | settings)


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    """Of a decoder: it has no pairs and adds no end."""
    return train_tokenizer(TEXTS, 400)


def with_pairs(kind: str) -> Any:
    """The same, with the pairs of an encoder."""
    from tokenizers.processors import TemplateProcessing

    made = train_tokenizer(TEXTS, 400)
    made.add_special_tokens({"cls_token": "<|cls|>", "sep_token": "<|sep|>"})
    begin, end, cls, sep = 1, 2, made.cls_token_id, made.sep_token_id
    pair, specials = {
        "bert": ("<|cls|> $A <|sep|> $B:1 <|sep|>:1", [("<|cls|>", cls), ("<|sep|>", sep)]),
        "t5": ("$A <|end|> $B <|end|>", [("<|end|>", end)]),
        "llama": ("<|begin|> $A <|begin|> $B", [("<|begin|>", begin)]),
        "xlnet": ("$A <|sep|> $B <|sep|> <|cls|>", [("<|cls|>", cls), ("<|sep|>", sep)]),
    }[kind]
    made._tokenizer.post_processor = TemplateProcessing(single="$A", pair=pair, special_tokens=specials)
    made.model_input_names = ["input_ids", "token_type_ids", "attention_mask"]
    if kind in ("t5", "llama"):
        made.cls_token = made.sep_token = None
    return made


def network(tokenizer: Any, kind: str = "llama") -> Any:
    import transformers

    torch.manual_seed(0)
    size = {"vocab_size": len(tokenizer), "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2}
    config = transformers.AutoConfig.for_model(kind, **size, num_attention_heads=2, **task().config([]))
    made = transformers.AutoModelForQuestionAnswering.from_config(config)
    return made.eval()


def encoded(tokenizer: Any, rows: list[dict[str, Any]] | None = None, **settings: Any) -> Any:
    return task(**settings).encode(Dataset.from_list(rows or ROWS), tokenizer, [])


@pytest.mark.parametrize(("tokens", "room", "stride"), list(itertools.product([0, 1, 9, 10, 11, 57], [10, 3], [0, 2])))
def test_windows_reach_every_token_and_share_the_stride(tokens: int, room: int, stride: int) -> None:
    found = pieces(tokens, room, stride)
    assert found[0][0] == 0
    assert found[-1][1] == tokens
    assert all(end - start <= room for start, end in found)
    assert all(before[1] - after[0] == stride for before, after in itertools.pairwise(found))


@pytest.mark.parametrize("kind", ["none", "bert", "t5", "llama", "xlnet"])
def test_answers_are_where_the_windows_say(kind: str, tokenizer: Any) -> None:
    """In each window the labelled tokens are the answer's, in the original text, or the mark of no answer."""
    chosen = tokenizer if kind == "none" else with_pairs(kind)
    found = encoded(chosen)
    contexts = [row["context"] for row in ROWS]
    reached = set()
    assert found.notes["windows"] == len(found.rows) > 1.3 * len(ROWS)
    assert max(found.rows["length"]) <= 40
    for window in found.rows:
        context = contexts[window["example"]]
        assert context[window["offset"] :].startswith(window["passage"])
        tokens = window["input_ids"]
        mark = {"bert": chosen.cls_token_id, "xlnet": chosen.cls_token_id}.get(kind, chosen.eos_token_id)
        assert tokens[window["none"]] == mark
        assert window["none"] == (0 if kind == "bert" else len(tokens) - 1)
        if window["start"] != window["none"]:
            first, last = window["start"] - window["first"], window["end"] - window["first"]
            assert window["passage"][window["starts"][first] : window["ends"][last]].strip(" .") in window["answers"]
            reached.add(window["example"])
    assert reached == {at for at, row in enumerate(ROWS) if row["answers"]["text"]}
    assert found.notes["unanswerable"] == len(ROWS) - len(reached) == 10


def test_a_window_of_an_encoder_is_what_its_tokenizer_makes_of_the_pair() -> None:
    bert = with_pairs("bert")
    (window,) = encoded(bert, ROWS[:1]).rows
    pair = bert(ROWS[0]["question"], ROWS[0]["context"])
    assert window["input_ids"] == pair["input_ids"]
    assert window["token_type_ids"] == pair["token_type_ids"]
    assert set(pair["token_type_ids"]) == {0, 1}


def test_the_layout_of_a_decoder_ends_both_parts(tokenizer: Any) -> None:
    for chosen in (tokenizer, with_pairs("llama")):
        form = layout(chosen)
        assert (form.before, form.between, form.after, form.no_answer) == ([1], [2], [2], -1)


def test_a_tokenizer_without_places_or_end_is_refused(tokenizer: Any) -> None:
    from transformers import CanineTokenizer

    with pytest.raises(UserError, match="cannot say where in the text"):
        layout(CanineTokenizer())
    bare = train_tokenizer(TEXTS, 400)
    bare.eos_token = None
    with pytest.raises(UserError, match="no end token"):
        layout(bare)


def test_answers_longer_than_a_window_and_long_questions_are_counted(tokenizer: Any) -> None:
    context = max((row["context"] for row in ROWS), key=len)
    row = {"question": "Where? " * 20, "context": context, "answers": {"text": [context], "answer_start": [0]}}
    found = encoded(tokenizer, [row, ROWS[0]])
    assert found.notes["answer_in_no_window"] == 1
    assert found.notes["question_cut"] == 1
    assert {window["start"] == window["none"] for window in found.rows if window["example"] == 0} == {True}


FAULTS = [
    ({"question": " "}, "question: is empty"),
    ({"context": ""}, "context: is empty"),
    ({"question": None}, "question: is NoneType, not text"),
    ({"answers": None}, "answers: needs {text"),
    ({"answers": {"text": ["a"], "answer_start": []}}, "as many of each"),
    ({"answers": {"text": ["Oslo"], "answer_start": [3]}}, "'Oslo' is not in the context at character 3; it is at 12"),
    ({"answers": {"text": ["Bern"], "answer_start": [3]}}, "at character 3 nor anywhere in it"),
    ({"answers": {"text": ["Oslo"], "answer_start": [-1]}}, "not in the context"),
    ({"answers": {"text": [""], "answer_start": [3]}}, "is not a text and the number"),
    ({"answers": {"text": ["Oslo"], "answer_start": ["12"]}}, "is not a text and the number"),
]


@pytest.mark.parametrize(("change", "message"), FAULTS)
def test_a_fault_names_the_column(change: dict[str, Any], message: str) -> None:
    row = {"question": "Where?", "context": "He lives in Oslo or Oslo.", "answers": {"text": [], "answer_start": []}}
    assert task().fault(row) is None
    assert message in str(task().fault(row | change))


def test_a_flat_answer_is_looked_for_and_must_be_there_once() -> None:
    row = {"question": "Where?", "context": "He lives in Oslo, not in Rome. Rome!"}
    assert golds(row | {"answer": "Oslo"}) == [("Oslo", 12)]
    assert golds(row | {"answer": ""}) == golds(row | {"answer": None}) == []
    assert "in the context 2 times" in str(task().fault(row | {"answer": "Rome"}))
    assert "is not in the context" in str(task().fault(row | {"answer": "Bern"}))
    assert "not text" in str(task().fault(row | {"answer": 3}))


def test_answers_may_be_a_list_of_pairs() -> None:
    row = {"context": "in Oslo", "answers": [{"text": "Oslo", "answer_start": 3}]}
    assert golds(row) == [("Oslo", 3)]


@pytest.mark.parametrize("kind", ["llama", "bert"])
def test_loss_is_the_models_own_of_each_window_and_does_not_depend_on_padding(kind: str, tokenizer: Any) -> None:
    chosen = with_pairs("bert") if kind == "bert" else tokenizer
    windows = list(encoded(chosen).rows)[:12]
    model = network(chosen, kind)
    names = ("input_ids", "attention_mask", "token_type_ids")
    own = []
    for window in windows:
        batch = task().collate([[window]], chosen)
        inputs = {name: batch[name] for name in names if name in batch}
        own.append(model(**inputs, start_positions=batch["start"], end_positions=batch["end"]).loss)
    whole = task().collate([[window] for window in windows], chosen)
    torch.testing.assert_close(task().loss(model, whole, 0.0), torch.stack(own).sum())
    smoothed = sum(task().loss(model, task().collate([[window]], chosen), 0.1) for window in windows)
    torch.testing.assert_close(task().loss(model, whole, 0.1), smoothed)
    assert not torch.isclose(task().loss(model, whole, 0.1), torch.stack(own).sum())


def test_the_likeliest_answer_is_that_of_all_pairs(tokenizer: Any) -> None:
    batch = task().collate([[window] for window in list(encoded(tokenizer).rows)[:8]], tokenizer)
    generator = torch.Generator().manual_seed(0)
    start, end = (torch.randn(batch["input_ids"].shape, generator=generator) for _ in range(2))
    found = likeliest(start, end, batch, 3)
    for row in range(8):
        first, none = int(batch["first"][row]), int(batch["none"][row])
        places = range(first, first + int(batch["count"][row]))
        pairs = {(a, b): start[row, a] + end[row, b] for a in places for b in places if a <= b < a + 3}
        best = max(pairs, key=lambda pair: float(pairs[pair]))
        assert (found["start"][row] + first, found["end"][row] + first) == best
        assert found["score"][row] == pytest.approx(float(pairs[best] - start[row, none] - end[row, none]), abs=1e-5)
        kept = [none, *places]
        probability = start[row, kept].softmax(-1)[0] * end[row, kept].softmax(-1)[0]
        assert math.exp(found["none"][row]) == pytest.approx(float(probability), rel=1e-5)


def perfect(windows: Dataset, tokenizer: Any) -> dict[str, np.ndarray]:
    """Outcomes of logits that know the labels."""
    batch = task().collate([[window] for window in windows], tokenizer)
    shape = batch["input_ids"].shape
    start, end = (torch.zeros(shape).scatter(1, batch[name][:, None], 9.0) for name in ("start", "end"))
    return {"loss": np.zeros(shape[0])} | likeliest(start, end, batch, 12)


def test_who_knows_the_labels_scores_100_over_the_original_text(tokenizer: Any) -> None:
    windows = encoded(tokenizer).rows
    outcomes = perfect(windows, tokenizer)
    assert task().score(outcomes, windows, []) == {"exact_match": 100.0, "f1": 100.0, "loss": 0.0}
    forced = task(no_answer_threshold=None).score(outcomes, windows, [])
    assert forced["exact_match"] == pytest.approx(100 * 20 / 30)  # The ten without an answer get one.
    silent = task(no_answer_threshold=-100.0).score(outcomes, windows, [])
    assert silent["exact_match"] == pytest.approx(100 * 10 / 30)
    tables = task().findings(outcomes, windows, [], tokenizer).tables
    assert tables["questions"]["number"] == [20, 10]
    assert tables["questions"]["exact_match"] == [100.0, 100.0]


def test_baseline_is_the_most_frequent_answer(tokenizer: Any) -> None:
    assert task().baseline(encoded(tokenizer).rows, [])["exact_match"] == pytest.approx(100 * 10 / 30)
    answered = [row for row in ROWS if row["answers"]["text"]]
    counts = [sum(row["answers"]["text"] == [place] for row in answered) for place in PLACES]
    scores = task().baseline(encoded(tokenizer, answered).rows, [])
    assert scores["exact_match"] == pytest.approx(100 * max(counts) / len(answered))


@pytest.mark.parametrize("batch_size", [1, 5, 64])
def test_scores_do_not_depend_on_the_batch_size(batch_size: int, tokenizer: Any) -> None:
    windows, model = encoded(tokenizer).rows, network(tokenizer)
    whole, other = (
        evaluate(task(), model, windows, [], tokenizer, GREEDY, size, torch.device("cpu"), nullcontext)
        for size in (16, batch_size)
    )
    assert other.scores == pytest.approx(whole.scores, rel=1e-5)
    assert other.outcomes["start"].tolist() == whole.outcomes["start"].tolist()


def test_predictions_are_pieces_of_the_context_with_their_place(tokenizer: Any) -> None:
    """Against the network's own logits over the whole context, and equal to what an evaluation finds."""
    model = network(tokenizer)
    inputs = [{"question": row["question"], "context": row["context"]} for row in ROWS[:12]]
    with torch.inference_mode():
        found = task(no_answer_threshold=None).answer(inputs, model, tokenizer, GREEDY)
        short = task(no_answer_threshold=None).answer(inputs[:1], model, tokenizer, GREEDY)
        form = layout(tokenizer)
        question = tokenizer(inputs[0]["question"], add_special_tokens=False)["input_ids"]
        context = tokenizer(inputs[0]["context"], add_special_tokens=False, return_offsets_mapping=True)
        tokens = torch.tensor([form.joined(question, context["input_ids"])])
        output = model(input_ids=tokens)
    first = len(question) + 2
    kept = [*range(first, first + len(context["input_ids"])), tokens.shape[1] - 1]
    start, end = output.start_logits[0, kept].softmax(-1), output.end_logits[0, kept].softmax(-1)
    size = len(context["input_ids"])
    chances = {(a, b): float(start[a] * end[b]) for a in range(size) for b in range(a, min(size, a + 12))}
    best = max(chances, key=lambda pair: chances[pair])
    assert short[0]["score"] == pytest.approx(chances[best], rel=1e-4)
    begin, stop = context["offset_mapping"][best[0]][0], context["offset_mapping"][best[1]][1]
    assert short[0]["answer"] == inputs[0]["context"][begin:stop].strip()
    for given, one in zip(inputs, found, strict=True):
        assert given["context"][one["start"] : one["end"]] == one["answer"] != ""
        assert json.loads(json.dumps(one)) == one
    windows = encoded(tokenizer, ROWS[:12]).rows
    outcomes = evaluate(task(), model, windows, [], tokenizer, GREEDY, 4, torch.device("cpu"), nullcontext).outcomes
    from xp.task.spans import found as over_windows

    assert [each["answer"] for each in over_windows(outcomes, windows["example"][:], windows, None)] == [
        each["answer"] for each in found
    ]


def test_an_impossible_answer_is_empty_with_the_probability_of_none(tokenizer: Any) -> None:
    inputs = [{"question": ROWS[0]["question"], "context": ROWS[0]["context"]}]
    with torch.inference_mode():
        (found,) = task(no_answer_threshold=-100.0).answer(inputs, network(tokenizer), tokenizer, GREEDY)
    assert (found["answer"], found["start"], found["end"]) == ("", 0, 0)
    assert 0 < found["score"] < 1


def test_windows_without_room_are_refused() -> None:
    with pytest.raises(ValueError, match="max_length=32: max_question_tokens=16 and stride=8 leave a window no room"):
        task(max_length=32)


def wish(task: QuestionAnswering, train: bool = True) -> Wish:
    return Wish(
        auto_class=task.auto_class,
        processor_class=task.processor_class,
        config=task.config,
        labels=[],
        texts=list,
        dtype=torch.float32,
        peft_type=task.peft_type,
        train=train,
        locate=lambda path: path,
        device=torch.device("cpu"),
        computes_in=torch.float32,
    )


def load(path: str, train: bool = True) -> Any:
    model = from_yaml(Pretrained, path=path)
    return model.load(wish(task(), train))


def test_a_decoder_keeps_its_weights_though_the_head_calls_them_otherwise(tmp_path: Path) -> None:
    """transformers' heads for Llama, Qwen and others would begin with random weights."""
    from transformers import AutoModelForCausalLM

    loaded = load("bundled")
    assert loaded.new == ["qa_outputs.bias", "qa_outputs.weight"]
    own = AutoModelForCausalLM.from_pretrained("xp/assets/bundled" if Path("xp").is_dir() else _bundled())
    for name, value in own.model.state_dict().items():
        assert torch.equal(loaded.network.transformer.state_dict()[name], value.float()), name
    loaded.network.save_pretrained(tmp_path)
    loaded.processor.save_pretrained(tmp_path)
    again = load(str(tmp_path), train=False)
    assert again.new == []
    assert torch.equal(again.network.qa_outputs.weight, loaded.network.qa_outputs.weight)


def _bundled() -> str:
    from xp.model.pretrained import ASSETS

    return str(ASSETS / "bundled")


def test_a_head_for_other_classes_becomes_one_for_answers(tmp_path: Path, tokenizer: Any) -> None:
    import transformers

    size = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = transformers.BertConfig(vocab_size=len(tokenizer), **size, id2label={0: "a", 1: "b", 2: "c"})
    transformers.AutoModelForSequenceClassification.from_config(config).save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    loaded = load(str(tmp_path))
    assert loaded.labels == []
    assert loaded.network.qa_outputs.out_features == 2


def test_questions_about_the_library_have_their_answer_in_the_source() -> None:
    made = list(questions("ast.py", inspect.getsource(ast)))
    assert len(made) > 50
    assert all(task().fault(row) is None for row in made)
    answers = {row["question"]: row["answers"]["text"] for row in made}
    assert answers["What is the default of filename in parse?"] == ["'<unknown>'"]
    assert answers["What does get_docstring raise?"] == ["TypeError"]
    assert 0 < sum(not row["answers"]["text"] for row in made) < len(made)


def test_the_library_gives_both_splits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from xp.config import compose
    from xp.run import Run

    monkeypatch.chdir(tmp_path)
    compose.initialize(None)
    run = Run.parse(compose.values(["data=stdlib_questions", "data.train_rows=300", "data.eval_rows=60"]))
    splits = run.data.load(QuestionAnswering.columns, QuestionAnswering.other_columns, ("id",), train=True)
    assert splits.train is not None
    assert all(task().fault(row) is None for rows in (splits.train, splits.eval) for row in rows)
    assert len(set(splits.train["id"])) == 300


Ran = Callable[..., dict[str, Any]]
RUN = [
    "task=question_answering",
    "task.max_length=40",
    "task.max_question_tokens=16",
    "task.stride=8",
    "model.config.attention_dropout=0.2",
    "training.micro_batch_size=3",
    "training.evaluate_every=3",
    "training.learning_rate=1e-2",
]


@pytest.fixture
def answers(corpus: Path) -> Path:
    write_rows(corpus / "train.jsonl", ROWS)
    write_rows(corpus / "eval.jsonl", asked(42)[30:])
    return corpus


@pytest.mark.parametrize("peft", ["none", "lora"])
def test_parity(peft: str, answers: Path, run: Ran) -> None:
    points = same_on_all_backends(run, *RUN, f"peft={peft}")
    assert len(points) == 6
    assert points[-1][1] < points[0][1]


def test_a_trained_model_is_evaluated_and_trained_further(answers: Path, run: Ran) -> None:
    trained = run(*RUN)
    path = ["model=pretrained", f"model.path={trained['model']}"]
    again = run(*[each for each in RUN if "dropout" not in each], *path, "command=evaluate")
    assert again["metrics"] == pytest.approx(trained["metrics"], rel=1e-5)
    assert load(trained["model"]).new == []
