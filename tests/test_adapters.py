"""Several adapters on one model, adapters merged into their base, and adapters that plain peft has made or opens."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import LM, command, rows, same_on_all_backends, write_rows
from reopened import by_peft, by_transformers, logits, reopened
from test_conversing import desk

from xp import adapter
from xp.adapter import Merge, Several
from xp.commands.opening import load, read
from xp.error import UserError
from xp.peft.upkeep import upkeep
from xp.report import Report
from xp.run import Run

Ran = Callable[..., dict[str, Any]]


def adapters(base: str, two: dict[str, str], *more: str) -> list[str]:
    given = ", ".join(f"{name}: {path}" for name, path in two.items())
    return [*LM, "model=pretrained", f"model.path={base}", f"peft.adapters={{{given}}}", *more]


def opened(run: Run) -> Any:
    """The network that a run evaluates."""
    report = Report()
    task, _, _ = read(run, report, False)
    return load(run, task, "fp32", [], None, report).network


def test_those_that_are_active_take_part(base: str, two: dict[str, str], compose: Callable[..., Run], run: Ran) -> None:
    def seen(*overrides: str) -> Any:
        return logits(opened(compose("command=evaluate", *overrides)))

    plain = seen(*LM, "model=pretrained", f"model.path={base}")
    alone = {name: seen(*LM, "model=pretrained", f"model.path={path}") for name, path in two.items()}
    for name in two:
        assert torch.equal(seen(*adapters(base, two, f"peft.active={name}")), alone[name])
    assert torch.equal(seen(*adapters(base, two)), alone["law"])  # The first.
    assert torch.equal(seen(*adapters(base, two, "peft.active=[]")), plain)
    both = seen(*adapters(base, two, "peft.active=[law,verse]"))
    assert not any(torch.allclose(both, each, atol=1e-4) for each in (plain, *alone.values()))
    for active in ("law", "verse"):
        scores = run("command=evaluate", *adapters(base, two, f"peft.active={active}"))["metrics"]
        assert scores == run("command=evaluate", *LM, "model=pretrained", f"model.path={two[active]}")["metrics"]


def test_generate_and_predict_use_them(base: str, two: dict[str, str], run: Ran) -> None:
    def written(*overrides: str) -> list[str]:
        result = run("generation.max_new_tokens=8", "inputs=[apple pear, dog cow]", "precision=fp32", *overrides)
        file = Path(result["generations" if "generations" in result else "predictions"])
        lines = [json.loads(line) for line in file.read_text().splitlines()]
        return [str(line.get("text", line.get("output"))) for line in lines]

    for how in ("command=generate", "command=predict"):
        alone = written(how, *LM, "model=pretrained", f"model.path={two['verse']}")
        assert written(how, *adapters(base, two, "peft.active=verse")) == alone
        assert written(how, *adapters(base, two, "peft.active=[]")) == written(
            how, *LM, "model=pretrained", f"model.path={base}")  # fmt: skip
    given = ["command=generate", *LM, "model=pretrained", f"model.path={two['verse']}", f"model.base={base}"]
    for draft in (base, two["law"]):  # The base that is given is the model's, not the draft's.
        assert written(*given, f"generation.assistant_model={draft}") == written(*given)
    shutil.copytree(two["law"], "moved")
    says = json.loads(Path("moved/adapter_config.json").read_text())
    Path("moved/adapter_config.json").write_text(json.dumps(says | {"base_model_name_or_path": "/nowhere"}))
    said = "generation.assistant_model=moved: its base /nowhere is not there; use command=merge on it"
    with pytest.raises(UserError, match=f"^{said}"):
        written(*given, "generation.assistant_model=moved")


def test_one_is_trained_while_the_others_stay(base: str, two: dict[str, str], run: Ran) -> None:
    """The same curve on every backend; what is saved is that one adapter, and plain peft opens it."""
    from safetensors.torch import load_file

    given = adapters(base, two, "peft.trained=verse", "peft.active=[law,verse]", "training.micro_batch_size=3")
    before = Path(two["law"], "adapter_model.safetensors").read_bytes()
    points = same_on_all_backends(run, *given)
    assert points[0] != points[-1]
    result = run(*given)
    assert Path(two["law"], "adapter_model.safetensors").read_bytes() == before
    new, old = (load_file(Path(path, "adapter_model.safetensors")) for path in (result["model"], two["verse"]))
    assert set(new) == set(old)
    assert any(not torch.equal(new[name], old[name]) for name in new)
    assert result["trainable"] == sum(value.numel() for value in new.values())
    found = reopened(by_peft, {"it": ({}, result["model"])})["it"]
    assert not isinstance(found, str), found


def test_a_training_of_one_of_several_goes_on(base: str, two: dict[str, str], compose: Any, run: Ran) -> None:
    import bombs
    from test_resume import ended, go_on

    given = adapters(base, two, "peft.trained=law", "peft.active=[law,verse]", "training.save_every=2")
    whole = run(*given, "runs_folder=whole")
    assert bombs.killed(compose(*given, "runs_folder=again"), "saved", 4) < 0
    (folder,) = (path for path in Path("again").iterdir() if (path / "run.yaml").exists())
    assert ended(go_on("runs_folder=again", where=str(folder))) == ended(Path(whole["folder"]))


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["peft.active=laws"], "peft.active=laws: there is no such adapter. Did you mean 'law'?"),
        (["command=predict", "peft.trained=law", "peft.active=verse", "inputs=apple"],
         "peft.trained=law: command=predict trains nothing; leave it out"),
        (["command=evaluate", "peft.active=[law,verse,law]"],
         "peft.active: law is there twice, and would count twice; give it once"),
        (["peft.trained=verze"], "peft.trained=verze: there is no such adapter. Did you mean 'verse'?"),
        (["peft.trained=law", "peft.active=verse"],
         "peft.trained=law: it takes no part in what is trained; add it to peft.active"),
        ([], "peft.trained has no value; give peft.trained=<one of peft.adapters> to train that one, or set "
             "peft.adapters={} to train all weights"),
        (["command=evaluate", "peft.trained=law"], "peft.trained=law: command=evaluate trains nothing; leave it out"),
        (["command=evaluate", "model=scratch"],
         "peft.adapters: model=scratch has new weights, which no adapter was trained on; give model.path=<base>"),
        (["command=merge", "merge.weights={lew: 1}"],
         "merge.weights.lew: there is no such adapter. Did you mean 'law'?"),
        (["command=evaluate", "merge.weights={law: 1}"],
         "merge.weights: command=evaluate merges nothing; leave it out"),
        (["command=merge", "merge.combination=ties"],
         "merge.combination=ties: it is for merge.weights; give some, or set it to cat"),
        (["command=merge", "merge.combination=ties", "merge.weights={law: 1}"],
         "merge.density: combination=ties needs one; give merge.density=0.5, or so"),
        (["command=merge", "merge.weights={law: 1}", "peft.active=law"],
         "peft.active: merge.weights says what takes part; leave it out"),
        (["peft.adapters={none: x}", "command=evaluate"],
         "peft.adapters.none: a name has letters, digits and underscores, and begins with a letter"),
        (["command=merge", "merge.density=0.5"], "merge.density=0.5: combination=cat keeps all values; set it to null"),
        (["command=merge", "merge.rank=2"], "merge.rank=2: combination=cat has its own rank; set it to null"),
    ],
)  # fmt: skip
def test_wrong_settings_are_one_line(given: list[str], message: str, compose: Callable[..., Run]) -> None:
    with pytest.raises(UserError) as caught:
        compose("model=bundled", "peft.adapters={law: x, verse: y}", *given)
    assert str(caught.value) == message


def test_the_weights_of_a_merge_are_those_of_adapters_with_names(compose: Callable[..., Run]) -> None:
    """The name of the one in model.path is none of a user's."""
    with pytest.raises(UserError, match=r"^merge.weights: they are those of peft.adapters, and there are none; leave"):
        compose("command=merge", "model=bundled", "merge.weights={default: 0.5}")


def test_an_adapter_on_another_base_is_refused(base: str, two: dict[str, str], run: Ran) -> None:
    """Of another shape, or of another vocabulary; and one for another task."""
    for number, change in enumerate(("model.config.hidden_size=48", "model.vocabulary=200")):
        other = run(*LM, change, f"runs_folder=others{number}")["model"]
        with pytest.raises(UserError, match=r"^peft.adapters.law=\S+: it was trained on another base than .*; give mod"
                           r"el.path=<the one that it was trained on>$"):  # fmt: skip
            run("command=evaluate", *adapters(other, two))
    with pytest.raises(
        UserError, match=r"^peft.adapters.law=\S+: this adapter is for CAUSAL_LM, the task for SEQ_CLS; give"
    ):
        run("command=evaluate", *adapters(base, two)[1:], "task=text_classification")
    with pytest.raises(UserError, match="it is an adapter itself; name it in peft.adapters"):
        run("command=evaluate", *adapters(two["law"], two))


def test_heads_are_not_added_up(run: Ran) -> None:
    head = run("peft=lora", "runs_folder=heads")
    base = json.loads(Path(head["model"], "adapter_config.json").read_text())["base_model_name_or_path"]
    given = ["model=pretrained", f"model.path={base}", f"peft.adapters={{a: {head['model']}, b: {head['model']}}}"]
    assert run("command=evaluate", *given)["metrics"] == head["metrics"]
    for active in ("[a,b]", "[]"):
        with pytest.raises(
            UserError, match=r"^peft.active=\[.*\]: these adapters hold .*score in full, which cannot be"
        ):
            run("command=evaluate", *given, f"peft.active={active}")


def test_classifiers_are_merged_and_share_their_labels(run: Ran, corpus: Path) -> None:
    mood = [{"text": row["text"], "label": "glad" if "a" in row["text"] else "sad"} for row in rows(60)]
    write_rows(corpus / "mood.jsonl", mood)
    base = run("task=causal_lm", "runs_folder=bases")["model"]
    given = ["model=pretrained", f"model.path={base}", "peft=lora"]
    two = {"kind": run(*given)["model"], "mood": run(*given, "data.train=mood.jsonl", "data.eval=mood.jsonl")["model"]}
    with pytest.raises(UserError, match=r"^peft.adapters.mood=\S+: it answers glad, sad, and those beside it"):
        run("command=predict", *adapters(base, two, "inputs=[apple, dog]")[len(LM) :])
    plain = ["command=evaluate", "model=pretrained", "data.eval=mood.jsonl"]
    merged = run("command=merge", "model=pretrained", f"model.path={two['mood']}")["model"]
    scores = run(*plain, f"model.path={two['mood']}")["metrics"]
    assert run(*plain, f"model.path={merged}")["metrics"] == pytest.approx(scores, rel=1e-4)


def test_names_that_peft_suspects_are_names_like_others(
    base: str, two: dict[str, str], compose: Callable[..., Run], run: Ran, capsys: pytest.CaptureFixture[str]
) -> None:
    """Those within the names of its own weights; an adapter for other layers is refused under them, too."""
    for name, how in (("a", "first"), ("lora", "first"), ("lora_", "second"), ("model", "second"), ("mlp", "second")):
        there = {name: two["law"]} if how == "first" else {"x": two["verse"], name: two["law"]}
        network = opened(compose("command=evaluate", *adapters(base, there, f"peft.active={name}")))
        alone = opened(compose("command=evaluate", *LM, "model=pretrained", f"model.path={two['law']}"))
        assert torch.equal(logits(network), logits(alone))
    capsys.readouterr()
    run("command=evaluate", *adapters(base, {"a": two["law"]}))
    assert "should not be contained" not in capsys.readouterr().out
    deep = run(*LM, "model.config.num_hidden_layers=3", "runs_folder=deeper")["model"]
    shutil.copytree(
        run(*LM, "model=pretrained", f"model.path={base}", "peft=lora", "peft.target_modules=[q_proj]")["model"], "bare"
    )
    shutil.rmtree("bare/network")  # And its base is on another machine.
    said = Path("bare/adapter_config.json")
    said.write_text(json.dumps(json.loads(said.read_text()) | {"base_model_name_or_path": "/elsewhere/model"}))
    with pytest.raises(UserError, match="the adapter has no weights for .*layers.2"):
        run("command=evaluate", *adapters(deep, {"a": "bare"}))
    whole = run(*LM, "model=pretrained", f"model.path={deep}", "peft=lora")["model"]
    with pytest.raises(UserError, match=r"peft.adapters.b=bare: the adapter has no weights for .*layers.2"):
        run("command=evaluate", *adapters(deep, {"whole": whole, "b": "bare"}))


def test_virtual_tokens_work_alone(base: str, two: dict[str, str], run: Ran) -> None:
    prompt = run(*LM, "model=pretrained", f"model.path={base}", "peft=prompt")["model"]
    given = adapters(base, {"soft": prompt, "softer": prompt})
    assert run("command=evaluate", *given)["metrics"]
    with pytest.raises(UserError, match=r"^peft.active=\[soft,softer\]: soft has virtual tokens, which work alone"):
        run("command=evaluate", *given, "peft.active=[soft,softer]")
    with pytest.raises(UserError, match=r"peft.adapters.soft=.*: this is PROMPT_TUNING, and law is LORA; peft has"):
        run("command=evaluate", *adapters(base, two | {"soft": prompt}))


# X-LoRA


@pytest.fixture
def mixture(base: str, two: dict[str, str], run: Ran) -> str:
    """An X-LoRA of the two, saved, and moved to elsewhere; what it was made of is gone."""
    given = [*LM, "model=pretrained", f"model.path={base}", "peft=xlora"]
    saved = run(*given, f"peft.options.adapters={{law: {two['law']}, verse: {two['verse']}}}", "runs_folder=mixed")
    shutil.move(saved["model"], "moved")
    for gone in (*two.values(), "mixed"):
        shutil.rmtree(gone)
    return "moved"


def test_a_mixture_is_one_curve_on_all_backends_and_goes_on(
    base: str, two: dict[str, str], run: Ran, compose: Callable[..., Run]
) -> None:
    import bombs
    from test_resume import ended, go_on

    here = [*LM, "model=pretrained", f"model.path={base}"]
    logged = run(*here, "peft=lora", "tracking.log_model=true", "seed=5")["run_id"]
    experts = f"peft.options.adapters={{law: {two['law']}, verse: mlflow:{logged}}}"
    given = [*here, "peft=xlora", experts, "training.save_every=2"]
    points = same_on_all_backends(run, *given, "training.micro_batch_size=3")
    assert points[0] != points[-1]
    whole = run(*given, "runs_folder=whole")
    assert whole["trainable"] == 2 * 32 + 2
    assert bombs.killed(compose(*given, "runs_folder=again"), "saved", 4) < 0
    (folder,) = (path for path in Path("again").iterdir() if (path / "run.yaml").exists())
    assert ended(go_on("runs_folder=again", where=str(folder))) == ended(Path(whole["folder"]))


def test_a_mixture_has_its_experts_along_with_it(base: str, mixture: str, run: Ran, compose: Any) -> None:
    """It opens in plain peft, is evaluated, writes, and is trained further."""
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    here = [*LM, "model=pretrained", f"model.path={mixture}"]
    network = opened(compose("command=evaluate", *here))
    mixed = logits(network)
    assert not torch.allclose(mixed, logits(AutoModelForCausalLM.from_pretrained(base)), atol=1e-4)
    says = json.loads(Path(mixture, "adapter_config.json").read_text())
    says["adapters"] = {number: f"{mixture}/experts/{number}" for number in says["adapters"]}
    Path(mixture, "adapter_config.json").write_text(json.dumps(says))
    plain = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base, use_cache=False), mixture)
    assert torch.equal(logits(plain), mixed)
    network = opened(compose("command=evaluate", *here, "model.dtype=bfloat16"))
    assert network.internal_xlora_classifier.layers[0].weight.dtype == torch.float32
    written = run("command=generate", *here, "inputs=apple pear", "generation=greedy", "generation.max_new_tokens=4")
    assert written["metrics"]["generate/new_tokens"] == 4
    before = {name: value.clone() for name, value in plain.state_dict().items()}
    further = run(*here, "peft=xlora", "runs_folder=further")["model"]
    after = opened(compose("command=evaluate", *LM, "model=pretrained", f"model.path={further}")).state_dict()
    changed = {name for name, value in after.items() if not torch.equal(value, before[name])}
    assert all(torch.allclose(value, before[name], atol=0.1) for name, value in after.items())
    assert changed == {name for name in after if "internal_xlora_classifier" in name}


def test_what_cannot_be_mixed_is_one_line(
    base: str, two: dict[str, str], run: Ran, compose: Callable[..., Run]
) -> None:
    given = [*LM, "model=pretrained", f"model.path={base}", "peft=xlora"]

    def refused(*overrides: str) -> str:
        with pytest.raises(UserError) as caught:
            run(*given, *overrides)
        assert "\n" not in str(caught.value)
        return str(caught.value)

    def expert(path: str) -> str:
        return f"peft.options.adapters={{a: {two['law']}, b: {path}}}"

    assert refused() == (
        "peft.options.adapters: X-LoRA mixes LoRAs that there are; give peft.options.adapters={<name>: <folder>, ...}"
    )
    for name, change, said in (
        ("dora", {"use_dora": True}, "X-LoRA mixes plain LoRAs, and this one has use_dora; leave it out"),
        ("bias", {"bias": "all"}, "X-LoRA mixes plain LoRAs, and this one has bias; leave it out"),
        ("other", {"peft_type": "VERA"}, "X-LoRA mixes LoRAs, and this is VERA; leave it out"),
    ):
        shutil.copytree(two["verse"], name)
        config = Path(name, "adapter_config.json")
        config.write_text(json.dumps(json.loads(config.read_text()) | change))
        assert refused(expert(name)) == f"peft.options.adapters.b={name}: {said}"
    assert refused(expert("nowhere")).startswith("peft.options.adapters.b=nowhere: there is no adapter in nowhere")
    assert "names and folders" in refused("peft.options.adapters={a: 1}")
    assert "does not save what the experts learn" in refused(expert("x"), "peft.options.use_trainable_adapters=true")
    assert "quantized weights" in refused(expert(two["verse"]), "model.quantization=nf4")
    wide = run(*LM, "model.config.hidden_size=48", "runs_folder=wide")["model"]
    other = run(*LM, "model=pretrained", f"model.path={wide}", "peft=lora", "runs_folder=wider")["model"]
    assert "it was trained on another base" in refused(expert(other))


def test_names_that_peft_would_look_for_without_an_end_are_refused(two: dict[str, str], compose: Any) -> None:
    from safetensors.torch import load_file, save_file

    file = Path(two["verse"], "adapter_model.safetensors")
    save_file({name.removeprefix("base_model.model.model."): value for name, value in load_file(file).items()}, file)
    with pytest.raises(UserError, match=r"^peft.options.adapters.a=.*: peft mixes LoRAs of layers inside of"):
        compose(*LM, "peft=xlora", f"peft.options.adapters={{a: {two['verse']}}}").peft.check_files()


def test_a_mixture_alone_is_one_line(mixture: str, run: Ran) -> None:
    from safetensors.torch import save_file

    here = [*LM, "model=pretrained", f"model.path={mixture}"]
    with pytest.raises(UserError, match="LORA cannot be merged into the base: X-LoRA mixes them anew for each token"):
        run("command=merge", *here[1:])
    with pytest.raises(UserError, match="the X-LoRA in model.path has its own experts; leave them out"):
        run(*here, "peft=xlora", f"peft.options.adapters={{a: {mixture}/experts/0}}")
    with pytest.raises(UserError, match=r"^peft.adapters.a=moved: X-LoRA mixes adapters of its own, and works alone"):
        run("command=evaluate", *LM, "model=pretrained", "model.path=bundled", "peft.adapters={a: moved}")
    file = Path(mixture, "adapter_model.safetensors")
    whole = file.read_bytes()
    save_file({}, file)  # What peft itself makes of it.
    with pytest.raises(
        UserError, match=r"^model.path=moved: adapter_model.safetensors lacks base_model.internal_xlora"
    ):
        run("command=evaluate", *here)
    file.write_bytes(whole)
    shutil.rmtree(f"{mixture}/experts/1")
    with pytest.raises(UserError, match=r"^model.path=moved: its expert 1 is not in moved/experts/1; copy that LoRA's"):
        run("command=evaluate", *here)


# Merge


def test_a_merged_model_is_a_plain_one_with_the_same_logits(base: str, two: dict[str, str], run: Ran) -> None:
    """In a process without xp, by transformers alone."""
    jobs: dict[str, tuple[dict[str, Any], str]] = {
        "one": ({}, run("command=merge", "model=pretrained", f"model.path={two['law']}")["model"]),
        "active": ({}, run("command=merge", *adapters(base, two, "peft.active=verse"))["model"]),
        "sum": ({}, run("command=merge", *adapters(base, two, "merge.weights={law: 1.0, verse: 1.0}"))["model"]),
    }
    for name, (_, path) in jobs.items():
        assert not Path(path, "adapter_config.json").exists()
        assert f"# {Path(path).parent.name}" in Path(path, "README.md").read_text(), name
    merged = reopened(by_transformers, jobs)
    jobs = {"law": ({}, two["law"]), "verse": ({}, two["verse"])}
    apart = reopened(by_peft, jobs)
    assert all((each == apart[name]).all() for name, each in reopened(by_transformers, jobs).items())
    assert abs(merged["one"] - apart["law"]).max() < 1e-4
    assert abs(merged["active"] - apart["verse"]).max() < 1e-4
    assert abs(merged["sum"] - apart["law"]).max() > 1e-3


def test_weights_are_those_of_the_sum(base: str, two: dict[str, str], run: Ran, compose: Callable[..., Run]) -> None:
    """What is merged is base + 0.3 x law - 2 x verse, layer by layer."""

    def weights(network: Any) -> dict[str, torch.Tensor]:
        return {name: value.clone() for name, value in network.state_dict().items()}

    plain = weights(opened(compose("command=evaluate", *LM, "model=pretrained", f"model.path={base}")))
    alone = {
        name: weights(opened(compose("command=evaluate", *LM, "model=pretrained", f"model.path={path}"))
                      .merge_and_unload())  # type: ignore[attr-defined]
        for name, path in two.items()
    }  # fmt: skip
    odd = run(*LM, "model=pretrained", f"model.path={base}", "peft=dora")["model"]
    with pytest.raises(UserError, match=r"no weighted sum of adapters with use_dora, as odd"):
        run("command=merge", *adapters(base, two | {"odd": odd}, "merge.weights={law: 1, odd: 1}"))
    merge = Merge(weights={"law": 0.3, "verse": -2.0}, combination="cat", density=None, rank=None)
    network = opened(compose("command=evaluate", *adapters(base, two)))
    changed = 0
    for name, value in weights(adapter.merged(network, merge, "here")[0]).items():
        expected = plain[name] + 0.3 * (alone["law"][name] - plain[name]) - 2 * (alone["verse"][name] - plain[name])
        assert torch.allclose(value, expected, atol=1e-5), name
        changed += not torch.equal(value, plain[name])
    assert changed


LATER = pytest.mark.slow


@pytest.mark.parametrize(
    "combination",
    ["svd", "ties", *(pytest.param(each, marks=LATER) for each in ("dare_linear", "magnitude_prune", "ties_svd"))],
)
def test_pefts_combinations_merge(combination: str, base: str, run: Ran) -> None:
    settings = [*LM, "model=pretrained", f"model.path={base}", "peft=lora"]
    lora = {name: run(*settings, f"seed={seed}")["model"] for seed, name in enumerate("ab")}
    given = adapters(base, lora, "merge.weights={a: 0.5, b: 0.5}")
    density = [] if combination == "svd" else ["merge.density=0.5"]
    result = run("command=merge", *given, f"merge.combination={combination}", *density)
    assert result["metrics"]["merge/largest_change"] > 0


def test_what_cannot_be_merged_is_one_line(base: str, two: dict[str, str], run: Ran) -> None:
    prompt = run(*LM, "model=pretrained", f"model.path={base}", "peft=prompt")["model"]
    with pytest.raises(UserError, match=r"^model.path=\S+: PROMPT_TUNING cannot be merged into the base"):
        run("command=merge", "model=pretrained", f"model.path={prompt}")
    with pytest.raises(UserError, match=r"^model.path=\S+: there is no adapter to merge; give its folder, or peft.ad"):
        run("command=merge", "model=pretrained", f"model.path={base}")
    with pytest.raises(UserError, match="quantized weights take no update; leave out model.quantization"):
        run("command=merge", *adapters(base, two), "model.quantization=nf4")
    with pytest.raises(
        UserError,
        match=r"^peft.adapters: LORA cannot be merged into the base: those with unequal ranks are not summed up so",
    ):
        run("command=merge", *adapters(base, two, "merge.weights={law: 1, verse: 1}", "merge.combination=linear"))
    with pytest.raises(UserError, match=r"^peft.active=\[\]: none of the adapters is active, so there is nothing"):
        run("command=merge", *adapters(base, two, "peft.active=[]"))
    with pytest.raises(UserError, match=r"^peft=lora: command=merge makes no adapter; leave it out$"):
        run("command=merge", "model=pretrained", f"model.path={two['law']}", "peft=lora")


# Plain peft


@pytest.mark.parametrize("choice", ["lora", "dora", "ia3", "prefix"])
def test_what_xp_saves_opens_in_plain_peft_with_its_card(choice: str, base: str, run: Ran, compose: Any) -> None:
    result = run(*LM, "model=pretrained", f"model.path={base}", f"peft={choice}")
    ours = logits(opened(compose("command=evaluate", *LM, "model=pretrained", f"model.path={result['model']}")))
    found = reopened(by_peft, {"it": ({}, result["model"])})["it"]
    assert not isinstance(found, str), found
    assert abs(found[:, -9:] - ours.numpy()).max() < 1e-5  # Plain peft gives logits of virtual tokens, too.
    card = Path(result["model"], "README.md").read_text()
    assert card.startswith("---\nlibrary_name: peft\n")
    assert f"| eval/loss | {result['metrics']['eval/loss']:.4f} |" in card
    assert f"An adapter ({json.loads(Path(result['model'], 'adapter_config.json').read_text())['peft_type']})" in card


def test_what_plain_peft_saves_is_not_put_on_a_base_of_another_vocabulary(base: str, run: Ran) -> None:
    """Its own weights would fit; its base, which it names, has another size."""
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    network = AutoModelForCausalLM.from_pretrained(base)
    get_peft_model(network, LoraConfig(task_type="CAUSAL_LM", target_modules=["q_proj"])).save_pretrained("plain")
    shutil.copytree(base, "other")
    network = AutoModelForCausalLM.from_pretrained(base)
    network.resize_token_embeddings(280, mean_resizing=False)
    network.save_pretrained("other")
    given = ["command=evaluate", *LM, "model=pretrained"]
    with pytest.raises(UserError, match="vocab_size is 300 there, 280 here; give model.base="):
        run(*given, "model.path=plain", "model.base=other")
    for place, message in ((".", "has no model in it .no config.json."), ("./nowhere", "is not there")):
        with pytest.raises(UserError, match=f"^model.base={place}: {message}; give model.base="):
            run(*given, "model.path=plain", f"model.base={place}")
    with pytest.raises(UserError, match="vocab_size is 300 there, 280 here; give model.path="):
        run(*given, "model.path=other", "peft.adapters={it: plain}")


def test_a_classifier_that_plain_peft_saves_opens_in_xp(base: str, run: Ran, compose: Callable[..., Run]) -> None:
    """How many classes there are only its head says."""
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForSequenceClassification

    torch.manual_seed(0)
    network = AutoModelForSequenceClassification.from_pretrained(base, num_labels=5)
    network = get_peft_model(network, LoraConfig(task_type="SEQ_CLS", init_lora_weights=False))
    network.save_pretrained("plain")
    kinds = [{"text": text, "label": f"LABEL_{at}"} for at, text in enumerate(["cat dog", "cow", "saw axe"])]
    write_rows(Path("kinds.jsonl"), kinds)
    given = ["task=text_classification", "model=pretrained", "data.eval=kinds.jsonl"]
    theirs = logits(network)
    for how in (["model.path=plain"], [f"model.path={base}", "peft.adapters={kinds: plain}"]):
        ours = logits(opened(compose("command=evaluate", *given, *how)))
        assert ours.shape[1] == 5
        assert torch.equal(ours, theirs)
    predicted = run("command=predict", *given[:2], "model.path=plain", "inputs=cat dog")["predictions"]
    assert "LABEL_" in Path(predicted).read_text()


def test_what_plain_peft_saves_opens_in_xp(base: str, run: Ran, compose: Callable[..., Run]) -> None:
    """Alone, without a config or a tokenizer beside it; and it is trained further, merged, and one of several."""
    from peft import IA3Config, LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    for config in (
        LoraConfig(task_type="CAUSAL_LM", r=3, target_modules=["q_proj", "v_proj"], init_lora_weights=False),
        IA3Config(task_type="CAUSAL_LM", target_modules=["k_proj", "down_proj"], feedforward_modules=["down_proj"],
                  init_ia3_weights=False),
    ):  # fmt: skip
        torch.manual_seed(0)
        network = get_peft_model(AutoModelForCausalLM.from_pretrained(base), config)
        theirs, path = logits(network), f"plain-{config.peft_type.value}"
        network.save_pretrained(path)
        assert sorted(file.name for file in Path(path).iterdir()) == [
            "README.md", "adapter_config.json", "adapter_model.safetensors"]  # fmt: skip
        given = [*LM, "model=pretrained", f"model.path={path}"]
        assert torch.equal(logits(opened(compose("command=evaluate", *given))), theirs)
        assert run("command=merge", *given)["metrics"]["merge/largest_change"] > 0
    further = run(*LM, "model=pretrained", "model.path=plain-LORA", "peft=lora", "peft.rank=3", "peft.alpha=8",
                  "peft.target_modules=[q_proj,v_proj]", "peft.options={init_lora_weights: false}")  # fmt: skip
    assert further["trainable"]
    several = opened(compose("command=evaluate", *adapters(base, {"a": "plain-LORA", "b": further["model"]})))
    assert isinstance(several, torch.nn.Module)


# Parity


ALLOCATED = "peft.options={init_r: 3, target_r: 1, deltaT: 2, tinit: 1, tfinal: 1}"
"""A schedule of AdaLoRA for eight steps."""


@pytest.mark.parametrize("choice", ["dora", "ia3", "prefix", "adalora", "pissa", "eva"])
def test_backends_agree_on_adapters(choice: str, run: Ran) -> None:
    """To the last bit, with dropout and micro-batches; that of lora and qlora is proved elsewhere."""
    more = [ALLOCATED] if choice == "adalora" else []
    settings = ["task=causal_lm", "training.micro_batch_size=3", "training.max_steps=8", "training.learning_rate=2e-2"]
    points = same_on_all_backends(run, f"peft={choice}", *settings, *more, "model.config.attention_dropout=0.2")
    assert points[0][1] != points[-1][1]


@pytest.mark.parametrize(
    "choice", ["adalora", "pissa", pytest.param("eva", marks=LATER), pytest.param("prefix", marks=LATER)]
)
def test_a_killed_training_of_an_adapter_ends_as_if_nothing_had_happened(
    choice: str, base: str, compose: Any, run: Ran
) -> None:
    import bombs
    from test_resume import ended, go_on

    given = [*LM, "model=pretrained", f"model.path={base}", f"peft={choice}", "training.max_steps=8"]
    given += ["training.save_every=2", *([ALLOCATED] if choice == "adalora" else [])]
    whole = run(*given, "runs_folder=whole")
    assert bombs.killed(compose(*given, "runs_folder=again"), "saved", 6) < 0
    (folder,) = (path for path in Path("again").iterdir() if (path / "run.yaml").exists())
    assert ended(go_on("runs_folder=again", where=str(folder))) == ended(Path(whole["folder"]))


# Methods that do more than take gradient steps


def test_adalora_moves_its_rank_and_keeps_its_factors_apart(
    base: str, run: Ran, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each layer began with a rank of 3; at the end the budget is one a layer, in layers that need it."""
    given = [*LM, "model=pretrained", f"model.path={base}", "peft=adalora", "training.max_steps=12"]
    result = run(*given, ALLOCATED)
    config = json.loads(Path(result["model"], "adapter_config.json").read_text())
    ranks = [sum(pattern) for pattern in config["rank_pattern"].values()]
    assert sum(ranks) <= len(ranks)
    assert len(set(ranks)) > 1
    loose = run(*given, f"{ALLOCATED[:-1]}, orth_reg_weight: 0.0}}")
    losses = [[point["train/loss"] for point in each["points"] if "train/loss" in point] for each in (result, loose)]
    assert losses[0][0] > losses[1][0] + 0.1  # The penalty is in the loss.
    with pytest.raises(UserError, match="peft: ADALORA: .*budgeting"):
        run(*given, "peft.options={tinit: 10, tfinal: 10}")
    again = [*LM, "model=pretrained", f"model.path={result['model']}"]
    with pytest.raises(UserError, match="peft: AdaLoRA has taken rank away by its schedule, and cannot be trained fur"):
        run(*again, "peft=adalora", ALLOCATED)
    with pytest.raises(UserError, match=r"peft.adapters.law=\S+: AdaLoRA has taken rank away"):
        run(*adapters(base, {"law": result["model"]}, "peft.trained=law"))
    capsys.readouterr()
    assert run("command=evaluate", *again)["metrics"] == result["metrics"]
    assert "rank_pattern" not in capsys.readouterr().out


def test_what_adalora_remembers_of_its_weights_comes_back(base: str) -> None:
    from peft import AdaLoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    config = AdaLoraConfig(task_type="CAUSAL_LM", target_modules="all-linear", init_r=3, target_r=1, total_step=9)
    network = get_peft_model(AutoModelForCausalLM.from_pretrained(base), config)
    tokens = torch.arange(1, 19).reshape(2, 9)
    for step in (1, 2):
        network(input_ids=tokens, labels=tokens).loss.backward()
        network.base_model.update_and_allocate(step)
    kept = upkeep(network)
    assert kept is not None
    tensors, values = kept.tensors(), json.loads(json.dumps(kept.values()))
    assert len(tensors) == 3 * len(network.base_model.rankallocator.ipt) > 0
    network.base_model.rankallocator.reset_ipt()
    kept.config.rank_pattern = {}
    kept.restore(tensors, values)
    assert kept.values() == values != {"rank_pattern": {}}
    again = kept.tensors()
    assert again.keys() == tensors.keys()
    assert all(torch.equal(again[name], tensors[name]) for name in tensors)


@pytest.mark.parametrize("word", ["pissa", "pissa_niter_4", "olora"])
def test_what_was_taken_from_the_base_is_given_back_when_it_is_saved(word: str, base: str, run: Ran) -> None:
    """The adapter is an ordinary LoRA of twice the rank, for the base as it was, for xp and for plain peft."""
    before = Path(base, "model.safetensors").read_bytes()
    given = [*LM, "model=pretrained", f"model.path={base}"]
    result = run(*given, "peft=lora", f"peft.options={{init_lora_weights: {word}}}", "peft.rank=3")
    assert Path(base, "model.safetensors").read_bytes() == before
    config = json.loads(Path(result["model"], "adapter_config.json").read_text())
    assert (config["r"], config["init_lora_weights"]) == (6, True)
    assert not Path(result["folder"], "initial").exists()
    again = run("command=evaluate", *LM, "model=pretrained", f"model.path={result['model']}")["metrics"]
    assert again["eval/loss"] == pytest.approx(result["metrics"]["eval/loss"], rel=1e-4)
    plain = run("command=evaluate", *given)["metrics"]["eval/loss"]
    assert abs(result["metrics"]["eval/loss"] - plain) > 1e-3
    assert not isinstance(reopened(by_peft, {"it": ({}, result["model"])})["it"], str)


@pytest.mark.parametrize("quantization", ["nf4", "int8"])
@pytest.mark.parametrize("choice", ["pissa", "olora"])
def test_nothing_is_taken_from_a_base_that_is_quantized(choice: str, quantization: str, base: str, run: Ran) -> None:
    """It would be quantized anew without that part, and what is saved would not be for the base as it was."""
    given = [*LM, "model=pretrained", f"model.path={base}", f"model.quantization={quantization}"]
    with pytest.raises(
        UserError, match=f"init_lora_weights={choice}: it takes a part out of .* set model.quantization to"
    ):
        run(*given, f"peft={choice}")


def test_heads_are_saved_with_what_began_as_a_part_of_the_base(run: Ran) -> None:
    """peft leaves them out where it turns such an adapter into one that stands alone."""
    result = run("peft=pissa", "peft.rank=3")
    again = run("command=evaluate", "model=pretrained", f"model.path={result['model']}")["metrics"]
    assert again["eval/loss"] == pytest.approx(result["metrics"]["eval/loss"], rel=1e-4)
    for more, message in (
        (["peft=lora", "peft.bias=all"], "peft.bias=all: it does not go with init_lora_weights=olora; use none"),
        (["peft=lora", "peft.options.use_dora=true"], "peft.options.use_dora: it does not go with init_lora_weights"),
        (["peft=adalora"], "peft.options.init_lora_weights=olora: peft's ADALORA does not look at it; leave it out"),
    ):
        with pytest.raises(UserError, match=message):
            run(*more, "peft.options.init_lora_weights=olora")


def test_eva_begins_with_what_the_layers_see(base: str, run: Ran, capsys: pytest.CaptureFixture[str]) -> None:
    from safetensors.torch import load_file

    given = [*LM, "model=pretrained", f"model.path={base}", "training.max_steps=1", "training.learning_rate=1e-9"]
    result = run(*given, "peft=eva")
    assert "eva: the adapter begins with what the layers see of 60 rows" in capsys.readouterr().out
    weights = load_file(Path(result["model"], "adapter_model.safetensors"))
    name = next(name for name in weights if "q_proj.lora_A" in name)
    gram = weights[name] @ weights[name].T
    assert torch.allclose(gram, torch.eye(len(gram)), atol=1e-3)  # Principal directions are orthonormal.
    with pytest.raises(UserError, match="init_lora_weights=eva: it looks at 2000 tokens at a time, and 16 train rows"):
        run(*given, "peft=eva", "peft.rank=1000")
    with pytest.raises(UserError, match="init_lora_weights=corda: it begins with statistics of the base"):
        run(*given, "peft=lora", "peft.options={init_lora_weights: corda}")


def test_layers_that_eva_leaves_no_rank_are_not_missed(
    run: Ran, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """From 20 layers on, peft shortens their names to those that all of them have."""
    import peft

    begin = peft.initialize_lora_eva_weights

    def leave_one_out(network: Any, seen: Any, **named: Any) -> None:
        layers = {name: part for name, part in network.named_modules() if hasattr(part, "lora_A")}
        ranks = {name: 0 if name.endswith("layers.1.mlp.down_proj") else 4 for name in layers}
        begin(network, eva_state_dict={name: torch.eye(rank, layers[name].in_features) for name, rank in ranks.items()})

    monkeypatch.setattr("peft.initialize_lora_eva_weights", leave_one_out)
    base = run(*LM, "model.config.num_hidden_layers=4", "runs_folder=bases")["model"]
    result = run(*LM, "model=pretrained", f"model.path={base}", "peft=eva")
    assert "lora on 27 layers: down_proj 3, gate_proj 4, " in capsys.readouterr().out
    scores = run("command=evaluate", *LM, "model=pretrained", f"model.path={result['model']}")["metrics"]
    assert scores["eval/loss"] == pytest.approx(result["metrics"]["eval/loss"], rel=1e-5)
    found = reopened(by_peft, {"it": ({}, result["model"])})["it"]
    assert not isinstance(found, str), found


@pytest.mark.gpu
@pytest.mark.parametrize("rank", [8, 16])
def test_loftq_makes_up_for_what_four_bits_lose(rank: int, run: Ran) -> None:
    """bitsandbytes warns of widths that are no multiple of 64 on a GPU; alpha stays, so the ranks differ in scale."""
    wide = ["model.config.hidden_size=64", "model.config.intermediate_size=128"]
    base = run(*LM, *wide, "runs_folder=bases")["model"]
    given = [*LM, "model=pretrained", f"model.path={base}", "training.max_steps=1", "training.learning_rate=1e-9"]
    whole = run("command=evaluate", *LM, "model=pretrained", f"model.path={base}")["metrics"]["eval/loss"]
    found = {}
    for name, more in (("plain", []), ("loftq", ["peft.options={init_lora_weights: loftq}"])):
        found[name] = run(*given, "peft=lora", "model.quantization=nf4", f"peft.rank={rank}", *more)["metrics"][
            "eval/loss"
        ]
    assert abs(found["loftq"] - whole) < abs(found["plain"] - whole)


def test_loftq_is_for_four_bits_on_a_gpu(base: str, run: Ran) -> None:
    given = [*LM, "model=pretrained", f"model.path={base}", "peft=lora", "peft.options={init_lora_weights: loftq}"]
    with pytest.raises(UserError, match=r"^peft.options.init_lora_weights=loftq: it makes up for what weights lose in"):
        run(*given)
    if not torch.cuda.is_available():
        with pytest.raises(UserError, match=r"^peft.options.init_lora_weights=loftq: peft computes it on a GPU, and "):
            run(*given, "model.quantization=nf4")


def test_prefixes_do_not_go_with_layers_that_are_computed_twice(base: str, run: Ran) -> None:
    given = [*LM, "model=pretrained", f"model.path={base}", "peft=prefix", "training.gradient_checkpointing=true"]
    with pytest.raises(UserError, match="gradient_checkpointing=true: peft: PREFIX_TUNING does not work with it"):
        run(*given)


def test_a_layer_in_full_is_the_models_own_again_without_its_adapter(
    base: str, two: dict[str, str], compose: Callable[..., Run], run: Ran
) -> None:
    """Of a language model; two of them cannot be added up."""
    head = run(*LM, "model=pretrained", f"model.path={base}", "peft=lora", "peft.modules_to_save=[lm_head]")["model"]
    with_head = two | {"head": str(head)}

    def of(there: dict[str, str], *more: str) -> torch.Tensor:
        named = ", ".join(f"{name}: {path}" for name, path in there.items())
        given = [*LM, "model=pretrained", f"model.path={base}", f"peft.adapters={{{named}}}", *more]
        return logits(opened(compose("command=evaluate", *given)))

    assert torch.equal(of(with_head, "peft.active=[]"), of(two, "peft.active=[]"))
    assert torch.equal(of(with_head, "peft.active=[law,verse]"), of(two, "peft.active=[law,verse]"))
    both = of(with_head, "peft.active=[law,head]")
    assert not any(torch.equal(both, of(with_head, f"peft.active={name}")) for name in ("law", "head"))
    with pytest.raises(UserError, match=r"lm_head in full, which cannot be added up; give just one of them$"):
        of(with_head | {"again": str(head)}, "peft.active=[again,head]")


# Chat


def test_adapters_are_switched_and_added_in_a_chat(base: str, two: dict[str, str]) -> None:
    from transformers import AutoModelForCausalLM

    front, said = desk()
    front.speaker.network = AutoModelForCausalLM.from_pretrained(base).eval()
    plain = logits(front.speaker.network)
    with pytest.raises(UserError, match=r"^/adapter: this model has none; /adapter <name>=<folder> adds one"):
        front.order("/adapter")
    front.order(f"/adapter law={two['law']}")
    assert said[-1] == "adapters: law; answering with law"
    law = logits(front.speaker.network)
    front.order(f"/adapter verse={two['verse']}")
    assert said[-1] == "adapters: law, verse; answering with verse"
    verse = logits(front.speaker.network)
    front.order("/adapter law verse")
    assert said[-1] == "adapters: law, verse; answering with law and verse"
    both = logits(front.speaker.network)
    assert len({value.sum().item() for value in (plain, law, verse, both)}) == 4
    front.order("/adapter none")
    assert torch.equal(logits(front.speaker.network), plain)
    front.order("/adapter law")
    assert torch.equal(logits(front.speaker.network), law)
    for order, message in (
        ("/adapter lew", r"^/adapter lew: there is no such adapter. Did you mean 'law'\?"),
        (f"/adapter law={two['law']}", "there is an adapter of this name; give another one"),
        (f"/adapter eval={two['law']}", "eval cannot be an adapter's name"),
        (f"/adapter none={two['law']}", "none cannot be an adapter's name"),
        ("/adapter more=nowhere", "there is no adapter in nowhere"),
    ):
        with pytest.raises(UserError, match=message):
            front.order(order)
    assert torch.equal(logits(front.speaker.network), law)


def test_the_command_line_takes_adapters(base: str, two: dict[str, str], corpus: Path) -> None:
    """As a user types it, mapping and all; the chat through a pipe begins with the one that is active."""
    import subprocess
    import sys

    typed = [each for each in adapters(base, two, "peft.active=verse") if not each.startswith("training.")]
    done = command("command=generate", *typed, "inputs=apple", "generation.max_new_tokens=4", folder=corpus)
    assert done.returncode == 0, done.stderr
    assert "adapters law, verse; active: verse" in done.stdout
    given = [*typed[2:], "task.template=plain", "generation.max_new_tokens=4"]
    talked = subprocess.run(
        [sys.executable, "-m", "xp", "command=chat", *given], input="apple\n/adapter law\npear\n/exit\n",
        cwd=corpus, capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert talked.returncode == 0, talked.stderr
    assert "answering with law" in talked.stdout + talked.stderr


def test_several_is_what_the_settings_say(compose: Callable[..., Run]) -> None:
    found = compose("model=bundled", "peft.adapters={a: x, b: y}", "command=evaluate", "peft.active=b").peft.several
    assert found == Several({"a": "x", "b": "y"}, ("b",))
    assert compose("command=evaluate", "model=bundled").peft.several is None
