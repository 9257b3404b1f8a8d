"""Models: bundled, pretrained and from scratch; what is saved is a plain Hugging Face or PEFT folder."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import ROOT, curve, rows, write_rows

from xp.error import UserError

Ran = Callable[..., dict[str, Any]]
PRETRAINED = ["model=pretrained", "task=text_classification"]
SMALL_BERT = {
    "vocab_size": 300,
    "hidden_size": 32,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 64,
}
LABELS = {0: "animal", 1: "fruit", 2: "tool"}


@pytest.fixture
def trained(run: Ran) -> dict[str, Any]:
    return run("task=text_classification", "training.learning_rate=1e-2")


@pytest.fixture
def adapted(run: Ran, trained: dict[str, Any]) -> dict[str, Any]:
    """An adapter on top of `trained`."""
    return run(*PRETRAINED, f"model.path={trained['model']}", "peft=lora", "training.learning_rate=1e-2")


def logits(network: Any, tokenizer: Any) -> torch.Tensor:
    batch = tokenizer(["apple pear", "cat dog cow", "saw"], padding=True, return_tensors="pt")
    with torch.no_grad():
        made = network.eval()(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits
    assert isinstance(made, torch.Tensor)
    return made


def test_what_is_saved_opens_with_plain_transformers(trained: dict[str, Any]) -> None:
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    network = AutoModelForSequenceClassification.from_pretrained(trained["model"])
    assert network.config.id2label == LABELS
    assert logits(network, AutoTokenizer.from_pretrained(trained["model"])).shape == (3, 3)
    assert network.config.use_cache is True


def test_an_adapter_folder_opens_with_plain_peft(adapted: dict[str, Any], trained: dict[str, Any]) -> None:
    from peft import AutoPeftModelForSequenceClassification, PeftModel
    from transformers import AutoConfig, AutoModelForSequenceClassification, AutoTokenizer

    folder = adapted["model"]
    config = AutoConfig.from_pretrained(f"{folder}/network")
    assert config.id2label == LABELS
    base = AutoModelForSequenceClassification.from_pretrained(trained["model"])
    tokenizer = AutoTokenizer.from_pretrained(folder)
    before = logits(base, tokenizer)
    by_hand = logits(PeftModel.from_pretrained(base, folder), tokenizer)
    auto = logits(AutoPeftModelForSequenceClassification.from_pretrained(folder), tokenizer)
    assert not torch.allclose(by_hand, before)
    torch.testing.assert_close(by_hand, auto)
    assert not list(Path(folder).glob("model*.safetensors"))


@pytest.mark.parametrize("source", ["folder", "mlflow", "adapter", "adapter by mlflow"])
def test_a_trained_model_is_used_again(source: str, run: Ran, request: pytest.FixtureRequest) -> None:
    """Evaluated from its folder or its MLflow run, it scores what it scored when it was trained."""
    first = request.getfixturevalue("trained")
    if "adapter" in source:
        first = request.getfixturevalue("adapted")
    path = first["model"]
    if "mlflow" in source:
        again = run("task=text_classification", "training.learning_rate=1e-2", "tracking.log_model=true")
        if "adapter" in source:
            again = run(*PRETRAINED, f"model.path={again['model']}", "peft=lora", "tracking.log_model=true")
        first, path = again, f"mlflow:{again['run_id']}"
    evaluated = run("command=evaluate", *PRETRAINED, f"model.path={path}")
    assert evaluated["metrics"] == pytest.approx(first["metrics"], rel=1e-6)


def test_training_goes_on_from_a_trained_model(run: Ran, trained: dict[str, Any]) -> None:
    again = run(*PRETRAINED, f"model.path={trained['model']}")
    first = next(point["train/loss"] for point in again["points"] if "train/loss" in point)
    assert first < next(point["train/loss"] for point in trained["points"] if "train/loss" in point)


def test_an_adapter_is_trained_further_or_merged(run: Ran, adapted: dict[str, Any]) -> None:
    path = f"model.path={adapted['model']}"
    further = run(*PRETRAINED, path, "peft=lora", "training.learning_rate=1e-6")
    assert further["trainable"] == adapted["trainable"]
    assert further["metrics"]["eval/loss"] == pytest.approx(adapted["metrics"]["eval/loss"], rel=1e-3)
    assert (Path(further["model"]) / "adapter_config.json").is_file()
    merged = run(*PRETRAINED, path, "peft=none", "training.learning_rate=1e-6")
    assert merged["trainable"] == merged["weights"]
    assert merged["metrics"]["eval/loss"] == pytest.approx(adapted["metrics"]["eval/loss"], rel=1e-3)
    assert not (Path(merged["model"]) / "adapter_config.json").exists()
    with pytest.raises(UserError, match=r"peft.rank=2: the adapter in model.path has 4"):
        run(*PRETRAINED, path, "peft=lora", "peft.rank=2")


def test_labels_keep_the_models_order_when_rows_come_in_another(
    run: Ran, trained: dict[str, Any], corpus: Path
) -> None:
    write_rows(corpus / "eval.jsonl", [row for row in rows(85)[60:] if row["label"] != "animal"])
    write_rows(corpus / "train.jsonl", rows(60)[::-1])
    again = run(*PRETRAINED, f"model.path={trained['model']}")
    assert json.loads((Path(again["model"]) / "config.json").read_text())["id2label"] == {
        str(number): name for number, name in LABELS.items()
    }


def test_a_new_set_of_labels_makes_a_new_head(run: Ran, trained: dict[str, Any], corpus: Path) -> None:
    for name in ("train", "eval"):
        write_rows(
            corpus / f"{name}.jsonl",
            [row | {"label": row["label"][0]} for row in rows(40)] + [{"text": "x", "label": "z"}],
        )
    again = run(*PRETRAINED, f"model.path={trained['model']}")
    assert json.loads((Path(again["model"]) / "config.json").read_text())["id2label"]["3"] == "z"


def test_config_values_of_a_pretrained_model_can_be_overridden(run: Ran, trained: dict[str, Any]) -> None:
    path = f"model.path={trained['model']}"
    plain = run(*PRETRAINED, path, "training.max_steps=2")
    heads = run(
        *PRETRAINED,
        path,
        "training.max_steps=2",
        "model.config.num_attention_heads=2",
        "model.config.num_key_value_heads=1",
        "model.config.head_dim=16",
    )
    dropped = run(*PRETRAINED, path, "training.max_steps=2", "model.config.attention_dropout=0.3")
    assert len({plain["digest"], heads["digest"], dropped["digest"]}) == 3
    assert json.loads((Path(dropped["model"]) / "config.json").read_text())["attention_dropout"] == 0.3


@pytest.mark.parametrize(
    ("peft", "precision", "expected"),
    [
        ("none", "bf16", torch.float32),
        ("none", "fp32", torch.float32),
        ("lora", "bf16", torch.bfloat16),
        ("lora", "fp32", torch.float32),
    ],
)
def test_dtype_auto_trains_in_float32_and_freezes_as_stored(
    peft: str, precision: str, expected: torch.dtype, run: Ran, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Weights that train are float32 always; frozen ones stay as they are stored where precision is bf16."""
    stored = run("task=text_classification", "training.save_dtype=bfloat16")
    from xp import prepare

    seen: dict[bool, set[torch.dtype]] = {True: set(), False: set()}
    original = prepare.prepare

    def spy(**arguments: Any) -> Any:
        for parameter in arguments["loaded"].network.parameters():
            seen[parameter.requires_grad].add(parameter.dtype)
        return original(**arguments)

    monkeypatch.setattr(prepare, "prepare", spy)
    run(*PRETRAINED, f"model.path={stored['model']}", f"peft={peft}", f"precision={precision}")
    assert seen[True] == {torch.float32}
    assert seen[False] == ({expected} if peft == "lora" else set())


def saved_model(folder: Path, config: Any, tokenizer: Any) -> str:
    from transformers import AutoModel

    AutoModel.from_config(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return f"model.path={folder}"


@pytest.fixture
def tokenizer() -> Any:
    from xp.model.tokenizer import train_tokenizer

    return train_tokenizer([row["text"] for row in rows(60)], 300)


@pytest.mark.parametrize(
    ("task", "pad", "configured"),
    [("text_classification", None, None), ("causal_lm", None, None), ("text_classification", "<|pad|>", 5)],
    ids=["no padding token", "no padding token, language", "another one in the config"],
)
def test_gpt2_is_not_misled_by_padding(
    task: str, pad: str | None, configured: int | None, run: Ran, tokenizer: Any, tmp_path: Path
) -> None:
    """Rows padded to the longest of eight give the losses of rows that are alone."""
    from transformers import GPT2Config

    tokenizer.pad_token = pad
    config = GPT2Config(
        vocab_size=300,
        n_embd=32,
        n_layer=1,
        n_head=2,
        n_positions=64,
        bos_token_id=1,
        eos_token_id=2,
        pad_token_id=configured,
        attn_pdrop=0,
        embd_pdrop=0,
        resid_pdrop=0,
    )
    given = [
        "model=pretrained",
        saved_model(tmp_path / "gpt2", config, tokenizer),
        f"task={task}",
        "task.max_length=64",
    ]
    whole, single = (
        [loss for _, loss in curve(run(*given, f"training.micro_batch_size={size}")["points"], "train/loss")]
        for size in (8, 1)
    )
    assert single == pytest.approx(whole, rel=1e-5)


def test_an_encoder_classifies_and_cannot_model_language(run: Ran, tokenizer: Any, tmp_path: Path) -> None:
    from transformers import BertConfig

    config = BertConfig(
        vocab_size=300,
        hidden_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=64,
        max_position_embeddings=64,
        pad_token_id=0,
    )
    path = saved_model(tmp_path / "bert", config, tokenizer)
    assert run(*PRETRAINED, path, "task.max_length=64")["metrics"]["eval/loss"] > 0
    with pytest.raises(UserError, match="task.max_length=128: this model takes sequences of at most 64"):
        run(*PRETRAINED, path)
    with pytest.raises(UserError, match="has no trained head"):
        run("command=evaluate", *PRETRAINED, path, "task.max_length=64")


def test_scratch_takes_a_tokenizer_from_a_folder(run: Ran, tokenizer: Any, tmp_path: Path) -> None:
    tokenizer.save_pretrained(tmp_path / "words")
    result = run(f"model.tokenizer={tmp_path / 'words'}", "model.vocabulary=1")
    config = json.loads((Path(result["model"]) / "config.json").read_text())
    assert config["vocab_size"] == len(tokenizer)


def test_the_seed_decides_the_new_weights(run: Ran) -> None:
    first, again, other = (run(f"seed={seed}", "training.max_steps=1")["digest"] for seed in (1, 1, 2))
    assert first == again != other


WRONG = [
    (["model.path=runs/nowhere"], "model.path=runs/nowhere: there is no such folder"),
    (["model.path=./nowhere"], "model.path=./nowhere: there is no such folder"),
    ([f"model.path={ROOT}/xp/assets/bundeld"], f"there is no such folder. Did you mean '{ROOT}/xp/assets/bundled'?"),
    ([f"model.path={ROOT}/xp/assets/zzzz"], f"there is no such folder. In {ROOT}/xp/assets there is: bundled, "),
    (
        ["model.path=nobody/nothing"],
        "model.path=nobody/nothing: there is no such folder here; as an id of the hub: it is not in the cache, and the "
        "hub cannot be reached (HF_HUB_OFFLINE is set)",
    ),
    (["model.path=empty"], "model.path=empty"),
    (["model.path=mlflow:0123"], "model.path=mlflow:0123: "),
    (["model.path=${corpus}"], "model.path"),
]


@pytest.mark.parametrize(("overrides", "message"), WRONG, ids=lambda value: str(value)[:40])
def test_a_model_that_is_not_there_is_one_line(overrides: list[str], message: str, run: Ran, corpus: Path) -> None:
    (corpus / "empty").mkdir()
    with pytest.raises(UserError) as caught:
        run(*PRETRAINED, *overrides)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_code_of_a_repository_does_not_run_unasked(run: Ran, corpus: Path) -> None:
    folder = corpus / "own"
    folder.mkdir()
    (folder / "config.json").write_text(
        json.dumps(
            {
                "model_type": "own",
                "auto_map": {"AutoConfig": "own.Own", "AutoModelForSequenceClassification": "own.Own"},
            }
        )
    )
    (folder / "own.py").write_text("open('owned', 'w')\n")
    with pytest.raises(UserError, match="trust_remote_code"):
        run(*PRETRAINED, f"model.path={folder}")
    assert not (corpus / "owned").exists()


def test_an_adapter_keeps_every_new_layer(run: Ran, tokenizer: Any, tmp_path: Path) -> None:
    """The base has no pooler and no classifier: both are made new, so both must be trained and saved."""
    from transformers import BertConfig, BertForMaskedLM

    config = BertConfig(
        vocab_size=300, hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=64
    )
    BertForMaskedLM(config).save_pretrained(tmp_path / "bert")
    tokenizer.save_pretrained(tmp_path / "bert")
    first = run(*PRETRAINED, f"model.path={tmp_path / 'bert'}", "peft=lora")
    for _ in range(2):
        again = run("command=evaluate", *PRETRAINED, f"model.path={first['model']}", "seed=9")
        assert again["metrics"]["eval/loss"] == pytest.approx(first["metrics"]["eval/loss"], rel=1e-6)


def test_an_adapter_on_random_weights_keeps_its_base(run: Ran) -> None:
    first = run("peft=lora", "task=text_classification")
    again = run("command=evaluate", *PRETRAINED, f"model.path={first['model']}")
    assert again["metrics"] == pytest.approx(first["metrics"], rel=1e-6)


def test_an_adapter_for_another_task_is_refused(run: Ran, adapted: dict[str, Any]) -> None:
    with pytest.raises(UserError, match="this adapter is for SEQ_CLS, the task for CAUSAL_LM"):
        run("command=evaluate", "model=pretrained", "task=causal_lm", f"model.path={adapted['model']}")


def test_an_encoder_that_sees_ahead_models_no_language(run: Ran, tokenizer: Any, tmp_path: Path) -> None:
    from transformers import BertConfig

    config = BertConfig(
        vocab_size=300, hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=64
    )
    path = saved_model(tmp_path / "bert", config, tokenizer)
    with pytest.raises(UserError, match="this model sees the tokens it is to predict"):
        run("model=pretrained", path, "task=causal_lm")
    assert run("model=pretrained", path, "task=causal_lm", "model.config.is_decoder=true")["metrics"]["eval/loss"] > 0


def test_packing_is_refused_where_rows_would_mix(run: Ran) -> None:
    """Mamba carries its state from row to row; a mask does not stop it."""
    llamas = ("intermediate_size", "num_attention_heads", "num_key_value_heads", "max_position_embeddings")
    pieces = ["model.type=mamba", *(f"~model.config.{name}" for name in llamas)]
    with pytest.raises(UserError, match="does not keep rows apart"):
        run("task=causal_lm", "training.batching=packed", *pieces)


@pytest.mark.parametrize("choice", ["scratch", "scratch_bert", "scratch_gpt2"])
def test_every_scratch_model_trains(choice: str, run: Ran) -> None:
    assert run(f"model={choice}", "task=text_classification", "training.max_steps=2")["metrics"]["eval/loss"] > 0


def test_a_head_for_other_labels_is_not_taken_for_these(run: Ran, trained: dict[str, Any], corpus: Path) -> None:
    """As many labels as before, but others: the old head would know better than the rows."""
    for name in ("train", "eval"):
        write_rows(
            corpus / f"{name}.jsonl",
            [row | {"label": {"animal": 2, "fruit": 0, "tool": 1}[row["label"]]} for row in rows(60)],
        )
    losses = [
        point["train/loss"]
        for point in run(*PRETRAINED, f"model.path={trained['model']}")["points"]
        if "train/loss" in point
    ]
    assert losses[0] < 2
