"""A new adapter on top of adapters that there are: it alone is trained, and what is saved holds all that took part."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import LM, same_on_all_backends
from reopened import by_transformers, by_xp, logits, reopened
from test_adapters import adapters, opened
from test_peft import PRETRAINED

from xp.error import UserError
from xp.launch import start
from xp.run import Run

Ran = Callable[..., dict[str, Any]]
Composed = Callable[..., Run]


def digests(folder: str) -> dict[str, bytes]:
    """The weights' files in a folder and in those inside it."""
    return {str(file.relative_to(folder)): file.read_bytes() for file in Path(folder).rglob("*.safetensors")}


@pytest.fixture
def given(base: str, two: dict[str, str]) -> list[str]:
    """A new LoRA on top of two."""
    return adapters(base, two, "peft=lora", "peft.rank=3")


def by_peft_as_its_card_says(values: dict[str, Any], folder: str) -> Any:
    """The logits as the model card opens them, which xp has no part in."""
    import transformers
    from peft import PeftModel

    text = Path(folder, "README.md").read_text()
    code = "\n".join(line[4:] for line in text.splitlines() if line.startswith("    model"))
    names = ("AutoConfig", *re.findall(r"\w+For\w+", code))
    known: dict[str, Any] = {name: getattr(transformers, name) for name in names}
    known |= {"PeftModel": PeftModel, "folder": folder}
    exec(code, known)
    return logits(known["model"])


def test_the_new_one_is_trained_and_those_under_it_stay(
    given: list[str], base: str, two: dict[str, str], compose: Composed, run: Ran
) -> None:
    """The same curve on every backend, the same logits in new processes: by xp, and by plain peft as the card says."""
    before = {name: digests(path) for name, path in two.items()}
    points = same_on_all_backends(run, *given, "training.micro_batch_size=3")
    assert points[0] != points[-1]
    result = run(*given)
    assert {name: digests(path) for name, path in two.items()} == before
    model = str(result["model"])
    saved = digests(model)
    assert set(saved) == {f"{each}adapter_model.safetensors" for each in ("", "adapters/law/", "adapters/verse/")}
    assert all(saved[f"adapters/{name}/adapter_model.safetensors"] in before[name].values() for name in two)
    assert result["trainable"] == run(*LM, PRETRAINED, f"model.path={base}", "peft=lora", "peft.rank=3")["trainable"]

    again = run("command=evaluate", *LM, PRETRAINED, f"model.path={model}")
    assert again["metrics"] == result["metrics"]
    network = opened(compose("command=evaluate", *LM, PRETRAINED, f"model.path={model}"))
    expected = logits(network).numpy()
    values = compose(PRETRAINED, f"model.path={model}", *LM).values()
    for how in (by_xp, by_peft_as_its_card_says):
        found = reopened(how, {"it": (values, model)})["it"]
        assert not isinstance(found, str), found
        assert np.array_equal(found, expected)
    shutil.copytree(model, "alone", ignore=shutil.ignore_patterns("adapters"))
    assert run("command=evaluate", *LM, PRETRAINED, "model.path=alone")["metrics"] != result["metrics"]


def test_it_goes_on_after_a_kill(given: list[str], compose: Composed, run: Ran) -> None:
    import bombs
    from test_resume import ended, go_on

    whole = run(*given, "training.save_every=2", "runs_folder=whole")
    assert bombs.killed(compose(*given, "training.save_every=2", "runs_folder=again"), "saved", 4) < 0
    (folder,) = (path for path in Path("again").iterdir() if (path / "run.yaml").exists())
    assert ended(go_on("runs_folder=again", where=str(folder))) == ended(Path(whole["folder"]))


def test_what_it_saves_is_trained_further_and_merged(
    given: list[str], compose: Composed, run: Ran, capsys: pytest.CaptureFixture[str]
) -> None:
    model = str(run(*given)["model"])
    further = run(*LM, PRETRAINED, f"model.path={model}", "peft=lora", "peft.rank=3")
    old, new = digests(model), digests(str(further["model"]))
    assert set(old) == set(new)
    assert {name for name in old if old[name] != new[name]} == {"adapter_model.safetensors"}

    expected = logits(opened(compose("command=evaluate", *LM, PRETRAINED, f"model.path={model}")))
    capsys.readouterr()
    merged = run("command=merge", "task=causal_lm", PRETRAINED, f"model.path={model}")
    assert "merged its adapter, law, verse into" in capsys.readouterr().out
    found = reopened(by_transformers, {"it": ({}, merged["model"])})["it"]
    assert np.allclose(found, expected.numpy(), atol=1e-5)


def test_what_took_part_in_the_training_of_another_is_saved_along(
    base: str, two: dict[str, str], compose: Composed, run: Ran
) -> None:
    """Also where it was one of several that there are; by the names that they had."""
    result = run(*adapters(base, two, "peft.trained=law", "peft.active=[verse,law]"))
    assert set(digests(result["model"])) == {"adapter_model.safetensors", "adapters/verse/adapter_model.safetensors"}
    again = run("command=evaluate", *LM, PRETRAINED, f"model.path={result['model']}")
    assert again["metrics"] == result["metrics"]
    alone = run(*adapters(base, two, "peft.trained=law"))
    assert set(digests(alone["model"])) == {"adapter_model.safetensors"}


def test_one_of_several_that_lacks_those_beside_it_is_told(
    given: list[str], base: str, run: Ran, capsys: pytest.CaptureFixture[str]
) -> None:
    model = str(run(*given)["model"])
    capsys.readouterr()
    run("command=evaluate", *adapters(base, {"it": model}))
    assert (
        f"peft.adapters.it={model}: it was trained beside law, verse, without which it is not what it was"
        in capsys.readouterr().out
    )


def test_a_method_where_nothing_is_trained_is_said_to_be_unused(
    base: str, run: Ran, capsys: pytest.CaptureFixture[str]
) -> None:
    from mlflow import MlflowClient

    given = ["command=evaluate", *LM, "model=pretrained", f"model.path={base}"]
    plain = run(*given)
    assert "makes no adapter" not in capsys.readouterr().out
    other = run(*given, "peft=dora")
    assert "peft=dora: command=evaluate makes no adapter and does not use it; one that" in capsys.readouterr().out
    assert other["metrics"] == plain["metrics"]
    client = MlflowClient(f"sqlite:///{Path('runs/mlflow.db').absolute()}")
    unused = [client.get_run(each["run_id"]).data.tags.get("xp.unused") for each in (plain, other)]
    assert unused == [None, "peft=dora"]


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["peft=prefix"], "peft.adapters: the chosen peft has no such key; peft=lora, none have it"),
        (["peft=xlora"], "peft.adapters: the chosen peft has no such key; peft=lora, none have it"),
        (["peft=pissa"], "peft.adapters: init_lora_weights=pissa looks at the model alone; use command=merge on them"),
        (["peft=lora", "command=evaluate"], "peft.adapters: peft=lora trains a new one on top of them, command=evalu"
         "ate trains nothing; use peft=none"),
        (["peft=lora", "peft.adapters={default: x}"], "peft.adapters.default: one that nobody has named is called so"),
        (["peft=lora", "peft.adapters={a b: x}"], "peft.adapters.a b: a name has letters, digits and underscores"),
        (["peft=lora", "peft.adapters={law: nowhere}"], "peft.adapters.law=nowhere: there is no adapter in nowhere"),
        (["peft=ia3"], "peft.adapters: the chosen peft has no such key; peft=lora, none have it"),
        (["peft=lora", "peft.modules_to_save=[lm_head]"], "peft.adapters: lm_head would be held in full by these"),
        (["peft=lora", "peft.bias=all"], "peft.bias=all: those of the model are not the new adapter's alone; use none"),
    ],
)  # fmt: skip
def test_what_cannot_be_on_top_is_refused(
    base: str, two: dict[str, str], compose: Composed, more: list[str], message: str
) -> None:
    with pytest.raises(UserError) as refused:
        start(compose(*adapters(base, two), *more))
    assert message in str(refused.value)
    assert "\n" not in str(refused.value)


def test_those_under_it_are_loras(base: str, run: Ran) -> None:
    """Before any weights are read."""
    other = run(*LM, PRETRAINED, f"model.path={base}", "peft=ia3")["model"]
    with pytest.raises(UserError, match="this is IA3, and the new one LORA, which peft does not add up; use command=m"):
        run(*adapters(base, {"a": str(other)}), "peft=lora")


def test_heads_are_not_added_up(run: Ran) -> None:
    """Those of a classification; before any weights are read."""
    first = run("peft=lora", "runs_folder=first")
    with pytest.raises(UserError, match="would be held in full by these adapters or the new one"):
        run("peft=lora", PRETRAINED, f"model.path={first['folder']}/base", f"peft.adapters={{a: {first['model']}}}")


def test_a_folder_inside_that_is_no_adapter_is_named(given: list[str], run: Ran) -> None:
    model = str(run(*given)["model"])
    Path(model, "adapters/law/adapter_model.safetensors").unlink()
    with pytest.raises(UserError, match=r"adapters/law: the adapter has no weights \(adapter_model.safetensors"):
        run("command=evaluate", *LM, PRETRAINED, f"model.path={model}")
