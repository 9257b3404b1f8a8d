"""Token classification: tags of words at the tokens of words, every word scored once."""

from __future__ import annotations

from collections.abc import Callable
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import rows, write_rows
from datasets import ClassLabel, Dataset, Features, List, Value
from test_backend import CURVES, curve

from xp.error import UserError
from xp.model.tokenizer import train_tokenizer
from xp.task.base import IGNORE
from xp.task.encoding import encode_words, frame, word_windows
from xp.task.token_classification import TokenClassification

Ran = Callable[..., dict[str, Any]]
WORDS = ["Anna", "Lee", "walks", "unbelievably", "far", "(", "to", "Rome", ")", "."]
TAGS = ["B-PER", "I-PER", "O", "O", "O", "O", "O", "B-LOC", "O", "O"]
NAMES = ["B-LOC", "B-PER", "I-PER", "O"]


def byte_level() -> Any:
    return train_tokenizer([" ".join(WORDS), "far to walk to Rome, Anna Lee"], 290)


def word_pieces() -> Any:
    """A tokenizer like BERT's: it lowers, strips control characters, and puts a frame around the text."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    pieces = [
        "[PAD]",
        "[UNK]",
        "[CLS]",
        "[SEP]",
        "[MASK]",
        *"abcdefghijklmnopqrstuvwxyz().,",
        "##a",
        "##n",
        "an",
        "##na",
    ]
    pieces += [f"##{letter}" for letter in "bcdefghijklmopqrstuvwxyz"]
    tokenizer = Tokenizer(models.WordPiece({piece: at for at, piece in enumerate(pieces)}, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    names = {"pad": "[PAD]", "unk": "[UNK]", "cls": "[CLS]", "sep": "[SEP]", "mask": "[MASK]"}
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, **{f"{name}_token": token for name, token in names.items()}
    )


TOKENIZERS = {"byte level": byte_level, "word pieces": word_pieces}


@pytest.fixture(params=TOKENIZERS)
def tokenizer(request: pytest.FixtureRequest) -> Any:
    return TOKENIZERS[request.param]()


def task(metrics: tuple[str, ...] = ("entity", "word_accuracy"), **settings: Any) -> TokenClassification:
    values = {"labels": None, "label_tokens": "first", "max_length": 64, "overlong": "split"} | settings
    values |= {"prediction": {"aggregation_strategy": "simple", "ignore_labels": ["O"], "stride": None}}
    return TokenClassification(name="token_classification", metrics=list(metrics), **values)


def data(times: int = 1) -> Dataset:
    return Dataset.from_dict({"tokens": [WORDS * times], "tags": [TAGS * times]})


def network(size: int, labels: list[str]) -> Any:
    import transformers

    torch.manual_seed(0)
    config = transformers.BertConfig(
        vocab_size=size,
        hidden_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=64,
        **task().config(labels),
    )
    return transformers.AutoModelForTokenClassification.from_config(config).eval()


def test_tokens_belong_to_the_word_they_spell(tokenizer: Any) -> None:
    """Whether or not the tokenizer takes the space before a word for part of it."""
    ((tokens, owners),) = encode_words(tokenizer, [WORDS])
    assert tokens == tokenizer(" ".join(WORDS), add_special_tokens=False)["input_ids"]
    for number, word in enumerate(WORDS):
        mine = [token for token, owner in zip(tokens, owners, strict=True) if owner == number]
        spelled = "".join(tokenizer.convert_ids_to_tokens(mine)).replace("##", "").replace("Ġ", "")
        assert spelled.lower() == word.lower()
    assert {tokenizer.decode([t]).strip() for t, owner in zip(tokens, owners, strict=True) if owner < 0} <= {""}


def test_words_with_letters_of_many_bytes_or_spaces_inside_stay_in_step() -> None:
    words = ["naïve", "東京", "a b", "😀", "x"]
    tokenizer = byte_level()
    ((tokens, owners),) = encode_words(tokenizer, [words])
    for number, word in enumerate(words):
        mine = [token for token, owner in zip(tokens, owners, strict=True) if owner == number]
        assert tokenizer.decode(mine).replace(" ", "") == word.replace(" ", "")


def test_a_word_that_the_tokenizer_makes_nothing_of_is_its_unknown_token() -> None:
    tokenizer = word_pieces()
    ((tokens, owners),) = encode_words(tokenizer, [["a", "\u200b", "b"]])
    assert owners == [0, 1, 2]
    assert tokens[1] == tokenizer.unk_token_id


def test_tokenizers_without_offsets_encode_word_by_word() -> None:
    class Slow:
        is_fast = False

        def __call__(self, text: str, add_special_tokens: bool) -> dict[str, list[int]]:
            return {"input_ids": [ord(letter) for letter in text]}

    assert encode_words(Slow(), [["ab", "c"]]) == [([97, 98, 99], [0, 0, 1])]


@pytest.mark.parametrize("label_tokens", ["first", "all"])
def test_tags_are_at_the_first_token_or_all(label_tokens: str, tokenizer: Any) -> None:
    made = task(label_tokens=label_tokens).encode(data(), tokenizer, NAMES).rows[0]
    before, after = frame(tokenizer)
    ((_, owners),) = encode_words(tokenizer, [WORDS])
    inner = made["labels"][len(before) : len(made["labels"]) - len(after)]
    seen: set[int] = set()
    for owner, label in zip(owners, inner, strict=True):
        if owner < 0:
            assert label == IGNORE
        elif owner not in seen:
            assert NAMES[label] == TAGS[owner]
        elif label_tokens == "first":
            assert label == IGNORE
        else:
            assert NAMES[label] == TAGS[owner].replace("B-PER", "I-PER")
        seen.add(owner)
    assert made["items"] == (len(WORDS) if label_tokens == "first" else sum(owner >= 0 for owner in owners))
    assert {*made["labels"][: len(before)], *made["labels"][len(inner) + len(before) :]} <= {IGNORE}
    assert [owners[place - len(before)] for place in made["first"]] == list(range(len(WORDS)))


@pytest.mark.parametrize("max_length", [6, 9, 20, 64])
def test_split_sentences_have_every_word_once_and_are_scored_as_one(max_length: int, tokenizer: Any) -> None:
    many = Dataset.from_dict({"tokens": [WORDS * 3, ["Rome"]], "tags": [TAGS * 3, ["B-LOC"]]})
    encoded = task(max_length=max_length).encode(many, tokenizer, NAMES)
    assert max(encoded.rows["length"]) <= max_length
    assert sum(map(len, encoded.rows["tags"])) == 31
    assert all(place >= 0 for place in chain(*encoded.rows["first"]))
    assert encoded.notes == {
        "rows": 2,
        "split": int(max_length < 64 or len(encoded.rows) > 2),
        "sequences": len(encoded.rows),
    }
    outcomes = {"prediction": encoded.rows["tags"], "loss": np.array(encoded.rows["items"], float) * 2}
    scores = task().score(outcomes, encoded.rows, NAMES)
    assert scores == {"entity_f1": 1, "entity_precision": 1, "entity_recall": 1, "word_accuracy": 1, "loss": 2}


def test_words_that_are_cut_off_are_counted_and_scored_as_outside(tokenizer: Any) -> None:
    encoded = task(max_length=12, overlong="truncate").encode(data(3), tokenizer, NAMES)
    cut = encoded.rows["first"][0].count(-1)
    assert encoded.notes == {"rows": 1, "truncated": 1, "words_cut": cut}
    assert 0 < cut < 30
    assert len(encoded.rows["tags"][0]) == 30
    model = network(len(tokenizer), NAMES)
    batch = task().collate([[row] for row in encoded.rows], tokenizer)
    with torch.inference_mode():
        outcomes = task().outcomes(model, batch, tokenizer, None)
    assert outcomes["prediction"][0].count(-1) == cut
    perfect = {"prediction": [[*encoded.rows["tags"][0][: 30 - cut], *[-1] * cut]], "loss": np.zeros(1)}
    lost = sum(tag != "O" for tag in (TAGS * 3)[30 - cut :])
    assert task().score(perfect, encoded.rows, NAMES)["word_accuracy"] == pytest.approx(1 - lost / 30)
    found = task().findings(outcomes, encoded.rows, NAMES, tokenizer)
    found.pictures["confusion"]().canvas.draw()
    assert "(cut off)" in found.tables["tags"]["label"]


@pytest.mark.parametrize("overlong", ["drop", "error"])
def test_overlong_sentences_are_dropped_or_refused(overlong: str, tokenizer: Any) -> None:
    mixed = Dataset.from_dict({"tokens": [WORDS * 5, ["to"]], "tags": [TAGS * 5, ["O"]]})
    posed = task(max_length=12, overlong=overlong)
    if overlong == "error":
        with pytest.raises(UserError, match="1 of 2 sentences have more than task.max_length=12"):
            posed.encode(mixed, tokenizer, NAMES)
    else:
        encoded = posed.encode(mixed, tokenizer, NAMES)
        assert (encoded.notes["dropped"], len(encoded.rows)) == (1, 1)


def test_a_word_longer_than_the_room_keeps_its_first_token() -> None:
    assert list(word_windows([0, 0, 0, 1, 2, 2, 2, 2], 3, 2)) == [(0, 2, 0, 1), (3, 4, 1, 2), (4, 6, 2, 3)]
    assert list(word_windows([0, 2, 2], 3, 2)) == [(0, 1, 0, 2), (1, 3, 2, 3)]
    assert list(word_windows([-1, 0, 1], 2, 2)) == [(0, 2, 0, 1), (2, 3, 1, 2)]


def test_loss_is_the_models_own_loss_times_the_items(tokenizer: Any) -> None:
    mixed = Dataset.from_dict({"tokens": [WORDS, ["to", "Rome"]], "tags": [TAGS, ["O", "B-LOC"]]})
    encoded = task().encode(mixed, tokenizer, NAMES).rows
    batch = task().collate([[row] for row in encoded], tokenizer)
    model = network(len(tokenizer), NAMES)
    own = model(**{name: batch[name] for name in ("input_ids", "attention_mask", "labels")}).loss
    torch.testing.assert_close(task().loss(model, batch, 0.0), own * 12)
    with torch.inference_mode():
        outcomes = task().outcomes(model, batch, tokenizer, None)
    assert task().score(outcomes, encoded, NAMES)["loss"] == pytest.approx(own.item(), rel=1e-5)


def test_entities_need_tags_that_say_where_they_begin(tokenizer: Any) -> None:
    plain = Dataset.from_dict({"tokens": [["to", "Rome"]], "tags": [["ADP", "NOUN"]]})
    with pytest.raises(UserError, match="'ADP' does not say where a phrase begins.*task=word_classification"):
        task().encode(plain, tokenizer, ["ADP", "NOUN"])
    assert len(task(("word_accuracy",)).encode(plain, tokenizer, ["ADP", "NOUN"]).rows) == 1


def test_tags_are_names_ids_or_class_labels_in_lists_or_texts(tokenizer: Any) -> None:
    features = Features({"tokens": List(Value("string")), "tags": List(ClassLabel(names=["O", "B-LOC"]))})
    classes = Dataset.from_list([{"tokens": ["to", "Rome"], "tags": [0, 1]}], features=features)
    assert task().label_names(classes) == ["O", "B-LOC"]
    assert task().encode(classes, tokenizer, ["B-LOC", "O"]).rows["tags"][:] == [[1, 0]]
    texts = Dataset.from_dict({"tokens": ["to Rome"], "tags": ["O B-LOC"]})
    assert task().label_names(texts) == ["B-LOC", "O"]
    assert task().encode(texts, tokenizer, ["B-LOC", "O"]).rows["tags"][:] == [[1, 0]]
    with pytest.raises(UserError, match="the tag 'B-LOC' is not one the model has. Did you mean 'B-LOCATION'"):
        task().encode(texts, tokenizer, ["O", "B-LOCATION"])


@pytest.mark.parametrize(
    ("words", "tags", "said"),
    [
        (None, ["O"], "tokens: is missing"),
        (["a"], 3, "tags: 3 is not a list"),
        (["a", "b"], ["O"], "tags: 1 tags for 2 words"),
        (["a", None], ["O", "O"], "tokens: word 2 is None, not a text"),
        (["a"], [None], "tags: word 1, 'a', has None for a tag"),
        ([], [], "tokens: is empty"),
        ([" "], ["O"], "tokens: is empty"),
        ("a b", "O", "tags: 1 tags for 2 words"),
    ],
)
def test_a_row_at_fault_is_said(words: Any, tags: Any, said: str) -> None:
    assert task().fault({"tokens": words, "tags": tags}) == said


def test_good_rows_have_no_fault() -> None:
    for words, tags in ((["a"], ["O"]), (["a", " "], [0, 3]), ("a b", "O O")):
        assert task().fault({"tokens": words, "tags": tags}) is None


def tagged(number: int) -> list[dict[str, Any]]:
    """The words of `conftest.rows`: their kind begins at a word and goes on with it."""
    made = []
    for row in rows(number):
        words = row["text"].split()
        made.append({"tokens": words, "tags": [f"{'IB'[at % 3 == 0]}-{row['label']}" for at in range(len(words))]})
    return made


BERT = ["model=scratch_bert", "model.config.hidden_size=32", "model.config.num_hidden_layers=1",
        "model.config.intermediate_size=64", "model.vocabulary=300"]  # fmt: skip


@pytest.fixture
def tagged_corpus(corpus: Path) -> Path:
    for name in ("train", "eval"):
        write_rows(corpus / f"{name}.jsonl", tagged(60))
    return corpus


def test_parity(tagged_corpus: Path, run: Ran) -> None:
    settings = [*BERT, "task=token_classification", "task.max_length=16", "training.micro_batch_size=3"]
    results = [run(*settings, f"backend={each}") for each in ("torch", "accelerate", "hf")]
    assert len({result["digest"] for result in results}) == 1
    curves = [curve(result["points"], *CURVES) for result in results]
    assert curves[0] == curves[1] == curves[2]


def test_tags_are_learned_and_the_saved_folder_tells_them(tagged_corpus: Path, run: Ran) -> None:
    from transformers import pipeline

    settings = ["task=token_classification", "training.max_steps=60", "training.learning_rate=1e-2"]
    result = run(*BERT, *settings)
    assert result["metrics"]["eval/entity_f1"] > 0.9
    assert result["baseline"]["eval/word_accuracy"] < 0.5
    folder = Path(result["folder"]) / "evaluation"
    assert (folder / "confusion.png").stat().st_size > 1000
    tell = pipeline("token-classification", model=result["model"], aggregation_strategy="simple")
    assert tell("apple pear plum")[0]["entity_group"] == "fruit"
    again = run("command=evaluate", "task=token_classification", "model=pretrained", f"model.path={result['model']}")
    assert again["metrics"] == pytest.approx(result["metrics"])


def test_embedded_words_have_the_tags_of_pythons_own_parser() -> None:
    from xp.data.stdlib_tokens import tagged_words

    source = 'def add(first, *, by=1):\n    """Add."""\n    # note\n    self.sum = first.up(by=by) + len("x")\n'
    (row,) = tagged_words("a.py", source)
    named = list(zip(row["tokens"], row["tags"], strict=True))
    assert named[:4] == [("def", "keyword"), ("add", "function"), ("(", "operator"), ("first", "parameter")]
    assert [tag for word, tag in named if word == "by"] == ["parameter", "argument", "name"]
    kinds = dict(named)
    assert [kinds[word] for word in ("sum", "up", "len", "self", "1", '"x"', "# note")] == [
        "attribute", "method", "call", "name", "number", "string", "comment"
    ]  # fmt: skip
    assert '"""Add."""' not in kinds
    assert task(("word_accuracy",)).fault(row) is None
