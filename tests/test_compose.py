"""Configs: every yaml composes into its class, and what is wrong is said in one line."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from conftest import ROOT, command

from xp.component import Component
from xp.config import compose
from xp.error import UserError, nearest
from xp.run import Backend, Data, Generation, Model, Peft, Run, Task

KINDS: dict[str, type[Component]] = {
    "model": Model,
    "data": Data,
    "task": Task,
    "backend": Backend,
    "peft": Peft,
    "generation": Generation,
}
YAMLS = sorted(path.relative_to(ROOT / "conf").with_suffix("").as_posix() for path in (ROOT / "conf").glob("*/*.yaml"))
NEEDED = {
    "model/pretrained": ["model.path=x/pretrained"],  # Runs are named after the path.
    "tracking/server": ["tracking.uri=http://x"],
    "data/hub": ["data.path=x"],
    "data/saved": ["data.path=x"],
    "peft/any": ["peft.type=VERA"],
    "peft/trainable_tokens": ["peft.options.token_indices=[3]"],
    "data/mixture": ["+data@data.sources.a=stdlib_code"],
}


@pytest.fixture(autouse=True)
def _initialized(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    compose.initialize(None)


def parse(*overrides: str) -> Run:
    return Run.parse(compose.values(list(overrides)))


@pytest.mark.parametrize("name", YAMLS)
def test_every_yaml_composes_into_a_run(name: str) -> None:
    """Which it does only if it states each field of its class, and no other."""
    group, _, choice = name.partition("/")
    # Every task can predict, but not every one can train.
    needed = ["command=predict", "inputs=x"] if group == "task" else NEEDED.get(name, [])
    assert parse(f"{group}={choice}", *needed).choices[group] == choice


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("org/distil.bert-base_v2", "distil.bert-base_v2"),
        ("gpt2", "gpt2"),
        ("org/model", "org"),
        ("out/bert/checkpoint-500", "bert-checkpoint-500"),
        ("cache/models--org--tiny/snapshots/" + "0a" * 20, "tiny"),
        ("my--own/final/", "my--own"),
        ("mlflow:0123456789abcdef", "mlflow-01234567"),
        ("a b/../c: d*e", "c-d-e"),
        ("-x", "x"),
        ("o" * 300, "o" * 40),
        ("bundled", "bundled"),
        ("..", "minilm"),
        ("sentence-transformers/all-MiniLM-L6-v2", "minilm"),
    ],
)
def test_a_model_is_called_after_a_path_that_its_yaml_does_not_state(path: str, name: str) -> None:
    assert parse("model=minilm").choices["model"] == "minilm"
    place = Path("/") if path == ".." else Path.cwd()
    os.chdir(place)
    assert compose.values(["model=minilm", f"model.path='{path}'"])["choices"]["model"] == name


def test_a_model_of_a_run_is_called_after_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    """But not after all that this run went on from."""
    model = Path("runs/tiny-facade-97a977/model")
    model.mkdir(parents=True)
    other = Path("tiny-facade-97a977/model")
    other.mkdir(parents=True)
    (model.parent / "run.yaml").write_text("{}")
    assert parse(f"model.path={model}").choices["model"] == "tiny-97a977"
    assert parse(f"model.path={other}").choices["model"] == "tiny-facade-97a977"
    monkeypatch.chdir(model)
    assert parse("model.path=.").choices["model"] == "tiny-97a977"


def test_a_yaml_based_on_another_keeps_its_own_name() -> None:
    Path("conf/model").mkdir(parents=True)
    Path("conf/model/mine.yaml").write_text("defaults:\n  - minilm\n  - _self_\ndtype: float32\n")
    compose.initialize(None)
    assert parse("model=mine").choices["model"] == "mine"
    assert parse("model=mine", "model.path=org/yours").choices["model"] == "yours"


def test_the_root_states_exactly_the_runs_fields() -> None:
    assert sorted(compose.values([])) == sorted(Run.model_fields)


def test_every_component_has_a_yaml() -> None:
    for group, kind in KINDS.items():
        stated = [yaml.safe_load(file.read_text()) for file in (ROOT / "conf" / group).glob("*.yaml")]
        assert {each["name"] for each in stated if "name" in each} == {
            name
            for name, each in kind.all().items()
            if each.__module__.startswith("xp.")  # Not those of other tests.
        }


def test_experiments_begin_with_the_command_that_runs_them() -> None:
    for file in (ROOT / "conf" / "experiment").glob("*.yaml"):
        assert f"experiment={file.stem}" in "".join(file.read_text().splitlines()[:2])


def test_data_chooses_its_task_and_the_command_line_has_the_last_word() -> None:
    assert parse("data=stdlib_code").task.name == "causal_lm"
    assert parse("data=stdlib_code", "task=causal_lm").task.name == "causal_lm"
    assert parse("data=files", "task=causal_lm").task.name == "causal_lm"


def test_a_model_chooses_its_recipe_and_the_command_line_has_the_last_word() -> None:
    assert parse().training.learning_rate == 1.5e-3
    assert parse("model=distilbert").training.learning_rate == 5e-5
    assert parse("training=default").training.learning_rate == 5e-5


def test_a_second_component_of_a_name_is_refused() -> None:
    with pytest.raises(TypeError, match="lora"):

        class Again(Peft, name="lora"):
            """Not another one."""


def test_digest_is_of_what_decides_the_outcome() -> None:
    assert parse("runs_folder=elsewhere").digest() == parse().digest()
    assert parse("seed=1").digest() != parse().digest()


def test_a_frozen_run_reads_back_equal(tmp_path: Path) -> None:
    run = parse("peft=lora", "training.optimizer_options.betas=[0.9,0.95]")
    run.write(tmp_path / "run.yaml")
    assert Run.read(tmp_path / "run.yaml") == run


WRONG = [
    (["model=bundle"], "model=bundle: there is no such model. Did you mean 'bundled'?"),
    (["mdoel=bundled"], "mdoel: there is no such key. Did you mean 'model'?"),
    (["+mdoel=bundled"], "mdoel: there is no such key. Did you mean 'model'?"),
    (["training.lr=1"], "training.lr: there is no such key. Did you mean 'learning_rate'?"),
    (["+training.lr=1"], "training.lr: there is no such key. Did you mean 'learning_rate'?"),
    (["training.num_train_epochs=1"], "Did you mean 'epochs'?"),
    (["+peft.rnk=1", "peft=lora"], "peft.rnk: there is no such key. Did you mean 'rank'?"),
    (
        ["peft.rank=8"],
        "peft.rank: the chosen peft has no such key; peft=lora has it",
    ),
    (["backend.name=troch"], "backend.name=troch: there is no such backend. Did you mean 'torch'?"),
    (["training.batch_size=0"], "training.batch_size=0: it must be greater than 0."),
    (["training.batch_size=many"], 'training.batch_size="many": it must be an integer.'),
    (["training.batch_size=true"], "training.batch_size=true: it must be an integer."),
    (["training.learning_rate=.nan"], "training.learning_rate"),
    (["training.learning_rate=inf"], "training.learning_rate"),
    (["training.schedule=linaer"], "Did you mean 'linear'?"),
    (["training.max_steps=5"], "training.epochs and max_steps: exactly one"),
    (["training.batching=packed"], "training.batching=packed: rows of task=text_classification cannot share"),
    (["backend.processes=2"], "backend.processes=2: torch trains in one process"),
    (["peft=lora", "peft.rank=8.5"], "peft.rank=8.5: it must be an integer."),
    (["peft=lora", "peft.dropout=1"], "peft.dropout=1: it must be less than 1."),
    (["command=trian"], "Did you mean 'train'?"),
    (["seed=-1"], "seed=-1"),
    (
        ["task=zero_shot_classification", "command=predict", "inputs=x", "task.hypothesis_template=About."],
        "it must have just one place for a label, as in: This example is {}.",
    ),
    (["model.config=[1]"], "model.config: a list stands where there is a mapping"),
    (["model=pretrained"], "model.path has no value; give model.path=<value>"),
    (["data.columns.txt=x"], "data.columns.txt: no task reads such a column. Did you mean 'text'?"),
    (["training.lr=[1"], "this does not parse"),
    (["~model"], "model: has no value"),
    (["~training.batch_size"], "training.batch_size: has no value"),
    (["seed=${nowhere}"], "nowhere"),
    (["seed=${seed}"], "seed"),
    (["hydra.run.dir=/tmp"], "hydra.run.dir: this part of Hydra's config is closed."),
    (["+hydra.callbacks.x._target_=os.system"], "closed"),
    (["hydra.job_logging.root.level=DEBUG"], "closed"),
    (["choices.model=x"], "choices"),
    (["training.schedule=constant"], "training.warmup=0.1: schedule=constant has none; set it to 0"),
    (["training.schedule=warmup_stable_decay"], "training.schedule_options.num_decay_steps has no value"),
    (["training.metric=f1"], "training.metric=f1: the task has no such metric. There is: accuracy, f1_macro, loss."),
    (["tracking.uri=file:runs"], "give sqlite:///<file> or http://<server>"),
    (
        ["task=zero_shot_classification", "command=predict", "inputs=x", "task.hypothesis_template=About."],
        'task.hypothesis_template="About.": it must have just one place for a label',
    ),
    (["peft=lora", "peft.target_modules='['"], 'peft.target_modules="[": this is no regular expression: '),
    (["peft=lora", "peft.target_modules=[]"], "peft.target_modules=[]: give names of layers, a regular expression"),
    (["command=evaluate", "backend=hf", "backend.processes=2"], "command=evaluate runs in one process"),
    (["peft=[lora,dora]"], "peft: it takes one choice and no list; give peft=<choice>, or sweep with -m"),
    (["task=[causal_lm]"], "task: it takes one choice and no list; give task=<choice>, or sweep with -m"),
    (
        ["data=stdlib_docstrings", "model.quantization=int8"],
        "model.quantization: the chosen model has no such key; model=pretrained has it",
    ),
    (["+backend=[hf]"], "backend: it takes one choice and no list; give backend=<choice>, or sweep with -m"),
    (["model=[bundled]"], "model: it takes one choice and no list; give model=<choice>, or sweep with -m"),
]


@pytest.mark.parametrize(
    ("overrides", "message"), WRONG, ids=lambda value: " ".join(value) if type(value) is list else ""
)
def test_a_wrong_config_is_one_line_with_the_key_and_the_nearest_word(overrides: list[str], message: str) -> None:
    with pytest.raises(UserError) as caught:
        parse(*overrides)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "overrides",
    [["model=bundle"], ["training.lr=1"], ["training.batch_size=0"], ["-m", "seed=1,x"], ["-m", "backend=hf,x"]],
)
def test_a_wrong_config_ends_with_2_before_torch_and_leaves_nothing(overrides: list[str], tmp_path: Path) -> None:
    script = (
        "import sys; from xp.__main__ import main; code = main(); "
        "heavy = {'torch', 'transformers', 'datasets', 'mlflow', 'numpy', 'peft', 'accelerate'} & set(sys.modules); "
        "print(code, sorted(heavy))"
    )
    ended = subprocess.run(
        [sys.executable, "-c", script, *overrides],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        check=False,
    )
    assert ended.stdout.strip() == "2 []"
    assert ended.stderr.startswith("xp: ")
    assert ended.stderr.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_what_is_not_chosen_is_not_imported(tmp_path: Path) -> None:
    code = "import sys; from xp.__main__ import main; sys.argv = ['xp', 'training.batch_size=0']; main(); "
    code += "print(*sys.modules)"
    answer = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
    imported = set(answer.stdout.split())
    assert {"xp.task.text_classification", "xp.data.standard_library"} <= imported
    assert not imported & {"xp.task.chat", "xp.task.audio", "xp.data.files", "xp.backend.hf", "xp.model.scratch"}


def test_help_and_cfg_answer_without_torch(tmp_path: Path) -> None:
    for arguments in (["--help"], ["--shell-completion", "install=bash"], ["--info", "defaults"]):
        ended = command(*arguments, folder=tmp_path)
        assert (ended.returncode, ended.stderr) == (0, "")
    ended = command("--cfg", "job", folder=tmp_path, PYTHONPROFILEIMPORTTIME="1")
    imported = {line.rpartition("|")[2].strip() for line in ended.stderr.splitlines()}
    assert not imported & {"torch", "transformers", "numpy", "pydantic"}
    assert "batch_size: 32" in ended.stdout


@pytest.mark.parametrize(
    ("typed", "offered"),
    [
        ("xp backend=", "backend=accelerate backend=hf backend=torch"),
        ("xp training.learn", "training.learning_rate="),
        ("xp peft=lora peft.r", "peft.rank="),
    ],
)
def test_the_shell_completes_groups_choices_and_keys(typed: str, offered: str, tmp_path: Path) -> None:
    """Through bash's own completion, as after ``eval "$(xp --shell-completion install=bash)"``."""
    (tmp_path / "xp").write_text(f'#!/bin/sh\nexec {sys.executable} -m xp "$@"\n')
    (tmp_path / "xp").chmod(0o755)
    script = command("--shell-completion", "install=bash", folder=tmp_path).stdout
    words = " ".join(f"'{word}'" for word in typed.split())
    asked = f"COMP_LINE='{typed}'; COMP_POINT={len(typed)}; COMP_WORDS=({words}); COMP_CWORD={len(typed.split()) - 1}"
    ended = subprocess.run(
        ["bash", "-c", f"{script}\n{asked}\nhydra_bash_completion\necho ${{COMPREPLY[*]}}"],
        env=os.environ | {"PATH": f"{tmp_path}:{os.environ['PATH']}", "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.stdout.split() == offered.split(), ended.stderr


def test_cfg_shows_what_was_asked_and_its_mistakes_are_one_line(tmp_path: Path) -> None:
    shown = command("--cfg", "job", "data.columns.text=sentence", "-p", "data.columns", folder=tmp_path)
    assert yaml.safe_load(shown.stdout) == {"text": "sentence"}
    for wrong in (["training.lr=1"], ["model=bundle"], ["-p", "trainin"]):
        ended = command("--cfg", "job", *wrong, folder=tmp_path)
        assert (ended.returncode, ended.stderr.count("\n")) == (2, 1), ended.stderr


def test_help_shows_every_group_and_choice(tmp_path: Path) -> None:
    (tmp_path / "conf" / "peft").mkdir(parents=True)
    (tmp_path / "conf" / "peft" / "mine.yaml").write_text("name: none\n")
    shown = command("--help", folder=tmp_path).stdout
    for name in [*YAMLS, "peft/mine"]:
        group, _, choice = name.partition("/")
        assert any(line.split()[:1] == [group] and choice in line for line in shown.splitlines())


@pytest.mark.parametrize("flag", ["current folder", "--config-dir"])
def test_ones_own_configs_are_found(flag: str, tmp_path: Path) -> None:
    folder = tmp_path / ("conf" if flag == "current folder" else "mine") / "training"
    folder.mkdir(parents=True)
    default = (ROOT / "conf" / "training" / "default.yaml").read_text()
    (folder / "quick.yaml").write_text(default.replace("epochs: 3", "epochs: 0.5"))
    directory = None if flag == "current folder" else str(folder.parent)
    compose.initialize(directory)
    assert Run.parse(compose.values(["training=quick"], directory)).training.epochs == 0.5


@pytest.mark.parametrize(
    "body",
    [
        "hydra: {callbacks: {x: {_target_: os.system, command: touch owned}}}",
        "hydra: {job_logging: {handlers: {x: {'()': os.system, command: touch owned}}}}",
        "hydra: {hydra_logging: {formatters: {x: {'()': os.system}}}}",
        "hydra: {launcher: {_target_: os.system, command: touch owned}}",
        "hydra: {sweeper: {_target_: os.system}}",
        "hydra: {launcher: {slots: {_target_: os.system, command: touch owned}}}",
        "hydra: {sweeper: {params: {seed: {_target_: os.system, command: touch owned}}}}",
        "hydra: {sweeper: {max_batch_size: {_target_: pandas.read_pickle, filepath_or_buffer: x}}}",
        "seed: {_target_: os.system, command: touch owned}",
    ],
)
@pytest.mark.parametrize("sweep", [False, True])
def test_a_config_cannot_execute_code(body: str, sweep: bool, tmp_path: Path) -> None:
    folder = tmp_path / "conf" / "experiment"
    folder.mkdir(parents=True)
    (folder / "bad.yaml").write_text(f"# @package _global_\n{body}\n")
    ended = command(*(["-m"] if sweep else []), "experiment=bad", folder=tmp_path)
    assert (ended.returncode, ended.stderr.count("\n")) == (2, 1), ended.stderr
    assert not (tmp_path / "owned").exists()
    assert not (tmp_path / "runs").exists()


def test_a_yaml_that_does_not_parse_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "conf" / "training").mkdir(parents=True)
    (tmp_path / "conf" / "training" / "broken.yaml").write_text("epochs: [1\n")
    compose.initialize(None)
    with pytest.raises(UserError, match=r"broken\.yaml"):
        compose.values(["training=broken"])


@pytest.mark.parametrize(
    ("word", "words", "hint"),
    [
        ("lroa", ["lora", "none"], "lora"),
        ("wd", ["weight_decay", "warmup"], "weight_decay"),
        ("per_device_train_batch_size", ["batch_size", "batching"], "batch_size"),
        ("rate", ["learning_rate", "epochs"], "learning_rate"),
    ],
)
def test_nearest(word: str, words: list[str], hint: str) -> None:
    assert nearest(word, words) == f" Did you mean '{hint}'?"


def test_nearest_lists_what_there_is_where_nothing_is_near() -> None:
    assert nearest("qqqq", ["lora", "none"]) == " There is: lora, none."
