"""The Hugging Face hub: data, models and metrics by their ids, and what is said where it has them not."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
import yaml
from conftest import ROOT, command
from datasets import Features
from hub import OTHER_TOKEN, TOKEN, Hub
from hub_layouts import LAYOUTS, TEXT, WHOLE, converted, plain, several, words

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


TOLD = {
    "alpaca": ["1 of 6 rows skipped", "the assistant says nothing"],
    "samsum": ["1 of 7 rows skipped", "row 5: text: is NoneType, not text"],
    "wmt16_en_de": ["1 of 8 rows skipped", "row 4: target: is empty"],
}
"""What is said of rows that the real data sets have, too."""

SMALL = ["model=scratch", *TINY["scratch"], *RECIPE]
FACE = "data.columns.text=sentence"


@pytest.mark.parametrize("name", hub_data())
def test_every_data_set_of_the_hub_is_read_as_its_yaml_says_and_trained_on(
    name: str, hub: Hub, xp: Callable[..., Ended]
) -> None:
    LAYOUTS[name](hub)
    settings = yaml.safe_load((ROOT / "conf" / "data" / f"{name}.yaml").read_text())
    (task,) = [each["override /task@_global_.task"] for each in settings["defaults"] if isinstance(each, dict)]
    model = MODELS.get(task, "scratch_bert")
    ended = xp(f"data={name}", f"model={model}", *TINY[model], *RECIPE, "training.max_steps=1")
    assert ended.code == 0, ended.said
    assert "step 1/1  loss" in ended.said
    for line in TOLD.get(name, []):
        assert line in ended.said


def test_every_layout_is_of_a_data_set() -> None:
    assert sorted(LAYOUTS) == hub_data()


def test_a_repository_is_trained_on_by_its_id_alone(hub: Hub, endpoint: str, tmp_path: Path) -> None:
    """In a process that nothing has prepared, as a user starts it."""
    LAYOUTS["sst2"](hub)
    told = ["data=hub", "data.path=stanfordnlp/sst2", FACE, "data.subset=default", "data.revision=main"]
    env = {"HF_ENDPOINT": endpoint, "HF_HOME": str(tmp_path / "home"), "HF_HUB_OFFLINE": "0", "NO_PROXY": "*"}
    ended = command(*told, *SMALL, folder=tmp_path, **env)
    assert ended.returncode == 0, ended.stderr
    assert "stanfordnlp/sst2/default@main: 6 train rows, 4 eval rows" in ended.stdout
    assert "step 2/2  loss" in ended.stdout


def test_a_stream_of_the_hub_is_trained_on(hub: Hub, xp: Callable[..., Ended]) -> None:
    LAYOUTS["sst2"](hub)
    ended = xp("data=sst2", "data.streaming=true", *SMALL)
    assert ended.code == 0, ended.said
    assert "rows read from the stream" in ended.said


WRONG_DATA = [
    (
        ["data.path=stanfordnlp/sst3"],
        "data.path=stanfordnlp/sst3: there is no such data set on the hub, or it is private: set HF_TOKEN. "
        "Did you mean 'stanfordnlp/sst2'?",
    ),
    (
        ["data.path=sst2"],
        "data.path=sst2: there is no such data set on the hub, or it is private: set HF_TOKEN. "
        "Did you mean 'stanfordnlp/sst2'?",
    ),
    (["data.path=./nowhere"], "data.path=./nowhere: there is no such folder"),
    (["data.path=some/where/else"], "data.path=some/where/else: there is no such folder"),
    (["data.path='no id'"], "data.path=no id: this is no id on the hub, which is <owner>/<name>"),
    (["data.path=some/empty"], "data.path=some/empty: there are no files in it that datasets can read"),
    (["data.path=some/broken"], "data.path=some/broken: its train split cannot be read: Parquet file size is 4 bytes"),
    (
        ["data.path=some/script"],
        "data.path=some/script: it holds a script, which datasets no longer runs; the hub's own copy in parquet "
        "may be there as data.revision=refs/convert/parquet",
    ),
    (
        ["data.path=some/script", "data.revision=refs/convert/parkett"],
        "data.revision=refs/convert/parkett: some/script has no such branch, tag or commit. "
        "Did you mean 'refs/convert/parquet'?",
    ),
    (["data.revision=v9"], "data.revision=v9: stanfordnlp/sst2 has no such branch, tag or commit. There is: main."),
    (["data.eval=validaton"], "data.eval=validaton: stanfordnlp/sst2 has no such split. Did you mean 'validation'?"),
    (
        ['data.train="trein[:50%]"'],
        "data.train=trein[:50%]: stanfordnlp/sst2 has no such split. Did you mean 'train'?",
    ),
    (
        ["data.path=nyu-mll/glue", "data.subset=mnl"],
        "data.subset=mnl: nyu-mll/glue has no such subset. Did you mean 'mnli'?",
    ),
    (["data.path=nyu-mll/glue"], "data.subset is not set, and nyu-mll/glue has several: cola, mnli, stsb"),
    (
        ["data.streaming=true", "data.train=trein"],
        "data.train=trein: stanfordnlp/sst2 has no such split. Did you mean 'train'?",
    ),
    (
        ["data.streaming=true", 'data.train="train[:4]"'],
        "data.train=train[:4]: a stream has no slices; use data.train=train and data.train_rows",
    ),
    (["data.streaming=true", "data.revision=v9"], "data.revision=v9: stanfordnlp/sst2 has no such branch"),
]


@pytest.fixture(scope="module")
def wrong(hub: Hub) -> None:
    """Repositories that something is amiss with."""
    for name in ("sst2", "mnli"):
        LAYOUTS[name](hub)
    converted(hub, "some/script", Features({"sentence": TEXT}), several(lambda at: {"sentence": words(at)}, train=2))
    hub.folder("datasets", "some/empty")
    for split in ("train", "validation"):
        (hub.folder("datasets", "some/broken") / f"{split}.parquet").write_bytes(b"junk")


@pytest.mark.parametrize(("overrides", "message"), WRONG_DATA)
def test_wrong_data_of_the_hub_is_one_line(
    overrides: list[str], message: str, wrong: None, xp: Callable[..., Ended]
) -> None:
    start = "train" if "data.streaming=true" in overrides else "show"  # Which reads no stream, and is quicker.
    ended = xp(f"command={start}", "data=hub", "data.path=stanfordnlp/sst2", FACE, *SMALL, *overrides)
    assert_refused(ended, message)


def assert_refused(ended: Ended, message: str) -> None:
    """One line, beside what a run says when it opens, and exit code 2."""
    assert ended.code == 2, ended.said
    lines = [line for line in ended.said.splitlines() if not line.startswith(("run ", "cpu, "))]
    assert len(lines) == 1, ended.said
    assert lines[0].startswith("xp: ")
    assert message in lines[0]


def test_a_gated_data_set_needs_a_token_with_the_right(hub: Hub, xp: Callable[..., Ended]) -> None:
    rows = several(lambda at: {"text": words(at), "label": at % 2}, train=4, validation=2)
    plain(hub, "some/secret", {"text": TEXT, "label": WHOLE}, rows)
    hub.gated.add("some/secret")
    asked = ["command=show", "data=hub", "data.path=some/secret"]
    start = "data.path=some/secret: this data set is gated"
    assert_refused(xp(*asked), f"{start}; ask for access at ")
    assert_refused(xp(*asked, HF_TOKEN=OTHER_TOKEN), f"{start}, and your token has no right to it; ask for it at ")
    ended = xp(*asked, HF_TOKEN=TOKEN)
    assert ended.code == 0, ended.said


def test_rows_of_another_revision_are_not_taken_from_the_cache(hub: Hub, xp: Callable[..., Ended]) -> None:
    """As datasets does when the revision that is asked for fails: here because it holds a script."""
    LAYOUTS["conll2003"](hub)
    assert xp("command=show", "data=conll2003").code == 0
    ended = xp("command=show", "data=conll2003", "data.revision=null")
    assert ended.code == 2, ended.said
    assert "data.revision=null: the cache has eriktks/conll2003 at another revision, " in ended.said
    assert "and the hub gives nothing that can be read at this one" in ended.said


@pytest.fixture(scope="module")
def model(hub: Hub, xp: Callable[..., Ended], tmp_path_factory: pytest.TempPathFactory) -> str:
    """A repository with a small classifier, which a run of xp has trained."""
    LAYOUTS["sst2"](hub)
    folder = tmp_path_factory.mktemp("trained")
    ended = xp("data=sst2", "model=scratch_bert", *TINY["scratch_bert"], *RECIPE, f"runs_folder={folder}")
    assert ended.code == 0, ended.said
    (made,) = folder.glob("*/model")
    shutil.copytree(made, hub.folder("models", "someone/classifier"), dirs_exist_ok=True)
    return "model.path=someone/classifier"


def test_a_model_of_the_hub_predicts_and_trains_on(model: str, hub: Hub, xp: Callable[..., Ended]) -> None:
    LAYOUTS["sst2"](hub)
    ended = xp("command=predict", "model=pretrained", model, "inputs=['a quick fox', 'a lazy dog']")
    assert ended.code == 0, ended.said
    assert "negative" in ended.said or "positive" in ended.said
    ended = xp("data=sst2", "model=pretrained", model, "model.revision=main", *RECIPE)
    assert ended.code == 0, ended.said
    assert "step 2/2  loss" in ended.said


WRONG_MODEL = [
    (
        ["model.path=someone/classifer"],
        "model.path=someone/classifer: there is no such folder here; as an id of the hub: there is no such model on "
        "the hub, or it is private: set HF_TOKEN. Did you mean 'someone/classifier'?",
    ),
    (
        ["model.revision=man"],
        "model.revision=man: someone/classifier has no such branch, tag or commit. Did you mean 'main'?",
    ),
    (
        ["model.path=someone/gated"],
        "model.path=someone/gated: there is no such folder here; as an id of the hub: this model is gated; ask for",
    ),
    (["model.path=someone/nothing"], "model.path=someone/nothing: "),
    (
        ["model.path=someone/remote"],
        "model.path=someone/remote: its repository wants to run its own code; read that code, then set",
    ),
]


@pytest.mark.parametrize(("overrides", "message"), WRONG_MODEL)
def test_a_wrong_model_of_the_hub_is_one_line(
    overrides: list[str], message: str, model: str, hub: Hub, xp: Callable[..., Ended], tmp_path: Path
) -> None:
    hub.gated.add("someone/gated")
    (hub.folder("models", "someone/gated") / "config.json").write_text("{}")
    hub.folder("models", "someone/nothing")
    remote = hub.folder("models", "someone/remote")
    (remote / "config.json").write_text(
        json.dumps({"model_type": "own", "auto_map": {"AutoConfig": "own.Own", "AutoModel": "own.Net"}})
    )
    (remote / "own.py").write_text(f"open({str(tmp_path / 'executed')!r}, 'w')\n")
    ended = xp("command=predict", "model=pretrained", model, "inputs=[a]", *overrides)
    assert_refused(ended, message)
    assert not (tmp_path / "executed").exists()
    assert not [each for each in hub.asked if "own.py" in each]


METRIC = """
import datasets
import evaluate


class Letters(evaluate.Metric):
    def _info(self):
        whole = datasets.Value("int64")
        features = datasets.Features({"predictions": whole, "references": whole})
        return evaluate.MetricInfo(description="", citation="", features=features)

    def _compute(self, predictions, references):
        return {"share": sum(a == b for a, b in zip(predictions, references)) / len(references)}
"""


def test_a_metric_of_the_hub_scores_by_its_id(hub: Hub, xp: Callable[..., Ended]) -> None:
    LAYOUTS["sst2"](hub)
    (hub.folder("spaces", "someone/letters") / "letters.py").write_text(METRIC)
    ended = xp("imports=[hub:someone/letters]", "data=sst2", "task.metrics=[accuracy,letters]", *SMALL)
    assert ended.code == 0, ended.said
    found = dict(re.findall(r"eval/(\w+)\s+(\d\.\d+)", ended.said))
    assert found["letters"] == found["accuracy"]
    ended = xp("imports=[hub:someone/letter]", "data=sst2", *SMALL)
    assert_refused(ended, "imports=hub:someone/letter: it is neither on the hub")


def test_without_the_hub_what_the_cache_has_is_used_and_all_else_is_one_line(
    hub: Hub, model: str, xp: Callable[..., Ended]
) -> None:
    """The libraries would ask for half a minute, file by file; here one connection is refused, and that is that."""
    LAYOUTS["sst2"](hub)
    LAYOUTS["conll2003"](hub)
    cached = (["data=sst2", "model=pretrained", model, *RECIPE], ["data=conll2003", "command=show"])
    for each in cached:
        ended = xp(*each)
        assert ended.code == 0, ended.said
    absent = "it is not in the cache, and the hub cannot be reached (no answer from http://127.0.0.1:"
    with hub.away():
        for each in cached:
            ended = xp(*each)
            assert ended.code == 0, ended.said
            assert "Retrying" not in ended.said
        path = "data.path=someone/else"
        assert_refused(xp("command=show", "data=hub", path), f"{path}: {absent}")
        assert_refused(xp("data=hub", path, "data.streaming=true", *SMALL), f"{path}: {absent}")
        wrong = xp("command=predict", "model=pretrained", "model.path=someone/else", "inputs=[a]")
        assert_refused(wrong, f"as an id of the hub: {absent}")
        ended = xp("data=conll2003", "data.revision=v2", "command=show")
        assert ended.code == 2, ended.said
        assert "data.revision=v2: the cache has eriktks/conll2003 at another revision, " in ended.said
