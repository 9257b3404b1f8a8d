"""command=show: rows as the model sees them, in marks and colours, and how long they are."""

from __future__ import annotations

import io
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conftest import ROOT, command, from_yaml, rows, write_rows
from datasets import Dataset
from rich.console import Console

from xp.launch import start
from xp.model.tokenizer import train_tokenizer
from xp.show import Shown, Token, draw_lengths, draw_rows, look
from xp.show.draw import readable
from xp.show.look import pieces
from xp.task import Encoded
from xp.task.causal_lm import CausalLM
from xp.task.text_classification import TextClassification

TEXTS = [row["text"] for row in rows(60)]
ANSWERS = ["A fruit of the fig tree.", "It cuts wood.", "No."]
Composed = Callable[..., Any]


@pytest.fixture
def seen(compose: Composed, capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """What command=show prints, without a terminal."""

    def printed(*overrides: str) -> str:
        capsys.readouterr()
        assert start(compose("command=show", *overrides)) == {}
        return capsys.readouterr().out

    return printed


@pytest.fixture
def talks(corpus: Path) -> list[str]:
    for name in ("train", "eval"):
        write_rows(corpus / f"{name}.jsonl", [
            {"messages": [{"role": "user", "content": "fig " * (1 + at)}, {"role": "assistant", "content": said}]}
            for at, said in enumerate(ANSWERS)])  # fmt: skip
    return ["task=chat"]


def between(text: str, opening: str, closing: str) -> str:
    """All that stands between these marks, below the legend."""
    below = text.split("\n\n", 1)[1]
    return "".join(re.findall(rf"{re.escape(opening)}([^{re.escape(opening + closing)}]*){re.escape(closing)}", below))


def drawn(shown: Shown) -> str:
    file = io.StringIO()
    draw_rows(Console(file=file, force_terminal=True, color_system="truecolor", width=200), "train", shown)
    return file.getvalue()


def test_what_the_assistant_says_is_in_brackets_and_nothing_else(seen: Callable[..., str], talks: list[str]) -> None:
    text = seen(*talks)
    assert between(text, "[", "]") == "".join(f"{said}<|end|>" for said in ANSWERS) * 2
    assert "train row 0 of 3: " in text
    assert "<|begin|>|#" in text
    assert "it gets xp's plain one" in text


def test_what_was_cut_is_in_braces_and_counted(seen: Callable[..., str], talks: list[str]) -> None:
    whole = seen(*talks, "examples=1", "task.max_length=200")
    length = int(re.search(r"longest +│ +(\d+)", whole)[1])  # type: ignore[index]
    text = seen(*talks, "examples=3", f"task.max_length={length - 1}", "data.eval_rows=1")
    assert re.search(rf"more than {length - 1} +│ 1 \(33.33%\)", text)
    assert "1 truncated at task.max_length" in text
    assert between(text, "{", "}") == "↵\n"
    assert "1 cut" in text


def test_a_row_cut_on_the_left_shows_its_begin_token_and_then_the_cut(
    seen: Callable[..., str], talks: list[str]
) -> None:
    text = seen(*talks, "task.max_length=24", "task.truncation_side=left", "data.train_rows=1", "data.eval_rows=1")
    assert re.search(r"<\|begin\|>\{#", text)


def test_rows_that_training_leaves_out_say_so(seen: Callable[..., str], talks: list[str]) -> None:
    text = seen(*talks, "task.max_length=30", "task.overlong=drop")
    assert "left out" in text
    assert "dropped at task.max_length=30" in text


def test_a_split_that_training_would_refuse_is_shown_with_the_reason(
    seen: Callable[..., str], talks: list[str]
) -> None:
    text = " ".join(seen(*talks, "task.max_length=30", "task.overlong=error").split())
    assert "warning: train: training would refuse it: task.overlong=error: 3 of 3 conversations" in text
    assert "task.max_length=" in text


def test_it_writes_nothing_and_tracks_nothing(seen: Callable[..., str], talks: list[str], corpus: Path) -> None:
    before = sorted(path.name for path in corpus.iterdir())
    seen(*talks, "tracking=server", "tracking.uri=http://127.0.0.1:9")
    assert sorted(path.name for path in corpus.iterdir()) == before


def test_it_needs_no_weights(seen: Callable[..., str], talks: list[str], corpus: Path) -> None:
    model = corpus / "weightless"
    shutil.copytree(ROOT / "xp" / "assets" / "bundled", model, ignore=shutil.ignore_patterns("*.safetensors"))
    assert "this model takes at most 512" in seen(*talks, "model=pretrained", f"model.path={model}")


def test_an_adapter_is_shown_by_what_it_was_saved_with(run: Any, seen: Callable[..., str], talks: list[str]) -> None:
    folder = run(*talks, "peft=lora", "training.max_steps=1")["model"]
    (next(Path(folder).glob("*.safetensors"))).unlink()
    text = seen(*talks, "model=pretrained", f"model.path={folder}")
    assert "xp's plain one" not in text
    assert between(text, "[", "]") == "".join(f"{said}<|end|>" for said in ANSWERS) * 2


def test_labels_are_told_and_no_token_is_trained(seen: Callable[..., str]) -> None:
    text = seen("task=text_classification", "model.config.pad_token_id=0")
    assert re.findall(r"label: (\w+)", text)[:3] == [rows(60)[at]["label"] for at in (0, 20, 40)]
    assert between(text, "[", "]") == ""


def test_a_language_model_learns_all_but_the_first_token(seen: Callable[..., str]) -> None:
    text = seen("task=causal_lm", "task.max_length=8", "examples=1")
    row = int(re.search(r"train row (\d+) of 60", text)[1])  # type: ignore[index]
    learned = between(text.split("eval row")[0], "[", "]")
    assert TEXTS[row].startswith(learned)
    assert learned
    assert "split into" in text


def test_lengths_are_those_before_anything_is_cut() -> None:
    tokenizer = train_tokenizer(TEXTS, 300)
    task = from_yaml(TextClassification, max_length=8, overlong="truncate", problem="single_label")
    data = Dataset.from_list(rows(60))
    shown = look(task, data, tokenizer, ["animal", "fruit", "tool"], 4)
    lengths = [len(tokenizer(text)["input_ids"]) for text in TEXTS]
    assert shown.lengths == lengths
    file = io.StringIO()
    draw_lengths(Console(file=file, width=200), {"train": shown}, 8, 64)
    text = file.getvalue()
    over = sum(length > 8 for length in lengths)
    assert re.search(rf"more than 8 +│ {over} \({over / 60:.2%}\)", text)
    assert re.search(rf"longest +│ +{max(lengths)} ", text)
    assert re.search(rf"median +│ +{sorted(lengths)[29]} ", text)
    enough = int(re.search(r"task.max_length=(\d+) keeps 99 %", text)[1])  # type: ignore[index]
    assert sum(length <= enough for length in lengths) / 60 >= 0.99
    assert "it is 8 now, and this model takes at most 64" in text
    assert sum(int(count) for count in re.findall(r"^  .* (\d+)$", text, re.MULTILINE)) == 60


def test_no_examples_leave_the_lengths(seen: Callable[..., str], talks: list[str]) -> None:
    text = seen(*talks, "examples=0")
    assert "row 0" not in text
    assert "99 % have at most" in text


def test_one_row_that_is_too_long_is_among_the_examples() -> None:
    task = from_yaml(TextClassification, max_length=17, overlong="truncate", problem="single_label")
    data = Dataset.from_list(rows(60))
    shown = look(task, data, train_tokenizer(TEXTS, 300), ["animal", "fruit", "tool"], 1)
    assert shown.lengths[0] <= 17
    assert any(token.kind == "cut" for example in shown.examples for token in example.tokens)


def test_a_terminal_gets_colours_instead_of_marks() -> None:
    tokenizer = train_tokenizer(TEXTS, 300)
    task = from_yaml(CausalLM, max_length=64, overlong="truncate", metrics=[])
    text = drawn(look(task, Dataset.from_list(rows(3)), tokenizer, [], 1))
    assert "\x1b[1;38;2;255;255;255;48;2;" in text
    assert "[apple" not in text


def test_nothing_in_the_data_commands_the_terminal() -> None:
    assert readable("a\x1b[31mb\r\tc\nd") == "a\\x1b[31mb\\r\\tc↵\nd"
    tokenizer = train_tokenizer(TEXTS, 300)
    task = from_yaml(CausalLM, max_length=64, overlong="truncate", metrics=[])
    text = drawn(look(task, Dataset.from_list([{"text": "x\x1b]0;owned\x07y [red]z[/red]"}]), tokenizer, [], 1))
    assert "\x1b]0" not in text
    assert "\x07" not in text


def test_half_a_character_is_shown_by_its_name() -> None:
    tokenizer = train_tokenizer(TEXTS, 300)
    made = pieces(tokenizer("é", add_special_tokens=False)["input_ids"], tokenizer)
    assert [each.text for each in made] == tokenizer.convert_ids_to_tokens(
        tokenizer.encode("é", add_special_tokens=False)
    )
    assert len(made) == 2


def test_the_middle_of_a_long_run_is_told_by_a_word() -> None:
    from xp.show import Example

    tokens = [Token("a", "trained")] * 1000
    text = drawn(Shown(Encoded(Dataset.from_list([{"items": 1}])), [], [Example(0, tokens, [])]))
    assert "… 700 more …" in text


def test_a_sweep_of_it_is_refused(corpus: Path) -> None:
    ended = command("-m", "command=show", "seed=1,2", folder=corpus)
    assert (ended.returncode, ended.stderr) == (
        2, "xp: command=show: it has no result that a sweep could compare; leave out -m\n")  # fmt: skip
    assert not (corpus / "runs").exists()
