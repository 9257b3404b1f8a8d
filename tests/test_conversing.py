"""command=chat: a conversation held by a person at a terminal, or by a script through a pipe."""

from __future__ import annotations

import io
import json
import os
import pty
import re
import select
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import ROOT, from_yaml
from models import build
from test_chat import SYSTEM, TURNS, tokenizer

from xp.chat.orders import ORDERS, Desk, parsed
from xp.chat.speaker import Speaker, file_kind, opening
from xp.chat.stream import Stream
from xp.chat.talk import Talk
from xp.chat.terminal import Terminal
from xp.config import compose as composing
from xp.error import UserError
from xp.generation import Generation
from xp.generation.drafts import Draft
from xp.generation.greedy import Greedy
from xp.generation.sample import Sample
from xp.launch import start
from xp.run import Run
from xp.task.conversation import encode, stops
from xp.task.template import library

SHORT = ["command=chat", "generation=greedy", "generation.max_new_tokens=6", "precision=fp32"]


def network(vocabulary: int, positions: int = 256) -> Any:
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    return LlamaForCausalLM(
        LlamaConfig(vocab_size=vocabulary, hidden_size=16, intermediate_size=16, num_hidden_layers=1,
                    num_attention_heads=2, num_key_value_heads=2, max_position_embeddings=positions)
    ).eval()  # fmt: skip


def speaker(template: str = "plain", generation: Generation | None = None, **more: Any) -> Speaker:
    processor = tokenizer(template)
    made = generation or from_yaml(Greedy, max_new_tokens=8)
    known = {"context": 256, "seed": 0, "draft": None, "plain": False} | more
    return Speaker(network(len(processor)), processor, made, **known)


def desk(talk: Talk | None = None, **more: Any) -> tuple[Desk, list[str]]:
    said: list[str] = []
    return Desk(talk or Talk(), speaker(**more), said.append), said


# What the model sees


@pytest.mark.parametrize("system", [True, False])
@pytest.mark.parametrize("name", library())
def test_a_chat_sees_the_tokens_of_training(name: str, system: bool) -> None:
    """After each turn what the model goes on from is how the conversation begins that it would be trained on."""
    talk, mouth = Talk(), speaker(name)
    talk.system = SYSTEM["content"] if system else None
    for asked, answered in (TURNS[:2], TURNS[2:]):
        talk.ask(asked["content"])
        seen = mouth.tokens(talk.seen())["input_ids"][0].tolist()
        talk.answer(answered["content"], {"reason": "end"})
        trained = encode(talk.seen(), mouth.processor)
        assert trained.tokens[: len(seen)] == seen
        assert trained.trained[len(seen)]
        assert not any(trained.trained[len(seen) - 1 : len(seen)])
    assert encode(talk.seen(), mouth.processor).tokens == encode([SYSTEM] * system + TURNS, mouth.processor).tokens


def test_an_answer_is_what_generate_gives_and_is_shown_as_it_comes() -> None:
    talk, mouth, shown = Talk(), speaker(), list[str]()
    talk.ask("What is a fig?")
    inputs, dropped = mouth.fitted(talk)
    answer = mouth.answer(inputs, [1, 1], shown.append, lambda: False)
    whole = mouth.network.generate(
        **inputs, max_new_tokens=8, do_sample=False, pad_token_id=mouth.processor.pad_token_id,
        eos_token_id=stops(mouth.processor),
    )[0, inputs["input_ids"].shape[1] :]  # fmt: skip
    assert dropped == 0
    assert answer.text == mouth.processor.decode(whole, skip_special_tokens=True)
    assert "".join(shown) == answer.text
    assert (answer.tokens, answer.prompt_tokens) == (len(whole), inputs["input_ids"].shape[1])


def test_a_sampled_answer_is_repeatable_and_another_at_the_next_try() -> None:
    sample = from_yaml(Sample, max_new_tokens=12)
    texts = []
    for attempt in (1, 1, 2):
        talk, mouth = Talk(), speaker(generation=sample)
        talk.ask("What is a fig?")
        texts.append(mouth.answer(mouth.fitted(talk)[0], [1, attempt], print, lambda: False).text)
    assert texts[0] == texts[1] != texts[2]


def test_an_answer_is_stopped_after_the_token_it_is_at() -> None:
    talk, mouth, shown = Talk(), speaker(generation=from_yaml(Greedy, max_new_tokens=100)), list[str]()
    talk.ask("What is a fig?")
    answer = mouth.answer(mouth.fitted(talk)[0], [1, 1], shown.append, lambda: len(shown) >= 2)
    assert answer.reason == "stopped"
    assert 2 <= answer.tokens < 10


def test_whole_turns_go_when_the_context_is_full_and_the_system_message_stays() -> None:
    talk, mouth = Talk(), speaker(context=70)
    talk.system = "Be brief."
    for _ in range(6):
        talk.ask("What is a fig?")
        inputs, dropped = mouth.fitted(talk)
        talk.answer("A fruit.", {})
    assert dropped > 0
    assert inputs["input_ids"].shape[1] + 8 <= 70
    text = mouth.processor.decode(inputs["input_ids"][0])
    assert "Be brief." in text
    assert text.count("What is a fig?") == 6 - dropped
    assert text.count("A fruit.") == 5 - dropped
    talk.ask("fig " * 100)
    with pytest.raises(UserError, match=r"this turn has \d+ tokens with what is around it.*the model sees 70"):
        mouth.fitted(talk)


def test_a_model_without_a_template_does_not_speak_for_the_user() -> None:
    processor = tokenizer("plain")
    assert opening(processor) == "### user"
    shown: list[str] = []
    stream = Stream(processor, shown.append, ["\n### user", "never"])
    ids = processor("A fruit.\n### other\n# one\n### user\nAnd a saw?", add_special_tokens=False)["input_ids"]
    for token in ids:
        stream.put(torch.tensor([token]))
    stream.end()
    assert "".join(shown) == "A fruit.\n### other\n# one"
    assert stream.over
    assert stream.cut("A fruit.\n### user\nAnd") == "A fruit."


# Orders


def test_every_order_is_carried_out() -> None:
    front, said = desk()
    for word in ORDERS:
        assert hasattr(front, f"_{word[1:]}"), word
    front.order("/help")
    assert all(any(word in line for line in said) for word in ORDERS)


def test_system_undo_retry_and_clear() -> None:
    front, said = desk()
    front.order("/system Be brief.")
    assert front.talk.system == "Be brief."
    front.talk.ask("What is a fig?")
    front.talk.answer("A fruit.", {"reason": "end"})
    assert front.order("/retry") is True
    assert front.talk.messages[-1]["role"] == "user"
    front.talk.answer("A tree.", {"reason": "end"})
    assert front.order("/undo") is False
    assert front.talk.seen() == [{"role": "system", "content": "Be brief."}]
    for order in ("/undo", "/retry"):
        with pytest.raises(UserError, match=f"{order}: nothing was asked yet"):
            front.order(order)
    front.talk.ask("And a saw?")
    front.order("/clear")
    assert [message["role"] for message in front.talk.messages] == ["system"]
    front.order("/system none")
    assert front.talk.messages == []
    assert said[-1] == "system: none"


def test_a_system_message_that_the_template_refuses_can_be_taken_away() -> None:
    front, _ = desk()
    refusing = "{% if messages[0].role == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}"
    front.speaker.processor.chat_template = refusing + front.speaker.processor.chat_template
    front.order("/system Be brief.")
    front.talk.ask("What is a fig?")
    with pytest.raises(UserError, match=r"System role not supported; /system none takes it away$"):
        front.speaker.fitted(front.talk)
    front.order("/system none")
    assert front.speaker.fitted(front.talk)[1] == 0


def test_an_adapter_for_another_task_is_refused(tmp_path: Path) -> None:
    from peft import LoraConfig, get_peft_model

    front, said = desk()
    config = LoraConfig(task_type="CAUSAL_LM", target_modules="all-linear")
    get_peft_model(network(len(front.speaker.processor)), config).save_pretrained(tmp_path)
    file = tmp_path / "adapter_config.json"
    fit = file.read_text()
    file.write_text(fit.replace("CAUSAL_LM", "SEQ_CLS"))
    with pytest.raises(UserError, match="this adapter is for SEQ_CLS, a chat for CAUSAL_LM; give another one"):
        front.order(f"/adapter law={tmp_path}")
    file.write_text(fit)
    front.locate = {"mlflow:abc": str(tmp_path)}.__getitem__
    front.order("/adapter law=mlflow:abc")
    front.order("/adapter law law")
    assert said[-1] == "adapters: law; answering with law"


def test_adapters_are_switched_while_talking() -> None:
    """Without its adapter a model answers as its base does."""
    from peft import LoraConfig, get_peft_model

    front, said = desk()

    def answer() -> str:
        talk = Talk()
        talk.ask("What is a fig?")
        return front.speaker.answer(front.speaker.fitted(talk)[0], [1, 1], lambda piece: None, lambda: False).text

    with pytest.raises(UserError, match="this model has none"):
        front.order("/adapter")
    plain = answer()
    torch.manual_seed(0)
    config = LoraConfig(task_type="CAUSAL_LM", target_modules="all-linear", init_lora_weights=False, lora_alpha=400)
    front.speaker.network = get_peft_model(front.speaker.network, config).eval()
    adapted = answer()
    assert adapted != plain
    front.order("/adapter none")
    assert answer() == plain
    front.order("/adapter")
    assert said[-1] == "adapters: default; answering with none"
    front.order("/adapter default")
    assert said[-1] == "adapters: default; answering with default"
    assert answer() == adapted
    with pytest.raises(UserError, match=r"/adapter defalt: there is no such adapter. Did you mean 'default'\?"):
        front.order("/adapter defalt")


def test_settings_are_checked_as_those_of_the_command_line() -> None:
    front, said = desk(generation=from_yaml(Sample))
    front.order("/set temperature=0.5")
    assert front.speaker.generation.temperature == 0.5  # type: ignore[attr-defined]
    for order, message in [
        ("/set temprature=1", "Did you mean 'temperature'?"),
        ("/set temperature=0", "/set temperature=0: "),
        ("/set temperature", "give <key>=<value>"),
        ("/set max_new_tokens=many", '/set max_new_tokens="many": it must be an integer'),
        ("/set max_new_tokens=256", "/set max_new_tokens=256: this model sees 256 tokens at once"),
        ("/set num_return_sequences=3", "/set num_return_sequences=3: a chat has one answer"),
        ("/set suppress_tokens=[99999]", "/set suppress_tokens"),
        ("/set use_mtp=true", "/set use_mtp=true: this model has no heads"),
        ("/set cache_implementation=offloaded", "/set cache_implementation=offloaded: it spares a GPU's memory"),
        ("/set assistant_model=x", "/set assistant_model: it is loaded at the start"),
        ("/set name=greedy", "generation=sample has no such setting"),
        ("/set stop_strings=[", "does not parse"),
        ("/set cache_config={[a]: 1}", "does not parse"),
        ("/stats now", "/stats: nothing comes after it"),
        ("/adapter law=", "/adapter law=: give its folder"),
        ("/attach", "this model reads text alone"),
        ("/sett x", "there is no such order. Did you mean '/set'?"),
    ]:
        with pytest.raises(UserError) as caught:
            front.order(order)
        assert message in str(caught.value)
        assert "\n" not in str(caught.value)
    assert front.speaker.generation.temperature == 0.5  # type: ignore[attr-defined]
    front.order("/set")
    assert "temperature=0.5" in said[-1]
    processor = tokenizer("plain")
    drafted, _ = desk(
        generation=from_yaml(Greedy, max_new_tokens=8, assistant_model="x"),
        draft=Draft(network(len(processor)), processor),
    )
    drafted.order("/set num_assistant_tokens=3")
    with pytest.raises(UserError, match=r"^/set target_lookbehind: the draft model has the model's own tokenizer"):
        drafted.order("/set target_lookbehind=3")


def test_a_talk_is_saved_and_loaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    front, said = desk()
    front.talk.ask("What is a fig?")
    front.talk.answer("A früit.\n", {"reason": "end", "tokens": 3, "seconds": 0.5, "prompt_tokens": 9})
    front.order("/save talk.json")
    other, _ = desk()
    assert other.order("/load talk.json") is False
    assert other.talk.messages == front.talk.messages
    front.order("/stats")
    assert said[-2] == "1 turn, 1 answer of 3 tokens in 0.5 s, 6.0 tokens a second"
    Path("list.json").write_text(json.dumps([{"role": "user", "content": "What is a saw?"}]))
    assert other.order("/load list.json") is True
    Path("broken.json").write_text("{")
    Path("odd.json").write_text('[{"role": "usr", "content": "x"}]')
    Path("late.json").write_text('[{"role": "assistant", "content": "x"}]')
    Path("half.json").write_text('[{"role": "user", "content": "\\ud800"}]')
    Path("about.json").write_text(
        '[{"role": "user", "content": "x"}, {"role": "assistant", "content": "y", "about": 1}]'
    )
    Path("share.json").write_text('{"conversations": []}')
    for name, message in [
        ("nope.json", "nope.json: it cannot be read: No such file or directory; there is: about.json, broken.json"),
        ("broken.json", "broken.json: is no JSON"),
        ("odd.json", "messages[0]: there is no role 'usr'. Did you mean 'user'?"),
        ("late.json", "messages[0]: the assistant speaks first"),
        ("half.json", "half.json: it holds half a character"),
        ("about.json", "messages[1].about: it must have reason, prompt_tokens, tokens and seconds"),
        ("share.json", "share.json: it has no key messages"),
    ]:
        with pytest.raises(UserError) as caught:
            other.order(f"/load {name}")
        assert message in str(caught.value)
    assert other.talk.seen() == [{"role": "user", "content": "What is a saw?"}]
    front.order("/save talk.json")
    assert said[-1] == "saved to talk.json, in the place of what was there"
    with pytest.raises(UserError, match="this is a folder"):
        front.order(f"/save {tmp_path}")
    assert not [*tmp_path.parent.glob("*.part")]


# Images and sounds


def test_images_go_along_with_a_turn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from PIL import Image

    monkeypatch.chdir(tmp_path)
    model = build("image_text_to_text", tmp_path / "model")
    Image.new("RGB", (40, 40), "red").save("red.png")
    monkeypatch.setattr(
        sys, "stdin", io.StringIO("/attach red.png\nWhat is it?\n/attach nope.png\n/attach talk.json\n")
    )
    result = ran("model=pretrained", f"model.path={model}")
    (asked, answered) = json.loads(Path(result["transcript"]).read_text())["messages"]
    assert asked["content"] == [{"type": "image", "path": "red.png"}, {"type": "text", "text": "What is it?"}]
    assert answered["about"]["prompt_tokens"] > 16  # The image's patches are among them.


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_sounds_go_along_with_a_turn(precision: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import numpy as np
    import soundfile

    monkeypatch.chdir(tmp_path)
    model = build("any_to_any", tmp_path / "model")
    soundfile.write("beep.wav", np.sin(np.arange(8000) / 10).astype("float32"), 8000)
    Path("noise.wav").write_text("none")
    typed = "/attach beep.wav\nWhat is it?\nAnd then?\n/attach noise.wav\nAnd this?\n"
    monkeypatch.setattr(sys, "stdin", io.StringIO(typed))
    result = ran("model=pretrained", f"model.path={model}", f"precision={precision}")
    messages = json.loads(Path(result["transcript"]).read_text())["messages"]
    assert [message["role"] for message in messages] == ["user", "assistant"] * 3
    assert messages[4]["content"] == "And this?"  # What cannot be read was not attached.
    first, second, _ = (message["about"]["prompt_tokens"] for message in messages[1::2])
    assert second > first > len("What is it?") + 20  # The sound's frames are among them, in both turns.


def test_what_a_file_is_goes_by_its_name() -> None:
    names = ("a.png", "b.wav", "c.mp4", "d.txt", "e")
    assert [file_kind(name) for name in names] == ["image", "audio", "video", None, None]
    front, _ = desk()
    with pytest.raises(UserError, match="this model reads text alone"):
        front.order("/attach a.png")


# The command


def ran(*overrides: str) -> dict[str, Any]:
    composing.initialize(None)
    return start(Run.parse(composing.values([*SHORT, *overrides])))


def test_a_chat_through_a_pipe(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """Answers alone go to the standard output; the transcript is on disk and in MLflow."""
    from mlflow import MlflowClient

    monkeypatch.chdir(tmp_path)
    Path("past.json").write_text(json.dumps([{"role": "user", "content": "What is a fig?"}]))
    monkeypatch.setattr(sys, "stdin", io.StringIO('"""\ndef add(a, b):\n    return a + b\n"""\n/nope\none\\\ntwo\n'))
    result = ran("chat.history=past.json", "chat.system='Be brief.'")
    shown, told = capfd.readouterr()
    messages = json.loads(Path(result["transcript"]).read_text())["messages"]
    said = [message["content"] for message in messages if message["role"] != "assistant"]
    assert said == ["Be brief.", "What is a fig?", "def add(a, b):\n    return a + b", "one\ntwo"]
    answers = [message["content"] for message in messages if message["role"] == "assistant"]
    assert shown == "".join(f"{answer}\n" for answer in answers)
    assert "bundled answers plainly" in told
    assert "/nope: there is no such order" in told
    client = MlflowClient(f"sqlite:///{tmp_path}/runs/mlflow.db")
    tracked = client.get_run(result["run_id"])
    assert tracked.data.metrics["chat/answers"] == 3
    assert tracked.data.tags["xp.model"] == "bundled"
    assert "xp.data" not in tracked.data.tags  # A chat reads none.
    assert {"transcript.json", "conversation.json"} <= {each.path for each in client.list_artifacts(result["run_id"])}
    kept = client.download_artifacts(result["run_id"], "transcript.json")
    assert json.loads(Path(kept).read_text())["messages"] == messages  # A chat can go on from it.


def test_an_encoder_decoder_answers_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForSeq2SeqLM

    monkeypatch.chdir(tmp_path)
    model = build("text_to_text", tmp_path / "model")
    monkeypatch.setattr(sys, "stdin", io.StringIO("What is a fig?\n"))
    result = ran("model=pretrained", f"model.path={model}")
    (_, answered) = json.loads(Path(result["transcript"]).read_text())["messages"]
    assert answered["about"]["tokens"] > 0
    adapted = get_peft_model(AutoModelForSeq2SeqLM.from_pretrained(model), LoraConfig(task_type="SEQ_2_SEQ_LM"))
    adapted.save_pretrained("adapter")
    monkeypatch.setattr(sys, "stdin", io.StringIO("What is a fig?\n"))
    adapter = ran("model=pretrained", "model.path=adapter")
    (_, again) = json.loads(Path(adapter["transcript"]).read_text())["messages"]
    assert again["content"] == answered["content"]  # A new LoRA changes nothing.


def test_a_classifier_is_told_apart(tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: Any) -> None:
    monkeypatch.chdir(tmp_path)
    model = build("causal_lm", tmp_path / "model")
    config = json.loads(Path(model, "config.json").read_text())
    Path(model, "config.json").write_text(json.dumps(config | {"architectures": ["LlamaForSequenceClassification"]}))
    monkeypatch.setattr(sys, "stdin", io.StringIO("x\n"))
    ran("model=pretrained", f"model.path={model}")
    assert (
        "warning: this model was trained as LlamaForSequenceClassification, and not to write" in capfd.readouterr().err
    )


def test_an_encoder_alone_answers_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    model = build("masked_lm", tmp_path / "model")
    with pytest.raises(UserError, match="has no decoder of texts, so it cannot write"):
        ran("model=pretrained", f"model.path={model}")


def test_ctrl_c_between_an_answer_and_the_next_message_ends_nothing_at_once() -> None:
    """As loading an adapter does, which takes a while."""
    terminal = Terminal()
    terminal.interactive = True
    with terminal.talking():
        signal.raise_signal(signal.SIGINT)
        assert terminal.stopped  # And it is said that once more ends the program.
        signal.raise_signal(signal.SIGINT)  # A key that is held down.
        terminal._since -= 2
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)


def test_what_cannot_be_answered_leaves_the_conversation_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    picture = [{"type": "image", "path": "x.png"}, {"type": "text", "text": "What is it?"}]
    Path("picture.json").write_text(json.dumps([{"role": "user", "content": picture}]))
    much = f"/system {'fig ' * 600}"
    typed = ["What is a fig?", much, "/retry", "And a saw?", "/system none", "/load picture.json", "\udcff",
             "//no order", '"""/help me"""', '"""one""" two', '"""', "open"]  # fmt: skip
    monkeypatch.setattr(sys, "stdin", io.StringIO("\n".join(typed)))
    messages = json.loads(Path(ran()["transcript"]).read_text())["messages"]
    _, told = capfd.readouterr()
    said = [message["content"] for message in messages if message["role"] == "user"]
    assert said == ["What is a fig?", "/help me", "one two", "open"]
    assert [message["role"] for message in messages] == ["user", "assistant"] * 4
    lines = [line for line in told.splitlines() if line.startswith("xp: ")]
    assert [line.rpartition("; ")[2] for line in lines[:3]] == [
        "the conversation is as it was", "what was said is taken back", "the conversation is as it was"]  # fmt: skip
    assert "messages[0]: it has image in it, and this model reads text alone" in lines[2]
    assert "this is no UTF-8" in lines[3]
    assert "there is no such order" in lines[4]
    assert len(lines) == 5


def test_what_is_typed_is_read_as_on_the_command_line() -> None:
    read = {"1e-1": 0.1, "010": 10, "1:30": "1:30", "null": None, "true": True, "[no, '5', 5]": ["no", "5", 5],
            "{a: [1.5]}": {"a": [1.5]}, "": None}  # fmt: skip
    assert {text: parsed(text) for text in read} == read


def test_a_chat_whose_answers_nobody_reads_ends(tmp_path: Path) -> None:
    ran = subprocess.run(
        f"yes 'What is a fig?' | {sys.executable} -m xp {' '.join(map(shlex.quote, SHORT))} | head -c 1",
        check=False, shell=True, cwd=tmp_path, capture_output=True, text=True, timeout=120,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert "nobody reads the answers any more: the chat ends" in ran.stderr
    assert "Traceback" not in ran.stderr
    (file,) = tmp_path.glob("runs/*/result.json")
    assert json.loads(file.read_text())["metrics"]["chat/answers"] > 0


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["task=causal_lm"], "task=causal_lm: command=chat is for task=chat"),
        (["generation.max_new_tokens=512"], "generation.max_new_tokens=512: this model sees 512 tokens at once"),
        (["chat.context=1000"], "chat.context=1000: this model sees at most 512 tokens"),
        (["chat.history=nope.json"], "nope.json: it cannot be read"),
        (["chat.sytem=x"], "Did you mean 'system'?"),
    ],
)
def test_what_cannot_be_is_one_line(
    overrides: list[str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError) as caught:
        ran(*overrides)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_history_that_is_not_there_is_missed_before_anything_is_imported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    composing.initialize(None)
    with pytest.raises(UserError, match=r"nope.json: it cannot be read"):
        Run.parse(composing.values([*SHORT, "chat.history=nope.json"])).check_files()


class Screen:
    """xp at a pseudo-terminal, and a person before it."""

    def __init__(self, *arguments: str, folder: Path) -> None:
        master, slave = pty.openpty()
        self.master = master
        self.seen, self.looked = "", 0
        self.process = subprocess.Popen(
            [sys.executable, "-c", "import fcntl, signal, sys, termios; fcntl.ioctl(0, termios.TIOCSCTTY, 0); "
             "signal.signal(2, signal.default_int_handler); "
             "from xp.__main__ import main; sys.exit(main())", *arguments],
            stdin=slave, stdout=slave, stderr=slave, cwd=folder, start_new_session=True,
            env=os.environ | {"PYTHONPATH": str(ROOT), "TERM": "xterm", "COLUMNS": "100"},
        )  # fmt: skip
        os.close(slave)

    def types(self, text: str) -> None:
        os.write(self.master, text.encode())

    def until(self, text: str, seconds: float = 120) -> str:
        """What has appeared since the last look, up to this text, which must."""
        end = time.monotonic() + seconds
        while text not in self.seen[self.looked :]:
            assert time.monotonic() < end, self.seen
            if select.select([self.master], [], [], 1)[0]:
                try:
                    self.seen += os.read(self.master, 65536).decode(errors="replace")
                except OSError:
                    break
        begin = self.looked
        self.looked = self.seen.index(text, begin) + len(text)
        return re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", self.seen[begin : self.looked])


def test_a_chat_at_a_terminal(tmp_path: Path) -> None:
    """A person types, reads, stops an answer by Ctrl-C, goes on, and leaves by Ctrl-D."""
    screen = Screen(*SHORT, "generation.max_new_tokens=450", folder=tmp_path)
    try:
        screen.until(">>> ")
        screen.types("/hel\t\n")
        assert "/undo" in screen.until("Ctrl-C stops an answer")
        screen.until(">>> ")
        screen.types("def add(a, b):\n")
        screen.until("\n")
        time.sleep(0.5)
        screen.types("\x03")
        screen.until("stopped")
        screen.until(">>> ")
        screen.types("/set max_new_tokens=5\n")
        screen.until("max_new_tokens=5")
        screen.until(">>> ")
        screen.types('"""one\ntwo"""\n')
        screen.until("cut at max_new_tokens=5")
        screen.until(">>> ")
        time.sleep(0.2)
        screen.types("\x03")
        screen.until("Ctrl-D or /exit ends the chat")
        screen.until(">>> ")
        screen.types("half a line")
        screen.until("half a line")
        time.sleep(0.2)
        screen.types("\x03")
        screen.until("Ctrl-D or /exit ends the chat")
        screen.until(">>> ")
        screen.types("\x04")
        screen.until("transcript")
        assert screen.process.wait(timeout=60) == 0, screen.seen
    finally:
        screen.process.kill()
        screen.process.wait()
        os.close(screen.master)
    (file,) = tmp_path.glob("runs/*/transcript.json")
    messages = json.loads(file.read_text())["messages"]
    assert [message["content"] for message in messages[::2]] == ["def add(a, b):", "one\ntwo"]
    assert [message["about"]["reason"] for message in messages[1::2]] == ["stopped", "length"]
    assert messages[1]["about"]["tokens"] < 450
