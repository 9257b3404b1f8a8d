"""Text to text: what encoder-decoders learn from, what they write, and how that is scored."""

from __future__ import annotations

import ast
import inspect
import logging
import math
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import command, from_yaml, same_on_all_backends, write_rows
from datasets import Dataset

from xp.data.stdlib_summaries import docstrings, names
from xp.error import UserError
from xp.evaluation import evaluate
from xp.generation import Generation
from xp.generation.beam import Beam
from xp.generation.greedy import Greedy
from xp.model.tokenizer import train_tokenizer
from xp.task import languages
from xp.task.base import IGNORE
from xp.task.identity import processor_identity
from xp.task.text2text_generation import Text2TextGeneration, _shifted

WORDS = ["apple", "pear", "plum", "fig", "cat", "dog", "cow"]


def pairs(number: int) -> list[dict[str, str]]:
    """Words, of very unequal number, and the same in capitals."""
    made = []
    for at in range(number):
        words = " ".join(WORDS[(at * at + each) % len(WORDS)] for each in range(1 + (at * 5) % 13))
        made.append({"text": words, "target": words.upper()[: 4 + 9 * (at % 3)]})
    return made


ROWS = pairs(24)
GREEDY = from_yaml(Greedy, max_new_tokens=12)


def task(**settings: Any) -> Text2TextGeneration:
    given: dict[str, Any] = {"max_length": 64, "max_target_length": 32, "overlong": "truncate", "prefix": ""}
    given |= {"source_language": None, "target_language": None, "metrics": ["rouge", "exact_match"]}
    return Text2TextGeneration(name="text2text_generation", **given | settings)


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return train_tokenizer([text for row in ROWS for text in row.values()], 350)


SIZES: dict[str, dict[str, Any]] = {
    "t5": {"d_model": 32, "d_kv": 16, "d_ff": 64, "num_layers": 2, "num_heads": 2},
    "bart": {"d_model": 32, "encoder_layers": 2, "decoder_layers": 2, "encoder_attention_heads": 2}
    | {"decoder_attention_heads": 2, "encoder_ffn_dim": 64, "decoder_ffn_dim": 64, "max_position_embeddings": 64},
}
SIZES["m2m_100"] = SIZES["mbart"] = SIZES["bart"]


def network(tokenizer: Any, kind: str = "t5") -> Any:
    import transformers

    torch.manual_seed(1)
    tokens = {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0, "decoder_start_token_id": 1}
    config = transformers.AutoConfig.for_model(kind, vocab_size=len(tokenizer), **tokens, **SIZES[kind])
    made = transformers.AutoModelForSeq2SeqLM.from_config(config)
    if kind != "t5":  # So that it does not write one token for ever.
        torch.nn.init.normal_(made.get_input_embeddings().weight, std=0.5)
    return made.eval()


def encoded(tokenizer: Any, rows: list[dict[str, str]] | None = None, **settings: Any) -> Any:
    return task(**settings).encode(Dataset.from_list(rows or ROWS), tokenizer, [])


def batch_of(tokenizer: Any, number: int = 8, **settings: Any) -> dict[str, torch.Tensor]:
    return task().collate([[row] for row in list(encoded(tokenizer, **settings).rows)[:number]], tokenizer)


@pytest.mark.parametrize("kind", SIZES)
def test_loss_is_the_models_own_times_the_tokens(kind: str, tokenizer: Any) -> None:
    model, batch = network(tokenizer, kind), batch_of(tokenizer)
    items = int((batch["labels"] != IGNORE).sum())
    assert items == sum(encoded(tokenizer).rows["items"][:8])
    torch.testing.assert_close(task().loss(model, batch, 0.0), model(**batch).loss * items)


def test_loss_does_not_depend_on_padding(tokenizer: Any) -> None:
    model = network(tokenizer)
    windows = list(encoded(tokenizer).rows)
    for smoothing in (0.0, 0.1):
        single = sum(task().loss(model, task().collate([[row]], tokenizer), smoothing) for row in windows)
        whole = task().loss(model, task().collate([[row] for row in windows], tokenizer), smoothing)
        torch.testing.assert_close(whole, single)


def test_targets_end_once_and_with_the_prefix_texts_begin(tokenizer: Any) -> None:
    found = encoded(tokenizer, prefix="say: ").rows
    for row, given in zip(found, ROWS, strict=True):
        assert row["labels"].count(2) == 1
        assert row["labels"][-1] == 2
        assert tokenizer.decode(row["labels"], skip_special_tokens=True) == given["target"] == row["target"]
        assert tokenizer.decode(row["input_ids"], skip_special_tokens=True) == "say: " + given["text"]
        assert (row["items"], row["length"]) == (len(row["labels"]), len(row["input_ids"]))


def test_long_texts_and_long_targets_are_counted_apart(tokenizer: Any) -> None:
    whole = encoded(tokenizer).rows
    texts = sum(length > 8 for length in whole["length"])
    targets = sum(length > 5 for length in whole["items"])
    either = sum(a > 8 or b > 5 for a, b in zip(whole["length"], whole["items"], strict=True))
    assert 0 < texts < 24 > targets > 0 < either < texts + targets
    small = {"max_length": 8, "max_target_length": 5}
    cut = encoded(tokenizer, **small)
    assert cut.notes == {"rows": 24, "truncated_texts": texts, "truncated_targets": targets}
    assert (max(cut.rows["length"]), max(cut.rows["items"])) == (8, 5)
    assert {row[-1] for row in cut.rows["labels"]} == {2}
    dropped = encoded(tokenizer, **small, overlong="drop")
    assert dropped.notes == {"rows": 24, "long_texts": texts, "long_targets": targets, "dropped": either}
    assert len(dropped.rows) == 24 - either
    with pytest.raises(UserError, match=f"{texts} of 24 texts .* {targets} targets"):
        encoded(tokenizer, **small, overlong="error")


@pytest.mark.parametrize(("column", "value"), [("text", " "), ("target", ""), ("target", None), ("text", 3)])
def test_a_fault_names_the_column(column: str, value: Any) -> None:
    assert task().fault(ROWS[0]) is None
    assert str(task().fault(ROWS[0] | {column: value})).startswith(f"{column}: is ")


def by_hand(model: Any, tokens: list[int], most: int) -> list[int]:
    """Greedy decoding, one forward pass a token, without padding and cache."""
    written = [1]
    with torch.inference_mode():
        while len(written) <= most and (written[-1] != 2 or len(written) == 1):
            output = model(input_ids=torch.tensor([tokens]), decoder_input_ids=torch.tensor([written]))
            written.append(int(output.logits[0, -1].argmax()))
    return written[1:]


@pytest.mark.parametrize("kind", ["t5", "bart"])
def test_greedy_writes_what_the_forward_pass_says_whatever_shares_the_batch(kind: str, tokenizer: Any) -> None:
    model, rows = network(tokenizer, kind), list(encoded(tokenizer).rows)
    batch = batch_of(tokenizer, len(rows))
    inputs = {name: batch[name] for name in ("input_ids", "attention_mask")}
    with torch.inference_mode():
        together = GREEDY.generate(model, inputs, tokenizer).tolist()
    for row, written in zip(rows, together, strict=True):
        expected = by_hand(model, row["input_ids"], 12)
        assert written[: len(expected)] == expected
        assert set(written[len(expected) :]) <= {0}


def test_a_models_own_habits_have_no_say_and_come_back(tokenizer: Any, caplog: pytest.LogCaptureFixture) -> None:
    """As those of the hub's summarizers: transformers would follow them, and warn of what contradicts them."""
    from transformers.utils import logging as transformers_logging

    transformers_logging.enable_propagation()
    model, batch = network(tokenizer), batch_of(tokenizer)
    inputs = {name: batch[name] for name in ("input_ids", "attention_mask")}
    beam = from_yaml(Beam, max_new_tokens=12, num_beams=3, length_penalty=2.0)
    kinds: list[Generation] = [GREEDY, beam]
    with torch.inference_mode(), caplog.at_level(logging.WARNING):
        plain = [each.generate(model, inputs, tokenizer).tolist() for each in kinds]
        habits = {"num_beams": 4, "max_length": 5, "min_length": 4, "length_penalty": 0.5, "early_stopping": True}
        for name, value in (habits | {"repetition_penalty": 3.0, "do_sample": True, "top_k": 3}).items():
            setattr(model.generation_config, name, value)
        own = model.generation_config.to_dict()
        assert [each.generate(model, inputs, tokenizer).tolist() for each in kinds] == plain
    transformers_logging.disable_propagation()
    assert model.generation_config.to_dict() == own
    assert [record.getMessage() for record in caplog.records if record.name.startswith("transformers")] == []
    assert plain[0] != plain[1]


def test_more_tokens_than_there_are_positions_are_refused(tokenizer: Any) -> None:
    many = GREEDY.model_copy(update={"max_new_tokens": 64})
    batch = batch_of(tokenizer)
    with pytest.raises(UserError, match="generation.max_new_tokens=64: this model writes at most 63 tokens"):
        many.generate(network(tokenizer, "bart"), {"input_ids": batch["input_ids"]}, tokenizer)


def test_an_answer_ends_before_a_stop_string_and_is_finished_there(tokenizer: Any) -> None:
    model, rows = network(tokenizer), encoded(tokenizer).rows
    plain = evaluate(task(), model, rows, [], tokenizer, GREEDY, 8, torch.device("cpu"), nullcontext)
    text = next(each for each in plain.outcomes["text"] if len(each) > 4)
    stop = from_yaml(Greedy, max_new_tokens=12, stop_strings=[text[2:4]])
    found = evaluate(task(), model, rows, [], tokenizer, stop, 8, torch.device("cpu"), nullcontext)
    ended = [text[2:4] in each for each in plain.outcomes["text"]]
    assert not any(text[2:4] in each for each in found.outcomes["text"])
    assert found.outcomes["finished"][ended].all()
    assert [one == other for one, other in zip(found.outcomes["text"], plain.outcomes["text"], strict=True)] == [
        not each for each in ended
    ]


@pytest.mark.parametrize("batch_size", [1, 7, 64])
def test_an_evaluation_scores_what_is_written(batch_size: int, tokenizer: Any) -> None:
    model, rows = network(tokenizer), encoded(tokenizer).rows
    found = evaluate(task(), model, rows, [], tokenizer, GREEDY, batch_size, torch.device("cpu"), nullcontext)
    written = [by_hand(model, row["input_ids"], 12) for row in rows]
    texts = [tokenizer.decode(tokens, skip_special_tokens=True).strip() for tokens in written]
    assert found.outcomes["text"].tolist() == texts
    assert found.scores["finished"] == sum(2 in tokens for tokens in written) / 24
    assert tuple(found.scores) == task().scores
    with torch.inference_mode():
        assert [each["generated_text"] for each in task().answer(ROWS, model, tokenizer, GREEDY)] == texts
        items = sum(rows["items"])
        losses = sum(float(task().loss(model, task().collate([[row]], tokenizer), 0.0)) for row in rows)
    assert found.scores["loss"] == pytest.approx(losses / items, rel=1e-5)


def test_scores_of_the_right_texts_are_perfect_and_the_baseline_is_constant(tokenizer: Any) -> None:
    import numpy as np

    rows = encoded(tokenizer).rows
    outcomes = {"loss": np.ones(24), "text": np.asarray(rows["target"][:], dtype=object), "finished": np.ones(24)}
    scores = task().score(outcomes, rows, [])
    assert scores["rouge1"] == scores["exact_match"] == scores["finished"] == 1.0
    targets = rows["target"][:]
    most = max(set(targets), key=targets.count)
    assert task().baseline(rows, [])["exact_match"] == targets.count(most) / 24


def test_without_metrics_nothing_is_written(tokenizer: Any) -> None:
    silent = task(metrics=[])
    assert silent.scores == ("loss",)
    rows = encoded(tokenizer).rows
    found = evaluate(silent, network(tokenizer), rows, [], tokenizer, None, 8, torch.device("cpu"), nullcontext)  # type: ignore[arg-type]
    assert set(found.scores) == {"loss"}
    assert math.isfinite(found.scores["loss"])


def test_a_prediction_of_a_long_text_loses_its_end(tokenizer: Any) -> None:
    long = {"text": "cat " * 50}
    with torch.inference_mode():
        (found,) = task(max_length=8).answer([long], network(tokenizer), tokenizer, GREEDY)
    tokens = tokenizer("cat " * 50, truncation=True, max_length=8)["input_ids"]
    written = by_hand(network(tokenizer), tokens, 12)
    assert found == {"generated_text": tokenizer.decode(written, skip_special_tokens=True).strip()}


def test_languages_are_for_tokenizers_that_know_some(tokenizer: Any) -> None:
    with pytest.raises(UserError, match="task.target_language=de_DE: this model's tokenizer knows no languages"):
        languages.settle(tokenizer, None, "de_DE")
    languages.settle(tokenizer, None, None)
    assert languages.first_token(tokenizer, None) is None


def test_answers_begin_with_the_token_of_their_language() -> None:
    from transformers import NllbTokenizer

    several = NllbTokenizer(
        vocab={"<s>": 0, "<pad>": 1, "</s>": 2, "<unk>": 3, "▁": 4, "a": 5, "▁a": 6}, merges=[("▁", "a")]
    )
    with pytest.raises(UserError, match="task.source_language=None"):
        languages.settle(several, None, "deu_Latn")
    with pytest.raises(UserError, match="Did you mean 'deu_Latn'"):
        languages.settle(several, "eng_Latn", "deu_Latin")
    token = languages.first_token(several, "deu_Latn")
    assert token == several.convert_tokens_to_ids("deu_Latn") != several.unk_token_id
    translation = task(source_language="eng_Latn", target_language="deu_Latn")
    assert translation.equip(several, None, adapted=False) == []
    equipped = processor_identity(several)
    (row,) = translation.encode(Dataset.from_list([{"text": "a a", "target": "a"}]), several, []).rows
    # What encoding changes in a tokenizer would not be saved where the rows come from the cache.
    assert processor_identity(several) == equipped
    assert several.convert_tokens_to_ids("eng_Latn") in row["input_ids"]
    assert token in row["labels"]
    model = network(several, "m2m_100")
    batch = translation.collate([[row]], several)
    with torch.inference_mode():
        inputs = {name: batch[name] for name in ("input_ids", "attention_mask")}
        assert GREEDY.generate(model, inputs, several, first=token)[0, 0] == token


def test_the_library_gives_names() -> None:
    source = inspect.getsource(ast)
    named = {row["target"]: row["text"] for row in names("ast.py", source)}
    assert named["literal eval"].startswith("def _(node_or_string):")
    assert not any("literal_eval(" in text for target, text in named.items() if target == "literal eval")


def test_docstrings_are_told_as_words() -> None:
    told = {row["target"]: row["text"] for row in docstrings("ast.py", inspect.getsource(ast))}
    written = "def parse source filename unknown mode exec type comments false feature version none flags"
    assert told["parse the source into an ast node"] == written


FUNCTIONS = '''
def getHTTPName(self, key_2):
    """Return the name. It is not the key."""
    return self.names[key_2]

def listed(self):
    """All of them, in order:

    first the old ones.
    """
    return sorted(self)

def only_described(self):
    """There is nothing to be seen here."""

def on_one_line(self): """It is hard to take out."""; return 1

def example(self):
    """>>> example() is what this shows."""
    return None

def short(self):
    """Two words."""
    return 2

def talkative(self):
    """One two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen."""
    return 17

def silent(self):
    return 0
'''


def test_a_docstring_is_its_first_sentence_and_has_a_function_to_describe() -> None:
    assert list(docstrings("one.py", FUNCTIONS)) == [
        {"text": "def get http name self key 2 return self names key 2", "target": "return the name"},
        {"text": "def listed self return sorted self", "target": "all of them in order"},
    ]


Ran = Callable[..., dict[str, Any]]
SEQ2SEQ = [
    "model=scratch_bart",
    "model.config.d_model=32",
    "model.config.encoder_ffn_dim=64",
    "model.vocabulary=300",
    "task=text2text_generation",
    "generation.max_new_tokens=6",
]
RUN = [
    *SEQ2SEQ,
    "model.config.dropout=0.2",
    "training.micro_batch_size=3",
    "training.evaluate_every=3",
    "training.label_smoothing=0.1",
]


@pytest.fixture
def written(corpus: Path) -> Path:
    write_rows(corpus / "train.jsonl", pairs(40))
    write_rows(corpus / "eval.jsonl", pairs(52)[40:])
    return corpus


@pytest.mark.parametrize("peft", ["none", "lora"])
def test_parity(peft: str, written: Path, run: Ran) -> None:
    points = same_on_all_backends(run, *RUN, f"peft={peft}")
    assert len(points) == 6
    assert points[-1][1] < points[0][1]


def test_a_trained_model_writes_the_same_when_it_is_evaluated(written: Path, run: Ran) -> None:
    trained = run(*SEQ2SEQ, "training.learning_rate=1e-2", "task=translation")
    assert {"eval/bleu", "eval/chrf", "eval/loss", "eval/finished"} == set(trained["metrics"])
    rest = ["task=translation", "generation.max_new_tokens=6", "command=evaluate"]
    again = run("model=pretrained", f"model.path={trained['model']}", *rest)
    assert again["metrics"] == pytest.approx(trained["metrics"], rel=1e-5)


LLAMA = ("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads",
         "max_position_embeddings")  # fmt: skip
T5 = ("d_model=32", "d_kv=16", "d_ff=64", "num_layers=1", "num_heads=2")
BART = ["model=scratch_bart", *(f"model.config.{size}" for size in ("d_model=32", "encoder_ffn_dim=64"))]
KINDS = {
    "t5": ["model=scratch", *(f"~model.config.{name}" for name in LLAMA), *(f"+model.config.{size}" for size in T5)],
    "bart": BART,
    "mbart": BART,
}


@pytest.mark.parametrize("kind", KINDS)
def test_a_model_from_scratch_writes_from_where_it_was_trained_to_begin(kind: str, written: Path, run: Ran) -> None:
    """T5 knows no positions: with a begin token before the begin token it would write that one for ever."""
    from transformers import AutoModelForSeq2SeqLM

    recipe = ["training.max_steps=80", "training.learning_rate=1e-2", "generation.max_new_tokens=40"]
    given = [*KINDS[kind], f"model.type={kind}", "model.vocabulary=300", "task=text2text_generation"]
    trained = run(*given, *recipe)
    assert trained["metrics"]["eval/finished"] > 0.5
    assert trained["metrics"]["eval/rouge1"] > 0.1
    network = AutoModelForSeq2SeqLM.from_pretrained(trained["model"])
    labels = torch.tensor([[1, 290, 2]])
    assert _shifted(network, labels)[0, 0] == network.config.decoder_start_token_id


def test_a_decoder_is_sent_to_chat(written: Path) -> None:
    settings = ["data=files", "data.train=train.jsonl", "data.eval=eval.jsonl", "tracking.log_model=false"]
    ended = command(*settings, "model=bundled", "task=text2text_generation", folder=written)
    assert ended.returncode == 2
    assert "xp: model.path=bundled: transformers has no AutoModelForSeq2SeqLM for this architecture" in ended.stderr
    assert "task=chat" in ended.stderr
