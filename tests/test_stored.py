"""Stored: models that are quantized on disk open as they are, and are asked for nothing else."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from test_quantization import folder, loaded

from xp.error import UserError

Ran = Callable[..., dict[str, Any]]
__all__ = ["folder"]


def evaluate(path: object, *overrides: str) -> list[str]:
    return ["command=evaluate", "task=causal_lm", "model=pretrained", f"model.path={path}", *overrides]


@pytest.fixture
def saved(folder: str, compose: Callable[..., Any]) -> Callable[[str], Path]:
    """A folder with the model quantized in this way, written by transformers."""

    def save(word: str) -> Path:
        made = loaded(compose(*evaluate(folder, f"model.quantization={word}")))
        made.network.save_pretrained(word)
        made.processor.save_pretrained(word)
        return Path(word).absolute()

    return save


@pytest.mark.parametrize("word", ["nf4", "int8"])
def test_what_is_stored_quantized_is_evaluated_and_carries_adapters(
    word: str, folder: str, run: Ran, saved: Callable[[str], Path]
) -> None:
    path = saved(word)
    there, here = run(*evaluate(path)), run(*evaluate(folder, f"model.quantization={word}"))
    assert there["metrics"] == here["metrics"]
    trained = run("task=causal_lm", "model=pretrained", f"model.path={path}", "peft=lora")
    assert trained["metrics"] != there["metrics"]
    assert run(*evaluate(trained["model"]))["metrics"] == trained["metrics"]


def test_what_is_stored_quantized_is_asked_for_nothing_else(
    run: Ran, compose: Callable[..., Any], saved: Callable[[str], Path]
) -> None:
    path = saved("nf4")
    assert loaded(compose(*evaluate(path, "model.quantization=nf4"))).footprint.how == "nf4"
    with pytest.raises(UserError, match=r"model.quantization=int8: .* is stored quantized already \(nf4\); set it to"):
        loaded(compose(*evaluate(path, "model.quantization=int8")))
    with pytest.raises(UserError, match=r"it is stored quantized \(nf4\), and such weights cannot be trained in full"):
        run("task=causal_lm", "model=pretrained", f"model.path={path}")
    for method, message in (("gptq", r"requires optimum \(`pip install optimum`\)"),
                            ("awq", "pip install"), ("gtpq", "does not know. Did you mean 'gptq'")):  # fmt: skip
        other = Path(shutil.copytree(path, method))
        config = json.loads((other / "config.json").read_text())
        config["quantization_config"] = {"quant_method": method, "bits": 4, "group_size": 128}
        (other / "config.json").write_text(json.dumps(config))
        with pytest.raises(UserError, match=message) as caught:
            loaded(compose(*evaluate(other)))
        assert str(caught.value).startswith(f"model.path={method}: ")
        assert "\n" not in str(caught.value)
