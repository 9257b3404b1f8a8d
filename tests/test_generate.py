"""command=generate: what is written does not depend on what shares a batch, and is told with why it ended."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import command

from xp.error import UserError
from xp.model.pretrained import ASSETS
from xp.prediction import engine, writer
from xp.prediction.prompts import Reader
from xp.task.conversation import prompt
from xp.task.rendering import render
from xp.task.template import library

Run = Callable[..., dict[str, Any]]
PROMPTS = [
    "def main(",
    "import os\nimport sys\nimport json\n\n\nclass Reader:\n    def __init__(self, path):\n        self.path = path\n"
    * 3,
    "x",
    "for name in names:\n    print(",
    "class Shape(",
    "def double(value):\n    return value * 2\n\n\ndef triple(value):\n",
    "raise",
]
GENERATE = ["command=generate", "model=bundled", "generation.max_new_tokens=24"]


def tokenizer() -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(ASSETS / "bundled")


@pytest.fixture(scope="module")
def encoder_decoder(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A folder with a tiny one; it has learned nothing, but what it writes follows from what it reads."""
    from transformers import BartConfig, BartForConditionalGeneration

    torch.manual_seed(1)
    sizes = {f"{side}_{name}": 2 for side in ("encoder", "decoder") for name in ("layers", "attention_heads")}
    tokens = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "decoder_start_token_id": 2}
    config = BartConfig(vocab_size=4096, d_model=32, init_std=0.5, max_position_embeddings=256, **sizes, **tokens)
    network = BartForConditionalGeneration(config)
    network.generation_config.forced_eos_token_id = None
    return saved(tmp_path_factory.mktemp("bart"), network)


def saved(folder: Path, network: Any, processor: Any = None) -> str:
    network.save_pretrained(folder)
    (processor or tokenizer()).save_pretrained(folder)
    return str(folder)


def lines(result: dict[str, Any]) -> list[dict[str, Any]]:
    return [json.loads(line) for line in Path(result["generations"]).read_text().splitlines()]


def texts(result: dict[str, Any]) -> list[str]:
    return [line["text"] for line in lines(result)]


def asked(prompts: list[Any]) -> str:
    Path("prompts.json").write_text(json.dumps(prompts))
    return "inputs=prompts.json"


def by_hand(path: str, prompts: list[str], number: int) -> list[str]:
    """One prompt at a time, without a cache."""
    from transformers import AutoModelForCausalLM, AutoModelForSeq2SeqLM

    kind = AutoModelForCausalLM if path == str(ASSETS / "bundled") else AutoModelForSeq2SeqLM
    network = kind.from_pretrained(path, dtype=torch.float32).eval()
    own, found = tokenizer(), []
    for each in prompts:
        given = torch.tensor([own(each)["input_ids"]])
        row = given if kind is AutoModelForCausalLM else torch.tensor([[2]])
        start = row.shape[1]
        for _ in range(number):
            with torch.inference_mode():
                more = {} if kind is AutoModelForCausalLM else {"input_ids": given}
                logits = network(**more, **{"decoder_input_ids" if more else "input_ids": row}).logits
            row = torch.cat([row, logits[:, -1:].argmax(-1)], 1)
            if row[0, -1] == 2:
                break
        found.append(own.decode(row[0, start:], skip_special_tokens=True))
    return found


@pytest.mark.parametrize("kind", ["decoder", "encoder_decoder"])
def test_greedy_text_of_a_batch_is_that_of_one_prompt_at_a_time(
    kind: str, run: Run, encoder_decoder: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = encoder_decoder if kind == "encoder_decoder" else str(ASSETS / "bundled")
    sizes: list[int] = []
    own = writer.padded
    monkeypatch.setattr(writer, "padded", lambda rows, *rest: sizes.append(len(rows)) or own(rows, *rest))
    given = [*GENERATE, f"model.path={path}", asked(PROMPTS)]
    together = run(*given)
    assert len(PROMPTS) in sizes
    del sizes[:]
    alone = run(*given, "prediction.batch_tokens=1")
    assert set(sizes[-len(PROMPTS) :]) == {1}
    assert texts(together) == texts(alone) == by_hand(path, PROMPTS, 24)
    assert len(set(texts(together))) >= len(PROMPTS) - 1
    few = run(*given, "prediction.batch_tokens=150")
    assert texts(few) == texts(alone)


@pytest.mark.parametrize("way", ["sample", "beam_sample"])
def test_what_is_drawn_for_a_prompt_does_not_depend_on_its_batch(way: str, run: Run) -> None:
    given = [*GENERATE, asked(PROMPTS), f"generation={way}", "generation.num_return_sequences=2"]
    together = run(*given)
    assert texts(run(*given, "prediction.batch_tokens=200")) == texts(together)
    assert texts(run(*given, "seed=1")) != texts(together)
    if way == "sample":
        assert len(set(texts(together))) == 2 * len(PROMPTS)
    assert [(line["position"], line["sample"]) for line in lines(together)] == [
        (position, sample) for position in range(len(PROMPTS)) for sample in range(2)
    ]


def test_each_line_says_what_was_asked_what_follows_why_it_ended_and_how_long_it_is(run: Run, capsys: Any) -> None:
    Path("prompts.csv").write_text('code,n\n"def main(",1\n"class Shape(",2\n')
    result = run(*GENERATE, "inputs=prompts.csv", "+data.columns.text=code", "prediction.output=out.jsonl",
                 "generation.stop_strings=[s]")  # fmt: skip
    found = lines(result)
    assert Path("out.jsonl").read_text() == Path(result["generations"]).read_text()
    assert [line["place"] for line in found] == ["prompts.csv:2", "prompts.csv:3"]
    assert [line["prompt_tokens"] for line in found] == [len(tokenizer()(text)["input_ids"])
                                                        for text in ("def main(", "class Shape(")]  # fmt: skip
    for line in found:
        assert line["finish"] == ("stop_string" if line["new_tokens"] < 24 else "length")
        assert "s" not in line["text"]
    assert "stop_string" in [line["finish"] for line in found]
    metrics = result["metrics"]
    assert metrics["generate/new_tokens"] == sum(line["new_tokens"] for line in found)
    speed = metrics["generate/new_tokens"] / metrics["generate/seconds"]
    assert metrics["generate/tokens_per_second"] == pytest.approx(speed)
    first, second = (line["new_tokens"] / line["tokens_per_second"] for line in found)  # Seconds of their one batch.
    assert first == pytest.approx(second, rel=0.01)
    assert first < metrics["generate/seconds"]
    shown = capsys.readouterr().out
    assert "what follows" in shown
    assert "finish" in shown
    import mlflow

    client = mlflow.MlflowClient(f"sqlite:///{Path('runs/mlflow.db').absolute()}")
    names = {each.path for each in client.list_artifacts(result["run_id"])}
    assert {"generations.jsonl", "generations.json", "result.json"} <= names
    table = json.loads(Path(client.download_artifacts(result["run_id"], "generations.json")).read_text())
    assert {"position", "input", "text", "finish", "new_tokens", "tokens_per_second"} <= set(table["columns"])


def test_an_answer_ends_with_its_end_token_or_in_time(run: Run, encoder_decoder: str) -> None:
    found = lines(run(*GENERATE, asked(["x"] * 3), "generation.max_new_tokens=400", "generation.max_time=0.0001"))
    assert {(line["finish"], line["new_tokens"]) for line in found} == {("time", 1)}
    (found, *_) = lines(run(*GENERATE, 'inputs="x"', 'generation.sequence_bias=[["<|end|>", 100]]'))
    assert (found["finish"], found["new_tokens"], found["text"]) == ("stop", 1, "")


def test_padding_is_on_the_left_and_of_no_consequence(run: Run, tmp_path: Path) -> None:
    """Whatever the tokenizer says, and where it has no padding token: its end token does, and still ends answers."""
    from transformers import AutoModelForCausalLM

    network = AutoModelForCausalLM.from_pretrained(ASSETS / "bundled", dtype=torch.float32)
    own = tokenizer()
    own.pad_token, own.padding_side = None, "right"
    network.config.pad_token_id = network.generation_config.pad_token_id = None
    path = saved(tmp_path / "without", network, own)
    kept = (tmp_path / "without/tokenizer_config.json").read_text()
    given = [*GENERATE, asked(PROMPTS)]
    result = run(*given, f"model.path={path}")
    assert texts(result) == texts(run(*given))
    assert (tmp_path / "without/tokenizer_config.json").read_text() == kept
    (line, *_) = lines(run(*given, f"model.path={path}", 'generation.sequence_bias=[["<|end|>", 100]]'))
    assert (line["finish"], line["new_tokens"]) == ("stop", 1)


MARK = "{greenlist_ratio: 0.25, bias: 9, hashing_key: 15485863, seeding_scheme: SCHEME, context_width: 4}"


@pytest.mark.parametrize(
    "settings",
    [
        ["generation.encoder_repetition_penalty=4"],
        ["generation.no_repeat_ngram_size=1"],
        ["generation.encoder_no_repeat_ngram_size=1"],
        [f"generation.watermarking_config={MARK.replace('SCHEME', 'lefthash')}"],
        [f"generation.watermarking_config={MARK.replace('SCHEME', 'selfhash')}"],
    ],
)
def test_padding_counts_as_no_part_of_a_prompt(settings: list[str], run: Run, tmp_path: Path) -> None:
    """Where it is the end token, too: an answer would end sooner, or never."""
    from transformers import AutoModelForCausalLM

    own = tokenizer()
    own.pad_token = own.eos_token
    path = saved(tmp_path / "same", AutoModelForCausalLM.from_pretrained(ASSETS / "bundled", dtype=torch.float32), own)
    given = [*GENERATE, f"model.path={path}", asked([*PROMPTS, "y", "raise"]), *settings]
    likely = ["generation.sequence_bias=[['<|end|>', 6.0]]"]
    assert texts(run(*given, *likely)) == texts(run(*given, *likely, "prediction.batch_tokens=1"))
    drawn = [*given, "generation=sample"]
    assert texts(run(*drawn)) == texts(run(*drawn, "prediction.batch_tokens=1"))


def test_a_network_that_padding_moves_has_no_batches(run: Run, tmp_path: Path, capsys: Any) -> None:
    from transformers import RwkvConfig, RwkvForCausalLM

    torch.manual_seed(0)
    config = RwkvConfig(vocab_size=4096, hidden_size=32, num_hidden_layers=2, context_length=256, bos_token_id=1,
                        eos_token_id=2, pad_token_id=0)  # fmt: skip
    network = RwkvForCausalLM(config)
    for weights in network.parameters():
        torch.nn.init.normal_(weights, std=0.3)
    given = [*GENERATE, f"model.path={saved(tmp_path / 'rwkv', network)}", asked([*PROMPTS, "raise"])]
    together = run(*given)
    assert "padding changes what this network writes" in capsys.readouterr().out
    assert texts(together) == texts(run(*given, "prediction.batch_tokens=1"))


def test_what_cannot_be_answered_is_told_and_the_others_are(run: Run, capsys: Any) -> None:
    long = "word " * 600
    result = run(*GENERATE, asked(["def main(", "", long, 7, "x"]))
    found = lines(result)
    assert result["failed"] == 3
    assert ["error" in line for line in found] == [False, True, True, True, False]
    assert found[1]["error"] == "text: is empty"
    assert "and the model takes 512, generation.max_new_tokens=24 leaves 488; shorten it" in found[2]["error"]
    assert found[3]["error"] == "text: 7 is no text"
    assert "failed   input 1" in capsys.readouterr().out
    with pytest.raises(UserError, match="none of the 2 prompts has an answer; input 0.*: text: is empty"):
        run(*GENERATE, asked(["", " "]))
    with pytest.raises(UserError, match="generation.max_new_tokens: the model takes 512.*so none for a prompt"):
        run(*GENERATE, asked(["x"]), "generation.max_new_tokens=512")


def test_a_list_is_a_conversation_or_fails_alone(run: Run) -> None:
    talk = [{"role": "user", "content": "what is apple"}]
    rows = [{"prompt": talk}, {"text": ["apple", "cat"]}, {"text": talk}, {"code": ["a"]}, {"prompt": ["a"], "n": 1},
            {"prompt": [{"role": "nobody", "content": "x"}]}, {"text": "x"}, {"messages": talk}]  # fmt: skip
    Path("rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    found = lines(run(*GENERATE, "inputs=rows.jsonl", "task=chat"))
    wrong = "is a list; it must be a text, or a list of messages in a column messages"
    assert [line.get("error", "").partition(". There is")[0] for line in found] == [
        "", f"text: {wrong}", f"text: {wrong}", f"code: {wrong}", f"prompt: {wrong}",
        "prompt[0]: there is no role 'nobody'", "", "",
    ]  # fmt: skip
    assert found[0]["text"] == found[-1]["text"]


def test_networks_that_cannot_write_are_refused(run: Run, tmp_path: Path) -> None:
    from transformers import BertConfig, BertForMaskedLM, DistilBertConfig, DistilBertForMaskedLM

    small = {"vocab_size": 4096, "hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    bert = saved(tmp_path / "bert", BertForMaskedLM(BertConfig(intermediate_size=32, **small)))
    few = {"vocab_size": 4096, "dim": 32, "hidden_dim": 32, "n_layers": 1, "n_heads": 2}
    distil = saved(tmp_path / "distil", DistilBertForMaskedLM(DistilBertConfig(**few)))
    for path, name in ((bert, "bert"), (distil, "distilbert")):
        with pytest.raises(UserError, match=f"model: {name} has no decoder of texts, so it cannot write"):
            run(*GENERATE, f"model.path={path}", 'inputs="x"')


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["command=generate"], "inputs has no value; give inputs=<a text, a list, or a file>"),
        (["command=generate", "inputs=x", "task=summarization"], "task=summarization: command=generate takes prompts"),
        (["command=generate", "inputs=x", "prediction.batch_tokens=0"], "prediction.batch_tokens=0: it must be"),
        (["command=generate", "inputs=x", "backend=accelerate", "backend.processes=2"], "command=generate runs in one"),
    ],
)  # fmt: skip
def test_wrong_requests_are_told(overrides: list[str], said: str, compose: Callable[..., Any]) -> None:
    with pytest.raises(UserError) as error:
        compose(*overrides)
    assert said in str(error.value)


def test_short_memory_halves_a_batch_and_is_told_once(capsys: Any) -> None:
    from xp.prediction.inputs import Item

    tried: list[int] = []

    class Narrow:
        tokenizer, rate, even, truncates, limit = None, None, False, False, 10
        task = type("Task", (), {"batches": True, "arguments": lambda self, row: {}})()

        def measure(self, rows: list[Any]) -> list[int]:
            return [row["size"] for row in rows]

        def call(self, rows: list[Any]) -> list[Any]:
            tried.append(len(rows))
            if len(rows) > 2:
                raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")
            if any(row["size"] == 9 for row in rows):
                raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")
            return [row["size"] for row in rows]

    items = [Item(at, "", {"size": size}) for at, size in enumerate([1, 2, 9, 3, 4, 5, 6, 7])]
    said: list[str] = []
    outcomes = engine.predict(Narrow(), items, lambda _: 4, 0, lambda _, each: each, lambda _: None, said.append)  # type: ignore[arg-type]
    assert [outcome.output for outcome in outcomes] == [1, 2, None, 3, 4, 5, 6, 7]
    assert outcomes[2].error.startswith("it needs more memory than there is; OutOfMemoryError")
    assert tried == [4, 2, 1, 1, 2, 4, 2, 2]
    assert len(said) == 1


@pytest.mark.parametrize("template", sorted(library()))
def test_a_prompt_that_holds_the_template_is_not_wrapped_twice(template: str) -> None:
    processor = tokenizer()
    assert Reader(processor).tokens({"text": "def main("}) == (processor("def main(")["input_ids"], "text")
    with pytest.raises(UserError, match="this model's tokenizer has no chat template; give task=chat"):
        Reader(processor).tokens({"messages": [{"role": "user", "content": "x"}]})
    processor.chat_template = library()[template]
    reader = Reader(processor)
    talk = [{"role": "user", "content": "What is it?"}]
    wrapped = prompt(talk, processor)
    assert reader.tokens({"messages": talk}) == (wrapped, "conversation")
    rendered, _ = render(talk, processor, prompt=True)
    assert reader.tokens({"text": rendered}) == (wrapped, "rendered")
    assert reader.tokens({"messages": [{"role": "user", "content": rendered}]}) == (wrapped, "rendered")
    longer = [*talk, {"role": "assistant", "content": "Nothing."}, *talk]
    told, _ = render(longer, processor, prompt=True)
    assert reader.tokens({"text": told}) == (prompt(longer, processor), "rendered")
    assert reader.tokens({"text": "def main("}) == (processor("def main(")["input_ids"], "text")
    begun = processor.bos_token + "def main("
    assert reader.tokens({"text": begun}) == (processor("def main(")["input_ids"], "text")


def test_conversations_go_through_the_template_and_end_where_it_says(run: Run, tmp_path: Path, capsys: Any) -> None:
    talk = [{"role": "user", "content": "What does it do?"}]
    Path("talks.jsonl").write_text(
        json.dumps({"messages": talk}) + "\n"
        + json.dumps({"conversations": [{"from": "human", "value": "Why?"}, {"from": "gpt", "value": "So."}]}) + "\n"
        + json.dumps({"prompt": "def main("}) + "\n"
    )  # fmt: skip
    result = run(*GENERATE, "inputs=talks.jsonl", "task=chat")
    processor = tokenizer()
    processor.chat_template = library()["plain"]
    sizes = [len(prompt(talk, processor)), len(prompt([{"role": "user", "content": "Why?"}], processor)),
             len(processor("def main(")["input_ids"])]  # fmt: skip
    assert [line["prompt_tokens"] for line in lines(result)] == sizes
    assert (
        "1 prompts are plain texts and go in as they stand, though this model has a chat template"
        in capsys.readouterr().out
    )
    with pytest.raises(UserError, match="this model's tokenizer has no chat template; give task=chat"):
        run(*GENERATE, 'inputs=[{"role": "user", "content": "x"}]')


def test_a_draft_model_is_loaded_by_its_path_and_changes_no_text(run: Run, encoder_decoder: str) -> None:
    given = [*GENERATE, asked(PROMPTS[:3])]
    plain = texts(run(*given))
    assert texts(run(*given, "generation.assistant_model=bundled", "generation.num_assistant_tokens=4")) == plain
    assert texts(run(*given, "generation.prompt_lookup_num_tokens=4")) == plain
    drawn = [*given, "generation=sample", "generation.prompt_lookup_num_tokens=4"]
    assert texts(run(*drawn)) == texts(run(*drawn))
    with pytest.raises(UserError, match="^generation.assistant_model=runs/none: there is no such folder"):
        run(*given, "generation.assistant_model=runs/none")


def test_a_draft_model_that_is_not_there_is_missed_before_anything_is_imported(compose: Callable[..., Any]) -> None:
    asked = compose("command=generate", "inputs=x", "generation.assistant_model=runs/none")
    with pytest.raises(UserError, match="^generation.assistant_model=runs/none: there is no such folder"):
        asked.check_files()
    compose("command=generate", "inputs=x", "generation.assistant_model=bundled").check_files()


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (
            ["cache_implementation=offloaded"],
            "=offloaded: it spares a GPU's memory, and this run is on cpu; use dynamic",
        ),
        (["cache_implementation=offloaded_static"], "and this run is on cpu; use static"),
        (["cache_implementation=quantized"], "its backend quanto needs a package .* pip install optimum-quanto"),
        (["cache_implementation=quantized", "cache_config={backend: hqq}"], "pip install hqq"),
        (["cache_implementation=quantized", "cache_config={backend: hq}"], "backend=hq: there is no such one.*'hqq'"),
    ],
)
def test_a_cache_that_the_machine_cannot_have_is_refused(
    settings: list[str], said: str, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    for package in ("optimum_quanto", "hqq"):
        monkeypatch.setattr(f"transformers.utils.is_{package}_available", lambda: False)
    with pytest.raises(UserError, match=f"^generation.cache_.*{said}") as error:
        run(*GENERATE, "inputs=x", "device=cpu", *[f"generation.{each}" for each in settings])
    assert "\n" not in str(error.value)


def test_a_draft_that_there_cannot_be_is_one_line(run: Run, encoder_decoder: str) -> None:
    disk = ["model.device_map=auto", "model.max_memory={cpu: 10KB}"]
    for settings, said in (
        (
            [f"assistant_model={encoder_decoder}"],
            f"assistant_model={encoder_decoder}: it has an encoder, and the model",
        ),
        (
            ["assistant_model=bundled", "speculation_type=dflash"],
            "speculation_type=dflash: bundled was not made for it",
        ),
        (["use_mtp=true"], "use_mtp=true: this model has no heads for several tokens; use false"),
        (["assistant_model=bundled", "target_lookbehind=3"], "target_lookbehind: the draft model has the model's own"),
        (["assistant_early_exit=4"], "assistant_early_exit=4: it must be less than 4, the layers of this model"),
    ):
        with pytest.raises(UserError, match=f"^generation.{said}"):
            run(*GENERATE, "inputs=x", *[f"generation.{each}" for each in settings])
    for setting in ("prompt_lookup_num_tokens=4", "assistant_early_exit=1", "assistant_model=bundled"):
        said = f"^generation.{setting.partition('=')[0]}: drafts are for a model whose first weights are in memory"
        with pytest.raises(UserError, match=said):
            run(*GENERATE, "inputs=x", f"generation.{setting}", *disk)
    with pytest.raises(UserError, match="assistant_model=bundled: it has no encoder, and the model has one"):
        run(*GENERATE, "inputs=x", f"model.path={encoder_decoder}", "generation.assistant_model=bundled")
    with pytest.raises(UserError, match="assistant_early_exit=1: a bart model goes through all of its layers"):
        run(*GENERATE, "inputs=x", f"model.path={encoder_decoder}", "generation.assistant_early_exit=1")


def test_continuous_batching_writes_the_same_and_refuses_what_it_would_not_do(
    run: Run, compose: Callable[..., Any], encoder_decoder: str, capsys: Any
) -> None:
    given = [*GENERATE, asked(PROMPTS[:4])]
    scheduled = [*given, "prediction.continuous_batching=true"]
    assert texts(run(*scheduled)) == texts(run(*given))
    assert "warning: continuous batching is made for GPUs" in capsys.readouterr().out
    with pytest.raises(UserError, match="it is for decoders, this model has an encoder"):
        run(*scheduled, f"model.path={encoder_decoder}")
    for setting, said in (
        ("generation=sample", "generation=sample would not be repeatable"),
        (
            "generation.stop_strings=[x]",
            "generation.stop_strings: prediction.continuous_batching=true cannot honour it",
        ),
        ("generation.repetition_penalty=1.2", "generation.repetition_penalty: prediction"),
        ("command=predict", "it is for command=generate"),
    ):
        with pytest.raises(UserError, match=said):
            compose(*scheduled, setting)


def test_the_command_line_takes_a_prompt_as_it_is_typed(tmp_path: Path) -> None:
    told = command("command=generate", "inputs=def main(a, b={}):", "generation.max_new_tokens=4", folder=tmp_path)
    assert told.returncode == 0, told.stderr
    assert "def main(a, b={}):" in told.stdout
    some = command("command=generate", 'inputs=["x", ""]', "generation.max_new_tokens=4", folder=tmp_path)
    assert some.returncode == 1
    assert "failed   input 1: text: is empty" in some.stdout
