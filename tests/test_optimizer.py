"""Optimizers with states in 8 bits: one curve on all backends, resumed to the last bit, refused elsewhere."""

from __future__ import annotations

import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

import pytest
import torch
from bombs import killed
from conftest import same_on_all_backends
from test_resume import ended, go_on, only

from xp.error import UserError
from xp.launch import start
from xp.training import optimizer

Ran = Callable[..., dict[str, Any]]
WIDE = ["model.config.hidden_size=64", "model.config.intermediate_size=128", "task=causal_lm"]
NAMES = [name for name in optimizer.BITSANDBYTES if not name.startswith("paged_")]


@pytest.mark.parametrize("name", NAMES)
def test_it_learns(name: str) -> None:
    torch.manual_seed(0)
    network, inputs = torch.nn.Linear(64, 64), torch.randn(32, 64)
    wanted = torch.nn.Linear(64, 64)(inputs).detach()
    options = {"momentum": 0.9} if name == "sgd_8bit" else {}
    made = optimizer.make(name, options, network, 1e-3, 0.0, torch.device("cpu"))
    losses = []
    for _ in range(20):
        losses.append(torch.nn.functional.mse_loss(network(inputs), wanted))
        losses[-1].backward()
        made.step()
        made.zero_grad()
    assert losses[-1] < 0.99 * losses[0]
    assert (made.state[network.weight]["state1"].dtype == torch.uint8) == name.endswith("_8bit")


def test_one_curve_from_three_engines(run: Ran) -> None:
    same_on_all_backends(run, *WIDE, "training.optimizer=adamw_8bit")


@pytest.mark.parametrize("name", ["adamw_8bit", "ademamix_8bit"])
def test_states_in_8_bits_go_on(name: str, compose: Callable[..., Any]) -> None:
    """To the last bit, and they are in 8 bits, but for those of embeddings."""
    from safetensors.torch import load_file

    settings = [*WIDE, f"training.optimizer={name}", "training.save_every=1", "training.max_steps=5"]
    elsewhere = ("runs_folder=whole", "tracking.uri=sqlite:///whole/mlflow.db")
    whole = ended(Path(start(compose(*settings, *elsewhere))["folder"]))
    assert killed(compose(*settings), "step", 4) == -signal.SIGKILL, Path("child.log").read_text()
    (newest,) = sorted(only().glob("checkpoints/step-????????"))[-1:]
    states = load_file(newest / "optimizer.safetensors")
    types = {name.partition(".")[2]: value.dtype for name, value in states.items() if value.numel() >= 4096}
    assert types["state1"] == types["state2"] == torch.uint8 or torch.float32 in types.values()
    in_8_bits = [value for name, value in states.items() if name.endswith("state1") and value.dtype == torch.uint8]
    assert in_8_bits
    assert all(300 not in value.shape for value in in_8_bits)
    assert ended(go_on()) == whole


def test_embeddings_have_states_in_32_bits() -> None:
    table, matrix = torch.nn.Embedding(100, 64), torch.nn.Linear(64, 100)
    made = optimizer.make("adamw_8bit", {}, torch.nn.ModuleList([table, matrix]), 1e-3, 0.0, torch.device("cpu"))
    for parameter in (*table.parameters(), *matrix.parameters()):
        parameter.grad = torch.ones_like(parameter)
    made.step()
    assert made.state[table.weight]["state1"].dtype == torch.float32
    assert made.state[matrix.weight]["state1"].dtype == torch.uint8
    assert made.state[matrix.bias]["state1"].dtype == torch.float32  # Too small to be worth it.


@pytest.mark.parametrize("name", [name for name in optimizer.BITSANDBYTES if name.startswith("paged_")])
def test_paged_states_need_a_gpu(name: str) -> None:
    other = "adamw" if name == "paged_adamw" else name.removeprefix("paged_")
    with pytest.raises(UserError, match=f"training.optimizer={name}: .* device=cpu; use {other}$"):
        optimizer.check_device(name, torch.device("cpu"))
    assert other in get_args(optimizer.Optimizer)


def test_a_device_without_code_for_it_is_named() -> None:
    with pytest.raises(
        UserError, match="training.optimizer=lion_8bit: bitsandbytes has no code .* device=mps; use adamw"
    ):
        optimizer.check_device("lion_8bit", torch.device("mps"))
    optimizer.check_device("lion_8bit", torch.device("cpu"))
    optimizer.check_device("lion", torch.device("mps"))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (["device=cpu", "training.optimizer=paged_lion_8bit"], "this is device=cpu; use lion_8bit"),
        (["training.optimizer=adamw8bit"], "Did you mean 'adamw_8bit'?"),
        (["training.optimizer=adamw_8bit", "training.optimizer_options.min_8bit=1"], "Did you mean 'min_8bit_size'?"),
        (["training.optimizer=adamw_8bit", "training.optimizer_options.is_paged=true"], "has no such option"),
        (["training.optimizer=sgd_8bit"], "training.optimizer_options: sgd_8bit refuses them: SGD without momentum"),
    ],
)
def test_a_wrong_optimizer_is_one_line(settings: list[str], message: str, run: Ran) -> None:
    with pytest.raises(UserError) as caught:
        run(*settings)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
