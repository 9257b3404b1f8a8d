"""The Hugging Face hub: data, models and metrics by their ids, and what is said where it has them not."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import yaml
from conftest import ROOT
from hub import Hub
from hub_layouts import LAYOUTS

TINY = {
    "scratch": ["model.vocabulary=300", "model.config.hidden_size=32", "model.config.intermediate_size=64"],
    "scratch_bert": ["model.vocabulary=300", "model.config.hidden_size=32", "model.config.intermediate_size=64"],
    "scratch_bart": ["model.vocabulary=300", "model.config.d_model=32"],
    "scratch_vit": ["model.config.image_size=32", "model.config.patch_size=8", "model.config.hidden_size=16"],
    "scratch_wav2vec2": ["model.config.hidden_size=16", "model.config.conv_dim=[16,16,16]"],
}
RECIPE = [
    "training.epochs=null",
    "training.max_steps=2",
    "training.batch_size=4",
    "training.log_every=1",
    "precision=fp32",
    "tracking.log_model=false",
    "generation.max_new_tokens=2",
]


class Ended(NamedTuple):
    """How a job ended, and all that it wrote."""

    code: int
    said: str


class Worker:
    """A process that runs xp against one hub, see ``hub_worker.py``."""

    def __init__(self, folder: Path, endpoint: str, **env: str) -> None:
        self.folder = folder
        own = {"HF_ENDPOINT": endpoint, "HF_HOME": str(folder / "home"), "HF_HUB_OFFLINE": "0", "NO_PROXY": "*"}
        own |= {"PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "tests")]), "OMP_NUM_THREADS": "1"}
        self.process = subprocess.Popen(
            [sys.executable, str(ROOT / "tests" / "hub_worker.py")],
            env={name: value for name, value in os.environ.items() if name != "HF_TOKEN"} | own | env,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def run(self, *arguments: str, **env: str) -> Ended:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        job = {"folder": str(self.folder), "arguments": arguments, "env": env}
        self.process.stdin.write(json.dumps(job) + "\n")
        self.process.stdin.flush()
        return Ended(**json.loads(self.process.stdout.readline()))

    def close(self) -> None:
        self.process.communicate(timeout=60)


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Hub:
    return Hub(tmp_path_factory.mktemp("hub"))


@pytest.fixture(scope="module")
def endpoint(hub: Hub) -> Iterator[str]:
    with hub.serve() as endpoint:
        yield endpoint


@pytest.fixture(scope="module")
def xp(endpoint: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., Ended]]:
    """Runs ``python -m xp`` with these arguments, where the hub is the one of these tests."""
    worker = Worker(tmp_path_factory.mktemp("work"), endpoint)
    yield worker.run
    worker.close()


def hub_data() -> list[str]:
    """Every data set of conf/data that is a repository of the hub."""
    files = sorted((ROOT / "conf" / "data").glob("*.yaml"))
    return [file.stem for file in files if "hub" in yaml.safe_load(file.read_text()).get("defaults", [])]


MODELS = {
    "audio_classification": "scratch_wav2vec2",
    "image_classification": "scratch_vit",
    "summarization": "scratch_bart",
    "translation": "scratch_bart",
    "causal_lm": "scratch",
    "chat": "scratch",
}


@pytest.mark.parametrize("name", hub_data())
def test_every_data_set_of_the_hub_is_read_as_its_yaml_says_and_trained_on(
    name: str, hub: Hub, xp: Callable[..., Ended]
) -> None:
    LAYOUTS[name](hub)
    settings = yaml.safe_load((ROOT / "conf" / "data" / f"{name}.yaml").read_text())
    (task,) = [each["override /task@_global_.task"] for each in settings["defaults"] if isinstance(each, dict)]
    model = MODELS.get(task, "scratch_bert")
    ended = xp(f"data={name}", f"model={model}", *TINY[model], *RECIPE)
    print(ended.said)
    assert ended.code == 0, ended.said
