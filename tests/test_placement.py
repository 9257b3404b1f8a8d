"""Placement: a model that is larger than a device computes what it would compute on one."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from test_quantization import folder, loaded

from xp.error import UserError

Ran = Callable[..., dict[str, Any]]
__all__ = ["folder"]
DISK = ["model.device_map=auto", "model.max_memory={cpu: 60KB}"]
BY_HAND = "{model.embed_tokens: cpu, model.layers.0: disk, model.layers.1: cpu, model.norm: disk, lm_head: cpu}"
MAPS = {
    "all fits": ["model.device_map=auto"],
    "on disk": DISK,
    "next to all on disk": ["model.device_map=sequential", "model.max_memory={cpu: 1KB}"],
    "by hand": [f"model.device_map={BY_HAND}"],
}


def evaluate(folder: str, *overrides: str) -> list[str]:
    return ["command=evaluate", "task=causal_lm", "model=pretrained", f"model.path={folder}", *overrides]


@pytest.mark.parametrize("where", MAPS)
def test_logits_are_those_of_the_plain_model(where: str, folder: str, compose: Callable[..., Any]) -> None:
    tokens = torch.arange(3, 40).view(1, -1)
    made = []
    for spread in ([], MAPS[where]):
        network = loaded(compose(*evaluate(folder, *spread))).network
        with torch.inference_mode():
            made += [network.eval()(input_ids=tokens).logits, network.generate(tokens, max_new_tokens=5)]
        assert any(each.device.type == "meta" for each in network.parameters()) == ("disk" in str(spread) or (where in (
            "on disk", "next to all on disk") and bool(spread)))  # fmt: skip
    assert torch.equal(made[0], made[2])
    assert torch.equal(made[1], made[3])


def test_every_command_takes_a_model_that_is_spread(folder: str, run: Ran, capfd: pytest.CaptureFixture[str]) -> None:
    from mlflow import MlflowClient

    whole, spread = run(*evaluate(folder)), run(*evaluate(folder, *DISK))
    assert spread["metrics"] == whole["metrics"]
    assert "spread: 1 parts on disk" in capfd.readouterr().out.replace("layers", "parts")
    tags = MlflowClient(f"sqlite:///{Path('runs/mlflow.db').absolute()}").get_run(spread["run_id"]).data.tags
    assert tags["xp.placement"].startswith("spread: ")
    predict = ["command=predict", "model=pretrained", f"model.path={folder}", "inputs=[a cat,the dog sat]"]
    for task in ("task=text_generation", "task=feature_extraction"):
        outputs = []
        for more in ([], DISK, [f"model.device_map={BY_HAND}"] * (task == "task=text_generation")):
            made = run(*predict, task, "generation.max_new_tokens=5", *more)
            assert made["failed"] == 0
            outputs.append(Path(made["predictions"]).read_text())
        assert len(set(outputs)) == 1


def test_a_draft_of_another_architecture_is_where_the_computing_is(folder: str, run: Ran, tmp_path: Path) -> None:
    from transformers import AutoConfig, GPT2Config, GPT2LMHeadModel

    shutil.copytree(folder, tmp_path / "draft")
    (tmp_path / "draft/model.safetensors").unlink()
    sizes = AutoConfig.from_pretrained(folder).vocab_size
    GPT2LMHeadModel(GPT2Config(vocab_size=sizes, n_embd=16, n_layer=1, n_head=2)).save_pretrained(tmp_path / "draft")
    given = ["command=generate", "model=pretrained", f"model.path={folder}", "inputs=[a cat]", "precision=fp32",
             "generation.max_new_tokens=5"]  # fmt: skip
    texts = []
    for more in ([], [f"model.device_map={BY_HAND}", f"generation.assistant_model={tmp_path}/draft"]):
        lines = Path(run(*given, *more)["generations"]).read_text().splitlines()
        texts += [json.loads(line)["text"] for line in lines]
    assert texts[0] == texts[1]


def test_a_sequence_to_sequence_model_is_spread_too(run: Ran, tmp_path: Path) -> None:
    """Its answers are xp's own, without a pipeline, and its first weights are on the disk."""
    from models import build

    path = build("text_to_text", tmp_path / "bart")
    predict = ["command=predict", "task=text2text_generation", "model=pretrained", f"model.path={path}",
               "inputs=[a cat,the dog sat]", "generation.max_new_tokens=5"]  # fmt: skip
    made = [run(*predict, *more) for more in ([], ["model.device_map=auto", "model.max_memory={cpu: 1KB}"])]
    assert len({Path(each["predictions"]).read_text() for each in made}) == 1


def test_what_cannot_be_spread_is_one_line(folder: str, run: Ran, compose: Callable[..., Any]) -> None:
    adapter = run("task=causal_lm", "model=pretrained", f"model.path={folder}", "peft=lora")["model"]
    for overrides, message in (
        (evaluate(adapter, *DISK), "an adapter cannot be put on"),
        (evaluate(folder, "model.quantization=nf4", *DISK), "does not fit where quantized layers can be"),
        (evaluate(folder, "model.device_map={model.layers.2: cpu}"), "Did you mean 'model.layers"),
        (evaluate(folder, "model.device_map={model: cpu}"), "model.device_map: it says nothing of lm_head"),
        (evaluate(folder, "model.device_map={model: 'cuda:1', lm_head: 1}"), "all is on cuda:1; name a second device"),
    ):
        with pytest.raises(UserError) as caught:
            loaded(compose(*overrides))
        assert message in str(caught.value)
        assert "\n" not in str(caught.value)
    missing = torch.cuda.device_count()
    for overrides, key in (
        (["model.device_map=auto", f"model.max_memory={{{missing}: 20GiB, cpu: 60GiB}}"], "max_memory"),
        ([f"model.device_map={{model: {missing}, lm_head: cpu}}"], "device_map"),
    ):
        with pytest.raises(UserError, match=f"^model.{key}: torch sees no GPU {missing} here: "):
            loaded(compose(*evaluate(folder, *overrides)))
    same = run(*evaluate(adapter, "model.device_map=auto"))  # All of it fits.
    assert same["metrics"] == run(*evaluate(adapter))["metrics"]


@pytest.mark.parametrize(("gpu", "said"), [(False, "set it and model.device_map to null"), (True, "_cpu_offload=true")])
def test_the_advice_is_one_that_this_machine_can_follow(
    gpu: bool, said: str, folder: str, compose: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    from xp.model.base import loading

    with monkeypatch.context() as patch:
        patch.setattr(torch.cuda, "is_available", lambda: gpu)
        with pytest.raises(UserError, match=f"where quantized layers can be.*{said}$"), loading("x"):
            raise ValueError("Some modules are dispatched on the CPU or the disk.")
    told = evaluate(folder, "model.quantization=nf4", "model.device_map=null", "model.max_memory=null")
    assert loaded(compose(*told)).network.is_quantized


def test_weights_of_two_modules_are_in_one_place(tmp_path: Path, compose: Callable[..., Any]) -> None:
    from models import LLAMA, bytes_tokenizer, save
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(**LLAMA | {"initializer_range": 0.1}, tie_word_embeddings=True)
    save(tmp_path / "tied", bytes_tokenizer(), LlamaForCausalLM(config))
    given = evaluate(str(tmp_path / "tied"))
    for places, said in (
        ("{model: cpu, lm_head: disk}", "lm_head=disk: its weights are those of model.embed_tokens, which is on cpu"),
        ("{model: disk, lm_head: cpu}", "lm_head=cpu: its weights are those of model.embed_tokens, which is on disk"),
        ("{model: cpu, model.embed_tokens: disk, lm_head: cpu}", "lm_head=cpu: its weights are those of"),
    ):
        with pytest.raises(UserError, match=rf"^model.device_map.{said}.*; put both in the same place$"):
            loaded(compose(*given, f"model.device_map={places}"))
    both = "{model.layers: cpu, model.norm: cpu, model.embed_tokens: disk, lm_head: disk}"
    tokens = torch.arange(3, 40).view(1, -1)
    with torch.inference_mode():
        there, whole = (loaded(compose(*given, *more)).network.eval()(input_ids=tokens).logits
                        for more in ([f"model.device_map={both}"], []))  # fmt: skip
    assert torch.equal(there, whole)


EVALUATE = "command=evaluate"
WRONG = [
    (["model.device_map=auto"], "model.device_map: only for models that are used as they are; to train one"),
    ([EVALUATE, "model.device_map=atuo"], "Did you mean 'auto'?"),
    (
        [EVALUATE, "model.device_map={lm_head: gpu}"],
        "model.device_map.lm_head=gpu: it must be cpu, disk, or the",
    ),
    ([EVALUATE, "model.device_map={}"], "it names no module"),
    ([EVALUATE, "model.device_map={lm_head: 1.5}"], "model.device_map.lm_head=1.5: it must be a string or an integer"),
    ([EVALUATE, "model.device_map=3"], "model.device_map=3: it must be a string or a dictionary"),
    ([EVALUATE, "model.max_memory={0: 1GiB}"], "model.max_memory: it bounds what is spread by itself"),
    ([EVALUATE, "model.device_map=auto", "model.max_memory={0: lots}"], "model.max_memory.0=lots: it must be a size"),
    ([EVALUATE, "model.device_map=auto", "model.max_memory={gpu: 1GiB}"], "model.max_memory.gpu: it must be cpu, or"),
    ([EVALUATE, "model.offload_folder=x"], "model.offload_folder=x: nothing is put on disk"),
    (
        [EVALUATE, "model.quantization=nf4", "model.quantization_options.llm_int8_enable_fp32_cpu_offload=true"],
        "it needs to be told what is not on a GPU",
    ),
]


@pytest.mark.parametrize(
    ("overrides", "message"), WRONG, ids=lambda value: " ".join(value) if type(value) is list else ""
)
def test_a_wrong_placement_is_one_line(overrides: list[str], message: str, compose: Callable[..., Any]) -> None:
    with pytest.raises(UserError) as caught:
        compose("model=bundled", *overrides)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_gpus_are_numbers_whatever_they_are_written_as() -> None:
    """A frozen run is JSON, whose keys are all texts."""
    from xp.model import placement

    assert placement.numbered({"0": "1GiB", 1: 5, "cuda:2": "x", "cpu": "3GB"}) == {
        0: "1GiB",
        1: 5,
        2: "x",
        "cpu": "3GB",
    }
    assert placement.numbered({"lm_head": "1", "model": "cuda:0", "x": "disk"}) == {
        "lm_head": 1,
        "model": 0,
        "x": "disk",
    }
