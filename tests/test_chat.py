"""Chat: what the model sees of a conversation, what of it is trained, and what is told before."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import curve, from_yaml, write_rows
from datasets import Dataset

from xp.error import UserError
from xp.evaluation import evaluate
from xp.launch import start
from xp.model.tokenizer import train_tokenizer
from xp.task.base import IGNORE
from xp.task.chat import Chat
from xp.task.conversation import Conversation, encode, encode_all, prompt, stops
from xp.task.messages import conversation
from xp.task.template import MARKS, library, missing, settle

SAID = ["Be brief.", "What is a fig?", "A fruit.", "And  a saw?\n", "\tA tool: it cuts wood.", "Thanks", "Any time!"]
SYSTEM = {"role": "system", "content": SAID[0]}
TURNS = [{"role": ("user", "assistant")[at % 2], "content": said} for at, said in enumerate(SAID[1:5])]
CONVERSATIONS = {"one turn": TURNS[:2], "two turns": TURNS, "system": [SYSTEM, *TURNS], "open end": TURNS[:3]}
TOOLS = [{"type": "function", "function": {"name": "weigh", "description": "weighs", "parameters": {"type": "object"}}}]

Ran = Callable[..., dict[str, Any]]


def tokenizer(template: str = "plain") -> Any:
    """A tokenizer of a few hundred tokens with the ones that this template needs."""
    made = train_tokenizer([*SAID, *library().values()], 400)
    settle(template, made, None, add_tokens=True, adapted=False)
    return made


def chat(**settings: Any) -> Chat:
    usual = {"template": "auto", "add_tokens": False, "train_end": True, "max_length": 256, "overlong": "truncate",
             "truncation_side": "right", "metrics": []}  # fmt: skip
    return from_yaml(Chat, **usual | settings)


def rows(*conversations: list[dict[str, str]]) -> Dataset:
    return Dataset.from_list([{"messages": each} for each in conversations])


def spoken(made: Conversation, processor: Any) -> list[str]:
    """The text of each stretch of trained tokens."""
    stretches: list[list[int]] = [[]]
    for token, trained in zip(made.tokens, made.trained, strict=True):
        if trained:
            stretches[-1].append(token)
        elif stretches[-1]:
            stretches.append([])
    return [processor.decode(stretch) for stretch in stretches if stretch]


# The templates of the library


@pytest.mark.parametrize("kind", CONVERSATIONS)
@pytest.mark.parametrize("name", library())
def test_just_what_the_assistant_says_is_trained_with_its_end(name: str, kind: str) -> None:
    processor = tokenizer(name)
    messages = CONVERSATIONS[kind]
    made = encode(messages, processor)
    ending = processor.decode(stops(processor)[:1])
    answers = [turn["content"].strip() for turn in messages if turn["role"] == "assistant"]
    assert [each.strip() for each in spoken(made, processor)] == [
        f"{answer}{' ' * (name == 'llama2')}{ending}" for answer in answers
    ]
    assert made.notes <= {"beginless"}
    for turn in messages:
        assert turn["content"].strip() in made.text


@pytest.mark.parametrize("kind", CONVERSATIONS)
@pytest.mark.parametrize("name", library())
def test_tokens_and_mask_are_those_of_transformers(name: str, kind: str) -> None:
    processor = tokenizer(name)
    made = encode(CONVERSATIONS[kind], processor)
    theirs = processor.apply_chat_template(CONVERSATIONS[kind], return_assistant_tokens_mask=True, return_dict=True)
    assert made.tokens == theirs["input_ids"]
    assert made.trained == [bool(each) for each in theirs["assistant_masks"]]
    assert made.text == processor.apply_chat_template(CONVERSATIONS[kind], tokenize=False)


@pytest.mark.parametrize("kind", CONVERSATIONS)
@pytest.mark.parametrize("name", library())
def test_marks_and_prefix_difference_agree(name: str, kind: str) -> None:
    processor = tokenizer(name)
    marks, difference = (
        encode_all([(CONVERSATIONS[kind], None)], processor, train_end=True, by=by)[0] for by in ("marks", "difference")
    )
    assert not marks.fault
    assert not difference.fault
    assert marks.trained == difference.trained
    assert "prompt" not in difference.notes


@pytest.mark.parametrize("name", library())
def test_the_generation_prompt_is_what_an_answer_goes_on_from(name: str) -> None:
    processor = tokenizer(name)
    whole = encode([SYSTEM, *TURNS], processor)
    asked = prompt([SYSTEM, *TURNS[:3]], processor)
    assert whole.tokens[: len(asked)] == asked
    assert whole.trained[len(asked)]
    assert not whole.trained[len(asked) - 1]
    assert (
        asked
        == processor.apply_chat_template([SYSTEM, *TURNS[:3]], add_generation_prompt=True, return_dict=True)[
            "input_ids"
        ]
    )


def test_the_well_known_formats_letter_by_letter() -> None:
    """As their makers have published them."""
    expected = {
        "chatml": "<|im_start|>system\nS<|im_end|>\n<|im_start|>user\nU<|im_end|>\n"
        "<|im_start|>assistant\nA<|im_end|>\n",
        "llama3": "<|begin|><|start_header_id|>system<|end_header_id|>\n\nS<|eot_id|><|start_header_id|>user"
        "<|end_header_id|>\n\nU<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\nA<|eot_id|>",
        "llama2": "<|begin|>[INST] <<SYS>>\nS\n<</SYS>>\n\nU [/INST] A <|end|>",
        "gemma": "<|begin|><start_of_turn>user\nS\n\nU<end_of_turn>\n<start_of_turn>model\nA<end_of_turn>\n",
        "mistral": "<|begin|>[INST] S\n\nU [/INST] A<|end|>",
        "zephyr": "<|system|>\nS<|end|>\n<|user|>\nU<|end|>\n<|assistant|>\nA<|end|>\n",
        "vicuna": "<|begin|>S USER: U ASSISTANT: A<|end|>",
        "phi3": "<|system|>\nS<|end|>\n<|user|>\nU<|end|>\n<|assistant|>\nA<|end|>\n",
        "phi4": "<|im_start|>system<|im_sep|>S<|im_end|><|im_start|>user<|im_sep|>U<|im_end|>"
        "<|im_start|>assistant<|im_sep|>A<|im_end|>",
        "alpaca": "<|begin|>S\n\n### Instruction:\nU\n\n### Response:\nA<|end|>\n\n",
        "plain": "<|begin|>### system\nS\n### user\nU\n### assistant\nA<|end|>\n",
    }
    messages = [{"role": role, "content": role[0].upper()} for role in ("system", "user", "assistant")]
    assert {name: encode(messages, tokenizer(name)).text for name in library()} == expected


# Foreign templates

QWEN = """{%- set last = namespace(at=0) %}
{%- for message in messages %}{% if message.role == 'user' %}{% set last.at = loop.index0 %}{% endif %}{% endfor %}
{%- for message in messages %}
{{- '<|im_start|>' + message.role + '\n' }}
{%- if message.role == 'assistant' and loop.index0 > last.at %}{{ '<think>\n\n</think>\n\n' }}{% endif %}
{{- message.content + '<|im_end|>\n' }}
{%- endfor %}
{%- if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"""
"""Writes an empty thought before the last answer and no other, as Qwen 3 does: no prefix of a conversation is one."""


def test_a_template_that_rewrites_earlier_turns() -> None:
    processor = tokenizer("chatml")
    processor.chat_template = QWEN
    made = encode(TURNS, processor)
    first, second = spoken(made, processor)
    assert first == f"{SAID[2]}<|im_end|>"
    assert second == f"<think>\n\n</think>\n\n{SAID[4]}<|im_end|>"


def test_a_template_whose_turns_cannot_be_told_apart_is_a_fault() -> None:
    processor = tokenizer()
    processor.chat_template = "{{ messages | length }}{% for m in messages %}{{ m.content | upper }}{% endfor %}"
    made = encode_all([(TURNS, None)], processor, train_end=True)[0]
    assert "turn 2 otherwise once the conversation goes on" in made.fault
    encoded = chat().encode(rows(TURNS), processor, [])
    assert encoded.faults == [(0, made.fault)]
    assert len(encoded.rows) == 0


def test_a_prompt_that_answers_do_not_go_on_from_is_told() -> None:
    processor = tokenizer("chatml")
    bare = MARKS.sub("", library()["chatml"]).replace("{%- endgeneration %}", "")
    processor.chat_template = bare.replace(
        "'<|im_start|>assistant\\n' }}{% endif", "'<|im_start|>assistant\\n<think>' }}{% endif"
    )
    made = chat().encode(rows(TURNS), processor, [])
    assert any("generation prompt is not what an answer goes on from" in warning for warning in made.warnings)
    assert [each.strip() for each in spoken(encode(TURNS, processor), processor)] == [
        f"{SAID[2]}<|im_end|>",
        f"{SAID[4].strip()}<|im_end|>",
    ]


def test_marks_that_leave_out_the_end_are_extended_and_told() -> None:
    processor = tokenizer("zephyr")
    processor.chat_template = library()["zephyr"].replace(
        "{{ message.content + eos_token }}{% endgeneration %}",
        "{{ message.content }}{% endgeneration %}{{ eos_token }}",
    )
    extended = chat().encode(rows(TURNS), processor, [])
    left = chat(train_end=False).encode(rows(TURNS), processor, [])
    assert sum(extended.rows["items"]) == sum(left.rows["items"]) + 2
    assert any("leave out the token that ends an answer" in warning for warning in extended.warnings)
    assert any("would not learn to stop" in warning for warning in left.warnings)


def test_answers_without_an_end_token_are_refused() -> None:
    processor = tokenizer("zephyr")
    processor.chat_template = library()["zephyr"].replace("+ eos_token ", "")
    with pytest.raises(UserError, match="would never learn to stop"):
        chat().encode(rows(TURNS), processor, [])
    assert len(chat(train_end=False).encode(rows(TURNS), processor, []).rows) == 1


def test_a_begin_token_written_twice_is_refused() -> None:
    processor = tokenizer()
    processor.chat_template = "{{ bos_token }}" + processor.chat_template
    ((at, reason),) = chat().encode(rows(TURNS), processor, []).faults
    assert (at, reason[:26]) == (0, "begins with <|begin|> twic")


def test_a_begin_token_is_written_once_and_its_absence_told() -> None:
    assert encode(TURNS, tokenizer()).tokens.count(1) == 1
    made = chat().encode(rows(TURNS), tokenizer("chatml"), [])
    assert any("writes no begin token" in warning for warning in made.warnings)


def test_a_system_message_that_is_dropped_is_told() -> None:
    processor = tokenizer()
    processor.chat_template = processor.chat_template.replace("{%- else %}", "{%- elif message.role != 'system' %}")
    made = chat().encode(rows(TURNS, [SYSTEM, *TURNS]), processor, [])
    assert made.warnings == ["1 of 2 conversations (the first is row 1): the template leaves out the system message"]


def test_an_answer_that_the_template_changes_is_told() -> None:
    processor = tokenizer()
    processor.chat_template = processor.chat_template.replace(
        "{{ message.content | trim + eos", "{{ message.content | upper + eos"
    )
    (warning,) = chat().encode(rows(TURNS[:2]), processor, []).warnings
    assert "changes what the assistant says" in warning


def test_control_tokens_in_what_is_said_are_told() -> None:
    said = [{"role": "user", "content": "Say <|end|>"}, {"role": "assistant", "content": "No."}]
    (warning,) = chat().encode(rows(TURNS, said), tokenizer(), []).warnings
    assert warning.startswith("1 of 2 conversations (the first is row 1): a message holds control tokens")


def test_marks_and_prompt_that_disagree_are_told() -> None:
    processor = tokenizer()
    text = processor.chat_template
    processor.chat_template = text.replace("{{- '### assistant\\n' }}\n", "").replace(
        "{%- generation %}{{ message", "{%- generation %}{{ '### assistant\\n' + message"
    )
    assert processor.chat_template != text
    (warning,) = chat().encode(rows(TURNS), processor, []).warnings
    assert "do not agree" in warning


REFUSED = "the template says: after an optional system message, user and assistant must take turns"


def test_what_a_template_refuses_is_left_out_and_told() -> None:
    bad = [*TURNS[:1], *TURNS]
    encoded = chat().encode(rows(bad, TURNS, bad, TURNS), tokenizer("gemma"), [])
    assert encoded.faults == [(0, REFUSED), (2, REFUSED)]
    alone = chat().encode(rows(TURNS, TURNS), tokenizer("gemma"), [])
    assert encoded.rows.to_list() == alone.rows.to_list()
    assert (encoded.notes, encoded.warnings) == (alone.notes, alone.warnings)


@pytest.mark.parametrize("streaming", ["false", "true"])
@pytest.mark.parametrize("cache", ["false", "true"])
def test_rows_that_a_template_refuses_end_the_run_or_are_skipped(
    cache: str, streaming: str, run: Any, corpus: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Twice: what is remembered of the first time is told the second time, too."""
    bad = {"messages": [*TURNS[:1], *TURNS]}
    write_rows(corpus / "train.jsonl", [bad if at in (4, 7) else {"messages": TURNS} for at in range(30)])
    write_rows(corpus / "eval.jsonl", [{"messages": TURNS}] * 3)
    write_rows(corpus / "odd.jsonl", [{"messages": TURNS}, bad, {"messages": TURNS}])
    given = ["task=chat", "task.template=gemma", "task.add_tokens=true", f"data.streaming={streaming}",
             f"cache={cache}", "training.max_steps=3"]  # fmt: skip
    refused = f"data.train=train.jsonl, row 5: {REFUSED}; mend the row or set data.on_error=skip"
    for _ in range(2):
        with pytest.raises(UserError) as caught:
            run(*given)
        assert str(caught.value) == refused + " (1 more rows are at fault)" * (streaming == "false")
        points = run(*given, "data.on_error=skip", "data.eval=odd.jsonl")["points"]
        for side, number in (("eval", 1.0), ("train", 2.0)):
            assert [point[name] for point in points if (name := f"data/{side}_skipped") in point] == [number]
        told = f"eval: 1 of 3 rows skipped, the first: data.eval=odd.jsonl, row 2: {REFUSED}"
        assert told in capsys.readouterr().out.splitlines()


def test_what_a_template_refuses_is_shown(
    compose: Any, run: Any, corpus: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bad = {"messages": [*TURNS[:1], *TURNS]}
    write_rows(corpus / "train.jsonl", [{"messages": TURNS}, bad])
    write_rows(corpus / "eval.jsonl", [{"messages": TURNS}])
    given = ["task=chat", "task.template=gemma", "task.add_tokens=true", "command=show"]
    for streaming in ("data.streaming=true", "data.streaming=false"):
        with pytest.raises(UserError, match=f"data.train=train.jsonl, row 2: {REFUSED}; mend the row"):
            start(compose(*given, streaming))
        start(compose(*given, streaming, "data.on_error=skip"))
        assert f"left out: {REFUSED}" in " ".join(capsys.readouterr().out.split())
    write_rows(corpus / "train.jsonl", [bad, bad])
    with pytest.raises(UserError, match="row 1: the template says: .*; and so are all 2 train rows at fault"):
        run(*given[:-1], "data.on_error=skip")


def test_many_conversations_are_encoded_as_few(monkeypatch: pytest.MonkeyPatch) -> None:
    """On two cores, neither of which knows what the other has seen."""
    from xp.task import mapping

    bad = [*TURNS[:1], *TURNS]
    odd = [{"role": "user", "content": "Say <|end|>"}, {"role": "assistant", "content": "No."}]
    made = rows(*[bad if at == 25 else odd if at > 27 else TURNS for at in range(30)])
    processor = tokenizer("gemma")
    few = chat().encode(made, processor, [])
    monkeypatch.setattr(mapping, "PAYS", 10)
    monkeypatch.setattr(mapping, "cores", lambda: 2)
    many = chat().encode(made, processor, [])
    assert many.rows.to_list() == few.rows.to_list()
    assert (many.notes, many.warnings, many.faults) == (few.notes, few.warnings, few.faults)
    assert few.faults == [(25, REFUSED)]


# Tools

CALL = {"role": "assistant", "content": "", "tool_calls": [
    {"type": "function", "function": {"name": "weigh", "arguments": {"what": "a fig"}}}]}  # fmt: skip
CALLED = [TURNS[0], CALL, {"role": "tool", "content": "40 g"}, {"role": "assistant", "content": "It weighs 40 g."}]


def test_tool_calls_are_trained_and_tool_answers_are_not() -> None:
    processor = tokenizer("chatml")
    made = encode(CALLED, processor, TOOLS)
    assert spoken(made, processor) == [
        '<tool_call>\n{"name": "weigh", "arguments": {"what": "a fig"}}\n</tool_call><|im_end|>',
        "It weighs 40 g.<|im_end|>",
    ]
    assert made.notes <= {"beginless"}
    difference = encode_all([(CALLED, TOOLS)], processor, train_end=True, by="difference")[0]
    assert difference.trained == made.trained


def test_tools_without_a_place_are_refused_or_told() -> None:
    row = {"messages": TURNS, "tools": json.dumps(TOOLS)}
    ((_, reason),) = chat().encode(Dataset.from_list([row]), tokenizer("gemma"), []).faults
    assert "no place for tools" in reason
    processor = tokenizer()
    processor.chat_template = processor.chat_template.replace("tools or ", "")
    (warning,) = chat().encode(Dataset.from_list([row]), processor, []).warnings
    assert "leaves out the tools" in warning


# Shapes and bad rows


def test_every_shape_of_rows_is_the_same_conversation() -> None:
    expected = [SYSTEM, *TURNS[:2]]
    sharegpt = [{"from": role, "value": said} for role, said in zip(("system", "human", "gpt"), SAID, strict=False)]
    assert conversation({"messages": expected}) == expected
    assert conversation({"messages": json.dumps(expected)}) == expected
    assert conversation({"conversations": sharegpt}) == expected
    assert conversation({"instruction": SAID[1], "output": SAID[2], "input": "", "system": SAID[0]}) == expected
    assert conversation({"prompt": SAID[1], "completion": SAID[2], "system": SAID[0]}) == expected
    parts = [{"type": "text", "text": "A "}, {"type": "text", "text": "fruit."}]
    assert conversation({"messages": [*TURNS[:1], {"role": "assistant", "content": parts}]}) == TURNS[:2]
    alpaca = conversation({"instruction": "Name it", "input": "red", "output": "apple"})
    assert alpaca[0]["content"] == "Name it\n\nred"


def test_what_datasets_fills_up_with_none_is_taken_out() -> None:
    (row,) = Dataset.from_list([{"messages": [*CALLED, TURNS[0] | {"name": "Ann"}]}])
    assert row["messages"][0]["tool_calls"] is None
    assert conversation(row)[:4] == CALLED


BAD = {
    "messages: starts with the assistant": {"messages": TURNS[1:]},
    "messages: starts with the assistant; a user's": {"messages": [SYSTEM, *TURNS[1:]]},
    "messages: has no assistant turn": {"messages": TURNS[:1]},
    "messages: is empty": {"messages": []},
    "messages: is empty ": {"messages": None},
    "messages: is not a list but int": {"messages": 3},
    "messages: is a text, and not JSON": {"messages": "hello"},
    "messages[1]: there is no role 'asistant'. Did you mean 'assistant'?": {
        "messages": [TURNS[0], {"role": "asistant", "content": "a"}]
    },
    "messages[1]: has no role. Its keys: text": {"messages": [TURNS[0], {"text": "a"}]},
    "messages[0]: is not a message with role and content but str": {"messages": ["hello"]},
    "messages[1].content: is empty": {"messages": [TURNS[0], {"role": "assistant", "content": None}]},
    "messages[0].content: has a part that is not text but image_url": {
        "messages": [{"role": "user", "content": [{"type": "image_url"}]}, TURNS[1]]
    },
    "messages: the assistant says nothing (turn 2)": {"messages": [TURNS[0], {"role": "assistant", "content": " "}]},
    "conversations: has no assistant turn": {"conversations": [{"from": "human", "value": "hi"}]},
    "output: is empty": {"instruction": "a", "output": None},
    "completion: the assistant says nothing": {"prompt": "a", "completion": ""},
    "instruction: is not text but int": {"instruction": 3, "output": "b"},
    "system: the conversation has a system message": {"messages": [SYSTEM, *TURNS], "system": "b"},
    "tools: is a text, and not JSON": {"messages": TURNS, "tools": "{"},
}


@pytest.mark.parametrize("reason", BAD)
def test_a_bad_row_is_at_fault_for_one_reason(reason: str) -> None:
    fault = chat().fault(BAD[reason])
    assert fault is not None
    assert fault.startswith(reason.strip())
    assert "\n" not in fault
    assert chat().fault({"messages": TURNS}) is None


# Templates and tokenizers


def test_without_a_template_plain_is_taken_said_and_saved(tmp_path: Path) -> None:
    processor = train_tokenizer(SAID, 300)
    (line,) = chat().equip(processor, None, adapted=False)
    assert "has none of its own, so it gets xp's plain one" in line
    assert chat().equip(processor, None, adapted=False) == []
    processor.save_pretrained(tmp_path)
    assert (tmp_path / "chat_template.jinja").read_text() == library()["plain"]


def test_a_template_that_the_tokenizer_has_no_tokens_for_is_refused_with_those_that_fit() -> None:
    with pytest.raises(UserError) as caught:
        chat(template="chatml").equip(train_tokenizer(SAID, 300), None, adapted=False)
    assert str(caught.value) == (
        "task.template=chatml: this tokenizer has no token for <|im_start|>, <|im_end|>. Templates that fit it: "
        "alpaca, llama2, mistral, plain, vicuna, zephyr. Or task.add_tokens=true, to train new ones"
    )
    with pytest.raises(UserError, match="their embeddings would not train; use peft=none"):
        chat(template="chatml", add_tokens=True).equip(train_tokenizer(SAID, 300), None, adapted=True)
    endless = train_tokenizer(SAID, 300)
    endless.eos_token = None
    with pytest.raises(UserError, match="this tokenizer has none"):
        chat().equip(endless, None, adapted=False)


def test_an_unknown_template_names_the_nearest_and_a_broken_file_its_line(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"task.template=chatlm: neither a file.*Did you mean 'chatml'"):
        chat(template="chatlm").equip(train_tokenizer(SAID, 300), None, adapted=False)
    (tmp_path / "own.jinja").write_text("fine\n{% for %}")
    with pytest.raises(UserError, match=r"own.jinja: line 2: "):
        chat(template=str(tmp_path / "own.jinja")).equip(train_tokenizer(SAID, 300), None, adapted=False)


def test_a_template_of_ones_own_is_taken_and_its_lost_control_tokens_told(tmp_path: Path) -> None:
    own = tmp_path / "own.jinja"
    own.write_text(re.sub(r"\{#-.*?-#\}", "", library()["chatml"]))
    processor = train_tokenizer(SAID, 300)
    (line,) = chat(template=str(own)).equip(processor, None, adapted=False)
    assert line == "warning: the template writes <|im_end|>, <|im_start|>, which is plain text to this tokenizer"
    assert processor.chat_template == own.read_text()


def network(processor: Any) -> Any:
    import transformers

    torch.manual_seed(0)
    config = transformers.LlamaConfig(
        vocab_size=len(processor), hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=1, pad_token_id=processor.pad_token_id, eos_token_id=processor.eos_token_id,
    )  # fmt: skip
    return transformers.AutoModelForCausalLM.from_config(config).eval()


def test_new_tokens_get_embeddings_and_generation_ends_at_the_templates_end() -> None:
    processor = train_tokenizer(SAID, 300)
    model = network(processor)
    before = len(processor)
    said = chat(template="chatml", add_tokens=True).equip(processor, model, adapted=False)
    assert said == ["template: chatml has new tokens in this model: <|im_start|>, <|im_end|>"]
    assert model.get_input_embeddings().weight.shape[0] == before + 2
    assert missing(library()["chatml"], processor) == []
    assert model.generation_config.eos_token_id == [processor.convert_tokens_to_ids("<|im_end|>"), 2]


# Lengths


def test_overlong_conversations_are_truncated_on_either_side_dropped_or_refused() -> None:
    processor = tokenizer()
    data = rows(TURNS[:2], [SYSTEM, *TURNS])
    whole = encode([SYSTEM, *TURNS], processor)
    most = len(whole.tokens) - 3
    right = chat(max_length=most).encode(data, processor, [])
    assert right.notes == {"rows": 2, "truncated": 1, "without_answer": 0}
    assert right.rows["input_ids"][1] == whole.tokens[:most]
    assert right.rows["items"][1] == sum(whole.trained[:most])
    left = chat(max_length=most, truncation_side="left").encode(data, processor, [])
    assert left.rows["input_ids"][1] == [whole.tokens[0], *whole.tokens[4:]]
    assert left.rows["items"][1] == sum(whole.trained)
    dropped = chat(max_length=most, overlong="drop").encode(data, processor, [])
    assert (dropped.notes["dropped"], len(dropped.rows)) == (1, 1)
    with pytest.raises(UserError, match="1 of 2 conversations have more than task.max_length"):
        chat(max_length=most, overlong="error").encode(data, processor, [])


def test_a_row_with_nothing_left_to_train_is_taken_out_and_counted() -> None:
    processor = tokenizer()
    long = [{"role": "user", "content": "fig " * 60}, TURNS[1]]
    made = chat(max_length=60).encode(rows(TURNS, long, TURNS), processor, [])
    assert made.notes == {"rows": 3, "truncated": 3, "without_answer": 1}
    assert len(made.rows) == 2
    assert min(made.rows["items"]) > 0
    with pytest.raises(UserError, match=r"no row has an answer left.*task.truncation_side=left"):
        chat(max_length=60).encode(rows(long), processor, [])


def test_the_first_token_of_a_row_is_never_an_item() -> None:
    """Nothing predicts it, also where it is the assistant's because the start was cut off."""
    processor = tokenizer("chatml")
    made = chat(max_length=4, truncation_side="left").encode(rows(TURNS[:2]), processor, [])
    assert made.rows["trained"][0][0]
    batch = chat().collate([[made.rows[0]]], processor)
    assert made.rows["items"][0] == int((batch["labels"][:, 1:] != IGNORE).sum())
    assert int(batch["labels"][0, 0]) == IGNORE


# Loss


def test_an_end_token_that_is_the_padding_token_is_trained() -> None:
    processor = tokenizer()
    processor.pad_token = processor.eos_token
    assert processor.pad_token_id == processor.eos_token_id
    made = chat().encode(rows(TURNS[:2], TURNS), processor, []).rows
    batch = chat().collate([[row] for row in made], processor)
    assert int((batch["labels"] == processor.eos_token_id).sum()) == 3
    assert batch["attention_mask"].sum(-1).tolist() == made["length"][:]


def test_loss_is_that_of_the_trained_tokens_alone() -> None:
    processor = tokenizer()
    model = network(processor)
    made = chat().encode(rows(TURNS), processor, []).rows[0]
    tokens = torch.tensor([made["input_ids"]])
    with torch.no_grad():
        chances = model(input_ids=tokens).logits.float().log_softmax(-1)[0]
    trained = [at for at, said in enumerate(made["trained"]) if said]
    expected = -sum(chances[at - 1, made["input_ids"][at]] for at in trained)
    torch.testing.assert_close(chat().loss(model, chat().collate([[made]], processor), 0.0), expected)
    assert made["items"] == len(trained)


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_packed_conversations_equal_unpacked_ones_in_loss_and_gradients(smoothing: float) -> None:
    processor = tokenizer()
    model = network(processor)
    made = list(chat().encode(rows(*CONVERSATIONS.values(), TURNS[2:]), processor, []).rows)

    def gradients(sequences: list[list[dict[str, Any]]]) -> tuple[torch.Tensor, torch.Tensor]:
        model.zero_grad()
        loss = chat().loss(model, chat().collate(sequences, processor), smoothing)
        loss.backward()
        return loss.detach(), torch.cat([parameter.grad.flatten() for parameter in model.parameters()])

    alone, packed = gradients([[row] for row in made]), gradients([made[:3], made[3:]])
    torch.testing.assert_close(packed[0], alone[0])
    torch.testing.assert_close(packed[1], alone[1], atol=1e-5, rtol=1e-5)


def test_scores_and_baseline_are_per_trained_token() -> None:
    processor = tokenizer()
    model = network(processor)
    made = chat().encode(rows(*CONVERSATIONS.values()), processor, []).rows
    found = evaluate(chat(), model, made, [], processor, None, 2, torch.device("cpu"), nullcontext)  # type: ignore[arg-type]
    batch = chat().collate([[row] for row in made], processor)
    with torch.no_grad():
        loss = chat().loss(model, batch, 0.0) / sum(made["items"])
        right = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits[:, :-1].argmax(-1)
    wanted = batch["labels"][:, 1:]
    assert found.scores["loss"] == pytest.approx(float(loss), rel=1e-5)
    assert found.scores["token_accuracy"] == pytest.approx(float((right == wanted).sum() / (wanted != IGNORE).sum()))
    assert set(found.scores) == set(chat().scores)
    tokens = wanted[wanted != IGNORE]
    shares = torch.bincount(tokens) / len(tokens)
    baseline = chat().baseline(made, [])
    assert baseline["loss"] == pytest.approx(float(torch.special.entr(shares).sum()), rel=1e-5)
    assert baseline["token_accuracy"] == pytest.approx(float(shares.max()))


# Runs


@pytest.fixture
def talks(corpus: Path) -> list[str]:
    """The overrides of a small run on conversations of unequal length."""
    made = []
    for at in range(40):
        said = ("fig " * (at % 7 + 1), "saw " * (at % 3 + 1))
        asked = [{"role": role, "content": text} for role, text in zip(("user", "assistant"), said, strict=True)]
        made.append({"messages": [*asked, *TURNS[: at % 2 * 2]]})
    for name in ("train", "eval"):
        write_rows(corpus / f"{name}.jsonl", made)
    return ["task=chat", "task.max_length=80"]


def test_parity_of_the_three_backends(run: Ran, talks: list[str]) -> None:
    more = ["model.config.attention_dropout=0.2", "training.micro_batch_size=3"]
    results = [run(*talks, *more, f"backend={name}") for name in ("torch", "accelerate", "hf")]
    curves = [curve(result["points"], "train/loss", "train/grad_norm", "train/padding") for result in results]
    assert curves[0] == curves[1] == curves[2]
    assert len({result["digest"] for result in results}) == 1
    assert results[0]["metrics"] == results[1]["metrics"] == results[2]["metrics"]


def test_packed_gives_the_curve_of_shuffle(run: Ran, talks: list[str]) -> None:
    shuffle, packed = (
        curve(
            run(*talks, "task.max_length=250", f"training.batching={batching}")["points"], "train/loss", "train/padding"
        )
        for batching in ("shuffle", "packed")
    )
    for (_, loss, _), (_, same, _) in zip(shuffle, packed, strict=True):
        assert same == pytest.approx(loss, rel=1e-5)
    assert sum(point[-1] for point in packed) < sum(point[-1] for point in shuffle)


def test_the_saved_folder_renders_what_was_trained_and_can_be_evaluated(
    run: Ran, talks: list[str], corpus: Path
) -> None:
    from transformers import AutoTokenizer, GenerationConfig

    result = run(*talks, "task.template=chatml", "task.add_tokens=true")
    saved = AutoTokenizer.from_pretrained(result["model"])
    row = json.loads((corpus / "eval.jsonl").read_text().splitlines()[1])
    made = encode(row["messages"], saved)
    theirs = saved.apply_chat_template(row["messages"], return_dict=True, return_assistant_tokens_mask=True)
    assert saved.chat_template == library()["chatml"]
    assert (theirs["input_ids"], [bool(each) for each in theirs["assistant_masks"]]) == (made.tokens, made.trained)
    stop = saved.convert_tokens_to_ids("<|im_end|>")
    assert stop in GenerationConfig.from_pretrained(result["model"]).eos_token_id
    again = run("command=evaluate", "model=pretrained", f"model.path={result['model']}", *talks)
    assert again["metrics"]["eval/loss"] == pytest.approx(result["metrics"]["eval/loss"], rel=1e-5)


def test_warnings_are_told_and_tracked(run: Ran, talks: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    from mlflow import MlflowClient

    result = run(*talks, "task.template=chatml", "task.add_tokens=true", "training.max_steps=1")
    told = "writes no begin token"
    assert told in " ".join(capsys.readouterr().out.split())
    client = MlflowClient(tracking_uri=f"sqlite:///{Path('runs/mlflow.db').absolute()}")
    assert told in client.get_run(result["run_id"]).data.tags["xp.warnings.train"]


def test_the_bundled_model_learns_to_document_functions(corpus: Path) -> None:
    """A few steps on the embedded data leave the baseline behind."""
    from xp.config import compose
    from xp.launch import start
    from xp.run import Run

    compose.initialize(None)
    settings = ["data=stdlib_chat", "data.train_rows=64", "data.eval_rows=16", "training.epochs=null",
                "training.max_steps=8", "training.batch_size=8", "task.max_length=256", "task.overlong=drop",
                "tracking.log_model=false"]  # fmt: skip
    result = start(Run.parse(compose.values(settings)))
    assert result["metrics"]["eval/loss"] < result["baseline"]["eval/loss"]
    assert result["metrics"]["eval/token_accuracy"] > 3 * result["baseline"]["eval/token_accuracy"]


def test_a_conversation_to_answer_is_read_in_every_shape() -> None:
    from xp.task.messages import asked

    turn = [{"role": "user", "content": "who?"}]
    assert asked("who?") == asked([{"from": "human", "value": "who?"}]) == turn
    assert asked([*turn, {"from": "gpt", "value": "I."}]) == turn
    assert chat().measured({"messages": turn}) == ("who?",)


TOLD = [{"role": "user", "content": "who?"}]
SHAPED = [
    ({"messages": [*TOLD, {"role": "assistant", "content": "I."}]}, TOLD),
    ({"messages": json.dumps(TOLD), "id": 3}, TOLD),
    ({"messages": "who?", "system": "Be brief."}, [SYSTEM, *TOLD]),
    ({"conversations": [{"from": "human", "value": "who?"}, {"from": "gpt", "value": "I."}]}, TOLD),
    ({"instruction": "who?", "input": "", "output": "I."}, TOLD),
    ({"instruction": "who", "input": "is it?", "output": ""}, [{"role": "user", "content": "who\n\nis it?"}]),
    ({"prompt": "who?", "completion": None}, TOLD),
    ({"prompt": "who?"}, TOLD),
    ({"dialog": TOLD}, TOLD),
    (TOLD, TOLD),
    ({"messages": [{"role": "assistant", "content": "I."}]}, "messages: nobody says anything that could be answered"),
    ({"messages": [SYSTEM]}, "messages: nobody says anything that could be answered"),
    ({"messages": []}, "messages: nobody says anything that could be answered"),
    ({"prompt": " ", "completion": "x"}, "prompt: is empty"),
    ({"prompt": None, "completion": "x"}, "prompt: is empty"),
    (
        {"conversations": [{"from": "humn", "value": "?"}]},
        "conversations[0]: there is no role 'humn'. Did you mean 'human'?",
    ),
    ({"messages": [{"role": "user"}]}, "messages[0].content: is empty"),
    ({"messages": 5}, "messages: is not a list but int"),
    ({"a": "b", "c": "d"}, "messages: there is no 'messages', only a, c; set data.columns.messages=<its name>"),
]


@pytest.mark.parametrize("ending", [".json", ".jsonl"])
def test_files_of_conversations_are_predicted_in_every_shape(ending: str, tmp_path: Path) -> None:
    from xp.prediction import inputs

    file = tmp_path / f"talks{ending}"
    given = [row for row, _ in SHAPED]
    file.write_text(json.dumps(given) if ending == ".json" else "".join(json.dumps(row) + "\n" for row in given))
    for item, (row, wanted) in zip(inputs.read(str(file), chat(), {}), SHAPED, strict=True):
        assert (item.given, item.error or chat().entry(item.row)) == (row, wanted)
    (own,) = inputs.read([{"said": TURNS, "id": 1}], chat(), {"messages": "said"})
    assert own.row == {"messages": TURNS[:3]}
    (whole,) = inputs.read([*TOLD, {"role": "assistant", "content": "I."}], chat(), {})
    assert whole.row == {"messages": TOLD}


def test_functions_that_a_row_describes_reach_the_template() -> None:
    from xp.prediction import inputs

    (item,) = inputs.read([{"messages": TOLD, "tools": json.dumps(TOOLS)}], chat(), {})
    assert chat().arguments(item.row) == {"return_full_text": False, "tools": TOOLS}
