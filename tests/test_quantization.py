"""Quantization: what is held in 8 or 4 bits, computes and trains the same everywhere, and stays as it was."""

from __future__ import annotations

import hashlib
import json
import signal
from collections.abc import Callable
from dataclasses import replace
from importlib import import_module
from inspect import signature
from pathlib import Path
from typing import Any

import pytest
import torch
from bombs import killed
from conftest import LM, SCRATCH, SMALL, command, curve, journal, same_on_all_backends
from test_resume import ended, go_on, only

from xp.error import UserError
from xp.launch import start
from xp.model import footprint, quantization

Ran = Callable[..., dict[str, Any]]
WORDS = {
    "nf4": ["model.quantization=nf4"],
    "int8": ["model.quantization=int8"],
    "fp4, nested": ["model.quantization=fp4", "model.quantization_options.bnb_4bit_use_double_quant=true"],
}
QLORA = ["model=pretrained", "peft=qlora", "task=text_classification", "peft.dropout=0.2", "peft.rank=2"]


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A small decoder of random weights, its layers with biases, saved with its tokenizer."""
    from models import LLAMA, bytes_tokenizer, save
    from transformers import LlamaConfig, LlamaForCausalLM

    place = tmp_path_factory.mktemp("base")
    torch.manual_seed(0)
    tokenizer = bytes_tokenizer()
    ids = {f"{name}_token_id": getattr(tokenizer, f"{name}_token_id") for name in ("pad", "bos", "eos")}
    ids["initializer_range"] = 0.1
    save(place, tokenizer, LlamaForCausalLM(LlamaConfig(**LLAMA | ids, attention_bias=True)))
    return str(place)


def held(network: Any) -> dict[str, str]:
    """A digest of each tensor of a network that is not an adapter's, by its name in the base, quantities included."""
    found = {}
    for name, tensor in network.state_dict().items():
        if "lora_" in name or "modules_to_save" in name:
            continue
        content = tensor.detach().contiguous().flatten().view(torch.uint8).numpy().tobytes()
        own = name.removeprefix("base_model.model.").replace(".base_layer", "").replace(".original_module", "")
        found[own] = hashlib.sha256(content).hexdigest()
    return found


@pytest.fixture
def bases(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, str]]:
    """What a training's base held when it was loaded and when it was saved."""
    train = import_module("xp.commands.train")
    seen: list[dict[str, str]] = []
    for name, network_of in (("describe_model", lambda loaded, *_: loaded.network),
                             ("save_model", lambda run, loaded, *_: loaded.network)):  # fmt: skip
        function = getattr(train, name)

        def noted(*arguments: Any, function: Any = function, network_of: Any = network_of) -> Any:
            seen.append(held(network_of(*arguments)))
            return function(*arguments)

        monkeypatch.setattr(train, name, noted)
    return seen


@pytest.mark.parametrize("word", WORDS)
def test_one_curve_from_three_engines_and_the_base_is_as_it_was(
    word: str, folder: str, run: Ran, bases: list[dict[str, str]], caplog: pytest.LogCaptureFixture
) -> None:
    """With evaluations in between, after which bitsandbytes' own layers would be others."""
    settings = [*QLORA, f"model.path={folder}", *WORDS[word], "training.evaluate_every=2"]
    points = same_on_all_backends(run, *settings, "training.learning_rate=1e-2")
    assert points[-1][1] != points[0][1]
    assert len(bases) == 6
    assert all(each == bases[0] for each in bases)
    assert any("SCB" in name or "quant_state" in name for name in bases[0])
    assert not [record for record in caplog.records if record.name.startswith("bitsandbytes.autograd")]


def test_bf16_is_the_same_on_all_backends_too(folder: str, run: Ran, bases: list[dict[str, str]]) -> None:
    settings = [*QLORA, f"model.path={folder}", "precision=bf16", "training.evaluate_every=3"]
    same_on_all_backends(run, *settings)
    assert all(each == bases[0] for each in bases)


def test_a_column_that_int8_keeps_whole_for_one_token_is_no_sight_of_it(
    folder: str, run: Ran, tmp_path: Path, compose: Callable[..., Any]
) -> None:
    """bitsandbytes keeps it so for all of a batch, and those before notice, which is not meant; so it is left out."""
    from models import bytes_tokenizer, masked_lm, save
    from transformers import AutoModelForCausalLM, AutoModelForMaskedLM, BitsAndBytesConfig

    from xp.proof import sees_ahead

    network = AutoModelForCausalLM.from_pretrained(folder)
    with torch.no_grad():
        network.model.embed_tokens.weight.normal_()
        network.model.embed_tokens.weight[11, 5] = 60.0  # `sees_ahead` puts token 11 last.
        for layer in network.model.layers:
            layer.input_layernorm.weight.fill_(7.0)
    save(tmp_path / "outlier", bytes_tokenizer(), network)
    settings = ["model=pretrained", f"model.path={tmp_path / 'outlier'}", "peft=qlora", "model.quantization=int8"]
    run(*settings, *LM, "training.max_steps=1")
    masked_lm(tmp_path / "encoder")
    bits = BitsAndBytesConfig(load_in_8bit=True)
    encoder = AutoModelForMaskedLM.from_pretrained(tmp_path / "encoder", quantization_config=bits, device_map="cpu")
    assert sees_ahead(encoder, 40)
    for precision in ("fp32", "bf16"):
        composed = compose("model=bundled", "command=evaluate", "task=causal_lm", "model.quantization=int8")
        bundled = loaded(composed, precision).network
        whole = [part.state.threshold for part in bundled.modules() if type(part).__name__ == "Linear8bitLt"]
        assert not sees_ahead(bundled, 4096)
        assert whole == [part.state.threshold for part in bundled.modules() if type(part).__name__ == "Linear8bitLt"]
        assert set(whole) == {6.0}


@pytest.mark.parametrize("word", ["nf4", "int8"])
def test_dora_trains_on_quantized_weights_and_is_used_on_them(word: str, folder: str, run: Ran) -> None:
    """peft looks at the whole weights in each step, and would lose the scales of int8 in the first."""
    given = ["model=pretrained", "task=causal_lm", f"model.quantization={word}"]
    trained = run(*given, f"model.path={folder}", "peft=dora", "training.learning_rate=2e-2")
    again = run("command=evaluate", *given, f"model.path={trained['model']}")
    assert again["metrics"] == trained["metrics"]
    assert trained["metrics"] != run("command=evaluate", *given, f"model.path={folder}")["metrics"]


@pytest.mark.parametrize("word", ["nf4", "int8"])
@pytest.mark.parametrize("method", ["hra", "loha", "fourierft", "osf", "delora"])
def test_a_method_that_does_not_know_quantized_layers_is_refused(
    method: str, word: str, folder: str, compose: Callable[..., Any]
) -> None:
    """It would take the bytes of a layer for its weights; some of them silently."""
    from xp.peft import Purpose

    given = ["model=pretrained", "task=text_classification", f"model.path={folder}", f"model.quantization={word}"]
    composed = compose(*given, f"peft={method}")
    network = loaded(compose("command=evaluate", "task=causal_lm", *given[:1], *given[2:])).network
    with pytest.raises(
        UserError, match=r"peft: \w+ has no layers for quantized weights; set model.quantization to null"
    ):
        composed.peft.apply(network, Purpose("SEQ_CLS", steps=3))


def test_a_trained_bias_is_not_rounded_at_each_step(folder: str, run: Ran) -> None:
    settings = [*QLORA, f"model.path={folder}", "peft.bias=all"]
    with pytest.raises(UserError, match=r"peft.bias: bitsandbytes rounds the bias of .*q_proj.* to bfloat16 at each"):
        run(*settings, "precision=bf16")
    with pytest.raises(UserError, match=r"peft.bias: bitsandbytes rounds"):
        run(*settings, "model.quantization=int8", "precision=bf16")


def test_a_quantized_layer_computes_what_its_weights_say(folder: str, compose: Callable[..., Any]) -> None:
    """In the precision that was asked for, in training and in evaluation, at any width."""
    from bitsandbytes.functional import dequantize_4bit

    evaluate = ["command=evaluate", "task=causal_lm", "model=pretrained", f"model.path={folder}"]
    network = loaded(compose(*evaluate, "model.quantization=nf4")).network
    layer = network.model.layers[0].mlp.down_proj
    inputs = torch.randn(3, 48, generator=torch.manual_seed(1))
    weight = dequantize_4bit(layer.weight.data, layer.weight.quant_state)
    assert weight.dtype == torch.float32
    for training in (False, True):
        with torch.inference_mode():
            made = network.train(training).model.layers[0].mlp.down_proj(inputs)
        torch.testing.assert_close(made, torch.nn.functional.linear(inputs, weight), rtol=1e-5, atol=1e-5)
    inputs.requires_grad_()
    network.train().model.layers[0].mlp.down_proj(inputs).sum().backward()
    torch.testing.assert_close(inputs.grad[0], weight.sum(0), rtol=1e-4, atol=1e-4)


def loaded(run: Any, precision: str = "fp32") -> Any:
    """The model of a run, as its commands load it."""
    from xp.commands.opening import load
    from xp.report import Report

    return load(run, run.task, precision, [], None, Report())


def test_a_run_on_quantized_weights_goes_on(folder: str, compose: Callable[..., Any]) -> None:
    settings = [*QLORA, f"model.path={folder}", "training.save_every=1", "training.max_steps=5"]
    elsewhere = ("runs_folder=whole", "tracking.uri=sqlite:///whole/mlflow.db")
    whole = ended(Path(start(compose(*settings, *elsewhere))["folder"]))
    assert killed(compose(*settings), "step", 4) == -signal.SIGKILL, Path("child.log").read_text()
    from safetensors import safe_open

    (newest,) = sorted(only().glob("checkpoints/step-????????"))[-1:]
    with safe_open(newest / "weights.safetensors", "pt") as file:
        assert all("lora_" in name or "score" in name for name in file.keys())  # noqa: SIM118
    assert ended(go_on()) == whole


def test_what_was_trained_on_quantized_weights_is_used_on_those_and_on_others(folder: str, run: Ran) -> None:
    """With the same quantization it scores to the last digit what it scored at the end of the training."""
    from peft import PeftModel
    from transformers import AutoModelForSequenceClassification, BitsAndBytesConfig

    trained = run(*QLORA, f"model.path={folder}", "training.learning_rate=2e-2")
    plain = run(*QLORA, f"model.path={folder}", "model.quantization=null")
    assert [plain[name] for name in ("weights", "trainable")] == [trained[name] for name in ("weights", "trainable")]
    evaluate = ["command=evaluate", "model=pretrained", "task=text_classification", f"model.path={trained['model']}"]
    again = run(*evaluate, "model.quantization=nf4")
    assert again["metrics"] == trained["metrics"]
    whole = run(*evaluate)
    assert whole["metrics"] != trained["metrics"]
    assert whole["metrics"]["eval/loss"] == pytest.approx(trained["metrics"]["eval/loss"], rel=0.2)

    assert "The base was in nf4 while it was trained" in (Path(trained["model"]) / "README.md").read_text()
    assert "quantization_config" not in json.loads((Path(trained["model"]) / "network/config.json").read_text())
    tokens = torch.arange(3, 15)[None]
    found = []
    nf4 = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4")
    for more in ({}, {"quantization_config": nf4}):
        base = AutoModelForSequenceClassification.from_pretrained(folder, num_labels=3, dtype=torch.float32, **more)
        quantization.settle(base, torch.float32)  # These widths are too odd for bitsandbytes' own way on some CPUs.
        network = PeftModel.from_pretrained(base, trained["model"]).eval()
        found.append(network(input_ids=tokens, attention_mask=torch.ones_like(tokens)).logits)
    assert torch.nn.functional.cosine_similarity(*found).item() > 0.9
    assert not torch.equal(*found)


def test_the_footprint_is_what_the_weights_take(folder: str, run: Ran, compose: Callable[..., Any]) -> None:
    from mlflow import MlflowClient

    evaluate = ["command=evaluate", "task=causal_lm", "model=pretrained", f"model.path={folder}"]
    result = run(*evaluate, "model.quantization=nf4")
    (point,) = [each for each in result["points"] if "model/bytes_before" in each]
    plain = loaded(compose(*evaluate)).network
    tensors = [*plain.parameters(), *plain.buffers()]
    assert point["model/bytes_before"] == sum(each.numel() * each.element_size() for each in tensors)
    shapes = [part.weight.numel() for name, part in plain.named_modules() if name.endswith("_proj")]
    saved = 4 * sum(shapes) - sum(number // 2 + 4 * -(-number // 64) + 16 * 4 for number in shapes)
    assert point["model/bytes_after"] == point["model/bytes_before"] - saved
    data = MlflowClient(f"sqlite:///{Path('runs/mlflow.db').absolute()}").get_run(result["run_id"]).data
    assert data.metrics["model/bytes_after"] == point["model/bytes_after"]
    assert (data.params["model.quantization"], data.tags["xp.quantization"]) == ("nf4", "nf4")


@pytest.mark.parametrize("word", ["nf4", "int8"])
@pytest.mark.parametrize(
    ("kind", "auto", "left"),
    [
        ("bert_classifier", "AutoModelForSequenceClassification", ["classifier"]),
        ("bert_reader", "AutoModelForQuestionAnswering", ["qa_outputs"]),
        ("gpt2", "AutoModelForCausalLM", ["lm_head"]),
        ("t5", "AutoModelForSeq2SeqLM", ["lm_head", "wo"]),
        ("bert", "AutoModel", ["dense"]),
    ],
)
def test_heads_are_not_quantized_and_all_else_that_is_linear_is(
    word: str, kind: str, auto: str, left: list[str], tmp_path: Path
) -> None:
    """In every architecture: GPT-2's layers are no ``nn.Linear``, BERT's head has a bias, T5 is to keep some."""
    import transformers
    from models import BERT

    torch.manual_seed(0)
    bert = transformers.BertConfig(**BERT | {"initializer_range": 0.1})
    gpt2 = transformers.GPT2Config(n_embd=32, n_layer=1, n_head=2, vocab_size=80)
    t5 = transformers.T5Config(d_model=32, d_kv=8, d_ff=64, num_layers=1, num_heads=2, vocab_size=80)
    made: dict[str, Callable[[], Any]] = {
        "bert": lambda: transformers.BertModel(bert),
        "bert_classifier": lambda: transformers.BertForSequenceClassification(bert),
        "bert_reader": lambda: transformers.BertForQuestionAnswering(bert),
        "gpt2": lambda: transformers.GPT2LMHeadModel(gpt2),
        "t5": lambda: transformers.T5ForConditionalGeneration(t5),
    }
    plain = made[kind]().eval()
    plain.save_pretrained(tmp_path)
    whole = quantization.kept_whole(plain, (), {})
    config = quantization.bits_and_bytes(word, {}, torch.float32, whole)
    network = getattr(transformers, auto).from_pretrained(tmp_path, quantization_config=config, device_map={"": "cpu"})
    quantization.settle(network, torch.float32)
    told = footprint.measure(network)
    assert {name.rpartition(".")[2] for name in told.left} == set(left)
    assert told.layers == len(quantization.linear(plain)) - len(told.left)
    tokens = torch.arange(5, 13)[None]
    inputs = {"input_ids": tokens} | ({"decoder_input_ids": tokens} if kind == "t5" else {})
    with torch.inference_mode():
        near, far = network.eval()(**inputs)[0], plain(**inputs)[0]
    assert torch.nn.functional.cosine_similarity(near.flatten(), far.flatten(), 0) > 0.8


def test_layers_that_the_base_has_no_weights_for_are_not_quantized(run: Ran, tmp_path: Path) -> None:
    """A masked language model has no pooler, and a classifier's is trained in full: it must be whole for that."""
    from models import build

    path = build("masked_lm", tmp_path / "bert")
    trained = run(*QLORA, f"model.path={path}", "task.max_length=32")
    config = json.loads((Path(trained["model"]) / "adapter_config.json").read_text())
    assert "bert.pooler.dense" in config["modules_to_save"]
    evaluate = ["command=evaluate", "model=pretrained", "task=text_classification", "task.max_length=32"]
    again = run(*evaluate, f"model.path={trained['model']}", "model.quantization=nf4")
    assert again["metrics"] == trained["metrics"]


def test_a_base_that_is_called_otherwise_is_found(folder: str, compose: Callable[..., Any]) -> None:
    """Llama's question answering calls ``transformer`` what its file calls ``model``; no such layer may be random."""
    from xp.commands.opening import wish

    composed = compose("model=pretrained", f"model.path={folder}", "task=question_answering", "peft=qlora")
    wanted = wish(composed, composed.task, torch.float32, [], None, "fp32")
    found = composed.model.load(replace(wanted, train=True))
    assert {name.partition(".")[0] for name in found.new} == {"qa_outputs"}
    assert found.footprint.left == ["qa_outputs"]


@pytest.mark.parametrize("word", ["nf4", "int8"])
@pytest.mark.parametrize("task", ["text_generation", "text2text_generation"])
def test_predictions_are_those_of_the_quantized_network(word: str, task: str, run: Ran, tmp_path: Path) -> None:
    """Through transformers' pipelines, and xp's own way: greedy text as the quantized network alone writes it."""
    import transformers
    from models import build

    kind = {"text_generation": "causal_lm", "text2text_generation": "text_to_text"}[task]
    auto = {"text_generation": "AutoModelForCausalLM", "text2text_generation": "AutoModelForSeq2SeqLM"}[task]
    path = build(kind, tmp_path / kind)
    predict = ["command=predict", f"task={task}", "model=pretrained", f"model.path={path}", "inputs=[the cat sat]"]
    made = run(*predict, f"model.quantization={word}", "generation.max_new_tokens=6")
    (line,) = [json.loads(each) for each in Path(made["predictions"]).read_text().splitlines()]
    plain = getattr(transformers, auto).from_pretrained(path)
    config = quantization.bits_and_bytes(word, {}, torch.float32, quantization.kept_whole(plain, (), {}))
    network = getattr(transformers, auto).from_pretrained(path, quantization_config=config, device_map={"": "cpu"})
    quantization.settle(network, torch.float32)
    tokenizer = transformers.AutoTokenizer.from_pretrained(path)
    inputs = tokenizer(["the cat sat"], return_tensors="pt")
    inputs = {name: inputs[name] for name in ("input_ids", "attention_mask")}
    with torch.inference_mode():
        tokens = network.eval().generate(**inputs, max_new_tokens=6, do_sample=False)
    text = tokenizer.decode(tokens[0][inputs["input_ids"].shape[1] if kind == "causal_lm" else 1 :], True)
    assert text.strip()
    assert json.dumps(text.strip())[1:-1] in json.dumps(line["output"])


@pytest.mark.slow
@pytest.mark.parametrize("word", ["nf4", "int8"])
def test_two_processes_give_the_curve_of_one(word: str, folder: str, run: Ran, tmp_path: Path) -> None:
    settings = [*QLORA, "peft.dropout=0", f"model.path={folder}", f"model.quantization={word}", "training.batch_size=7"]
    alone = curve(run(*settings)["points"], "train/loss", "train/grad_norm")
    more = ["backend=accelerate", "backend.processes=2", "runs_folder=two"]
    ended_so = command(*SMALL[len(SCRATCH) :], *settings, *more, folder=tmp_path)
    assert ended_so.returncode == 0, ended_so.stderr
    (made,) = tmp_path.glob("two/*/journal.jsonl")
    for got, want in zip(curve(journal(made.parent), "train/loss", "train/grad_norm"), alone, strict=True):
        assert got == pytest.approx(want, rel=1e-4)


def test_layers_that_are_named_are_left_as_they_are(folder: str, run: Ran, compose: Callable[..., Any]) -> None:
    evaluate = ["command=evaluate", "task=causal_lm", "model=pretrained", f"model.path={folder}"]
    skip = "model.quantization_options.llm_int8_skip_modules"
    some = loaded(compose(*evaluate, "model.quantization=int8", f"{skip}=[down_proj]"))
    assert {name.rpartition(".")[2] for name in some.footprint.left} == {"down_proj", "lm_head"}
    with pytest.raises(UserError, match=f"{skip}: this model has no module 'down_prj'. Did you mean 'down_proj'"):
        loaded(compose(*evaluate, "model.quantization=int8", f"{skip}=[down_prj]"))
    linear = [name for name in quantization.linear(loaded(compose(*evaluate)).network) if name != "lm_head"]
    for names in (["model"], linear):
        with pytest.raises(UserError, match=f"^{skip}: it skips all linear layers, so that none is quantized; leave"):
            loaded(compose(*evaluate, "model.quantization=int8", f"{skip}=[{','.join(names)}]"))


def test_a_network_of_a_head_alone_has_nothing_to_quantize() -> None:
    from models import LLAMA
    from transformers import LlamaConfig, LlamaForCausalLM

    network = LlamaForCausalLM(LlamaConfig(**LLAMA | {"num_hidden_layers": 0}))
    for options in ({}, {"llm_int8_skip_modules": ["lm_head"]}):
        with pytest.raises(UserError, match=r"^model.quantization: this model has no linear layer but its head"):
            quantization.kept_whole(network, (), options)


def test_the_options_are_those_of_transformers() -> None:
    from transformers import BitsAndBytesConfig

    fields = set(signature(BitsAndBytesConfig.__init__).parameters) - {"self", "kwargs"}
    assert fields == {*quantization.OPTIONS, *quantization.DECIDED}


OPTIONS = "model.quantization_options"
WRONG = [
    (["model.quantization=nf5", "peft=lora"], "it must be 'int8', 'nf4' or 'fp4'. Did you mean 'nf4'?"),
    (["model.quantization=nf4"], "model.quantization=nf4: quantized weights cannot be trained in full; train an"),
    (["peft=qlora", "model=scratch"], "model.quantization=nf4: model=scratch has random weights"),
    (["peft=qlora", "training.save_dtype=bfloat16"], "training.save_dtype=bfloat16: an adapter on quantized"),
    (["peft=qlora", f"{OPTIONS}.double_quant=true"], "Did you mean 'bnb_4bit_use_double_quant'?"),
    (["peft=qlora", f"{OPTIONS}.load_in_8bit=true"], f"{OPTIONS}.load_in_8bit: model.quantization says that"),
    (["peft=qlora", f"{OPTIONS}.llm_int8_threshold=3"], f"{OPTIONS}.llm_int8_threshold: an option of int8; nf4 has"),
    ([f"{OPTIONS}.llm_int8_threshold=3"], "nothing is quantized; give model.quantization=int8"),
    (["peft=qlora", f"{OPTIONS}.bnb_4bit_compute_dtype=bf16"], "Did you mean 'bfloat16'?"),
    (["peft=qlora", f"{OPTIONS}.bnb_4bit_use_double_quant=1"], "it must be true or false."),
    (["peft=qlora", f"{OPTIONS}.llm_int8_skip_modules=head"], "it must be a list of names of modules."),
    (["peft=qlora", "model.quantization=int8", f"{OPTIONS}.llm_int8_threshold=-1"], "must be a number of at least 0."),
    (["peft=qlora", "model.quantizaton=nf4"], "model.quantizaton: there is no such key. Did you mean 'quantization'?"),
]


@pytest.mark.parametrize(("overrides", "message"), WRONG)
def test_a_wrong_quantization_is_one_line(
    overrides: list[str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from xp.config import compose
    from xp.run import Run

    monkeypatch.chdir(tmp_path)
    compose.initialize(None)
    with pytest.raises(UserError) as caught:
        Run.parse(compose.values(overrides))
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_qlora_is_lora_on_nf4_and_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from xp.config import compose

    monkeypatch.chdir(tmp_path)
    compose.initialize(None)
    lora, qlora = compose.values(["peft=lora"]), compose.values(["peft=qlora"])
    assert qlora["peft"] == lora["peft"]
    assert qlora["model"] == lora["model"] | {"quantization": "nf4"}
    assert compose.values(["peft=qlora", "model=minilm", "model.quantization=int8"])["model"]["quantization"] == "int8"
    assert "quantization: nf4" in compose.shown(["peft=qlora", "model=minilm"], None, None, False)
