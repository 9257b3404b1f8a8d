"""Predicting: sorted and batched with the order restored, bad inputs reported without losing the others."""

from __future__ import annotations

import json
import re
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import command
from models import BERT, TAGS, build, words
from test_predict import TEXTS, asked, images, predicted, samples, sounds

from xp.config import compose, naming
from xp.error import UserError
from xp.prediction import engine
from xp.prediction.engine import Outcome
from xp.prediction.inputs import Item
from xp.report import brief
from xp.run import Run
from xp.task import Task

MANY = [" ".join(TEXTS[at % 4].split()[: 1 + at * 7 % 6]) for at in range(23)]


@pytest.fixture
def classifier(tmp_path: Path) -> str:
    return build("text_classification", tmp_path / "model")


def calls(monkeypatch: pytest.MonkeyPatch) -> list[list[dict[str, Any]]]:
    """The batches that go through the network from here on."""
    made: list[list[dict[str, Any]]] = []
    own = engine._run

    def noted(by: Any, ready: list[Any]) -> None:
        made.append([row for _, row in ready])
        own(by, ready)

    monkeypatch.setattr(engine, "_run", noted)
    return made


def test_batches_are_sorted_by_length_and_the_order_is_restored(
    classifier: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    batches = calls(monkeypatch)
    lines = predicted(tmp_path / "run", asked("text_classification", classifier, MANY, "prediction.batch_size=5"))
    assert [line["input"] for line in lines] == MANY
    lengths = [[len(row["text"].split()) for row in batch] for batch in batches]
    assert [len(batch) for batch in lengths] == [5, 5, 5, 5, 3]
    flat = [length for batch in lengths for length in batch]
    assert flat == sorted(flat, reverse=True)
    alone = predicted(tmp_path / "alone", asked("text_classification", classifier, MANY, "prediction.batch_size=1"))
    for one, other in zip(lines, alone, strict=True):
        assert one["output"]["label"] == other["output"]["label"]
        assert one["output"]["score"] == pytest.approx(other["output"]["score"], abs=1e-5)


def test_features_share_a_batch_only_without_padding(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    batches = calls(monkeypatch)
    model = build("feature_extraction", tmp_path / "model")
    lines = predicted(tmp_path / "run", asked("feature_extraction", model, MANY))
    assert {len({len(row["text"].split()) for row in batch}) for batch in batches} == {1}
    assert max(map(len, batches)) > 1
    for line in lines:
        assert np.load(tmp_path / "run" / line["output"]).shape == (1, len(line["input"].split()) + 2, 32)


def test_inputs_with_labels_of_their_own_are_told_apart(tmp_path: Path) -> None:
    model = build("zero_shot_classification", tmp_path / "model")
    labels = ["cat, dog", "hen", "cat, dog", "a, b, c"]
    given = [{"text": text, "candidate_labels": own} for text, own in zip(TEXTS, labels, strict=True)]
    lines = predicted(tmp_path / "run", asked("zero_shot_classification", model, given))
    assert [", ".join(sorted(line["output"]["labels"])) for line in lines] == labels


def test_unreadable_images_are_reported_with_their_place_and_the_others_are_kept(tmp_path: Path) -> None:
    model = build("object_detection", tmp_path / "model")
    paths = images(tmp_path)
    (tmp_path / "broken.png").write_bytes(b"no image")
    whole = Path(paths[0]).read_bytes()
    (tmp_path / "half.png").write_bytes(whole[: len(whole) // 2])
    given = [paths[0], str(tmp_path / "broken.png"), paths[1], str(tmp_path / "half.png"), "absent.png", paths[2]]
    lines = predicted(tmp_path / "run", asked("object_detection", model, given, "task.threshold=0.0"))
    assert ["error" in line for line in lines] == [False, True, False, True, True, False]
    assert "broken.png cannot be read" in lines[1]["error"]
    assert "half.png cannot be read" in lines[3]["error"]
    assert lines[4] == {"position": 4, "input": "absent.png", "error": "image: there is no file absent.png"}
    good = predicted(tmp_path / "good", asked("object_detection", model, paths, "task.threshold=0.0"))
    assert [line["output"] for line in lines if "output" in line] == [line["output"] for line in good]


def test_an_input_that_the_model_fails_on_is_found_within_its_batch(tmp_path: Path) -> None:
    model = build("masked_lm", tmp_path / "model")
    given = [f"{text} [MASK]" for text in TEXTS] + ["no mask in here"]
    run = asked("masked_lm", model, given, "prediction.batch_size=8")
    lines = predicted(tmp_path / "run", run)
    assert ["error" in line for line in lines] == [False] * 4 + [True]
    assert "No mask_token" in lines[4]["error"]


def test_a_failing_batch_is_halved_down_to_what_fails() -> None:
    tried: list[int] = []

    class Picky:
        def call(self, rows: list[dict[str, Any]]) -> list[Any]:
            tried.append(len(rows))
            if any(row["text"] == "bad" for row in rows):
                raise RuntimeError("it  is\nbad")
            return [row["text"].upper() for row in rows]

    ready = [
        (Outcome(Item(at, text)), {"text": text}) for at, text in enumerate(["a", "b", "bad", "c", "d", "e", "f", "g"])
    ]
    engine._run(Picky(), ready)  # type: ignore[arg-type]
    assert [outcome.output for outcome, _ in ready] == ["A", "B", None, "C", "D", "E", "F", "G"]
    assert ready[2][0].error == "RuntimeError: it is bad"
    assert tried == [8, 4, 2, 2, 1, 1, 4]


def test_an_overlong_text_is_cut_as_the_task_says_and_told(classifier: str, tmp_path: Path, capsys: Any) -> None:
    long = " ".join(["cat"] * 100)
    lines = predicted(tmp_path / "cut", asked("text_classification", classifier, ["a cat", long]))
    assert lines[1]["truncated"] is True
    assert "truncated" not in lines[0]
    same = predicted(tmp_path / "same", asked("text_classification", classifier, [" ".join(["cat"] * 62)]))
    assert lines[1]["output"] == pytest.approx(same[0]["output"])
    assert "truncated: 1 of 2 inputs" in capsys.readouterr().out
    lines = predicted(
        tmp_path / "bad", asked("text_classification", classifier, ["a cat", long], "task.overlong=error")
    )
    assert (
        lines[1]["error"] == "it has 102 tokens, and the model takes 64; shorten it, or choose task.overlong=truncate"
    )
    assert "output" in lines[0]


@pytest.mark.parametrize("kind", ["feature_extraction", "zero_shot_classification"])
def test_an_overlong_text_is_refused_where_pipelines_cut_it_in_silence_or_fail(kind: str, tmp_path: Path) -> None:
    model = build(kind, tmp_path / "model")
    overrides = ("task.candidate_labels=[cat,dog]",) if kind == "zero_shot_classification" else ()
    given = ["a cat", " ".join(["cat"] * 100)]
    lines = predicted(tmp_path / "run", asked(kind, model, given, *overrides))
    assert re.fullmatch(r"it has 1\d\d tokens, and the model takes 64; shorten it", lines[1]["error"])
    assert "output" in lines[0]


def test_a_prompt_leaves_room_for_what_is_written(tmp_path: Path) -> None:
    model = build("causal_lm", tmp_path / "model")
    run = asked("causal_lm", model, ["the cat", "x" * 250], "generation.max_new_tokens=8")
    lines = predicted(tmp_path / "run", run)
    assert "generation.max_new_tokens=8 leaves 248" in lines[1]["error"]
    assert lines[0]["output"][0]["generated_text"].startswith("the cat")


def test_sampling_is_repeated_by_the_seed(tmp_path: Path) -> None:
    model = build("causal_lm", tmp_path / "model")
    sampled = ["generation=sample", "generation.max_new_tokens=8"]
    first, second, other = (
        predicted(tmp_path / f"run{at}", asked("causal_lm", model, TEXTS, *sampled, f"seed={seed}"))
        for at, seed in enumerate((1, 1, 2))
    )
    assert first == second != other


def test_a_sound_at_another_rate_gives_what_it_gives_at_the_models(tmp_path: Path) -> None:
    import soundfile

    model = build("automatic_speech_recognition", tmp_path / "model")
    (path, *_) = sounds(tmp_path)
    soundfile.write(tmp_path / "stereo.wav", np.stack([samples(path)] * 2, 1), 16000, subtype="FLOAT")
    lines = predicted(
        tmp_path / "run", asked("automatic_speech_recognition", model, [path, str(tmp_path / "stereo.wav")])
    )
    assert lines[0]["output"] == lines[1]["output"]


def test_a_model_without_a_trained_head_is_refused_in_one_line(tmp_path: Path) -> None:
    model = build("feature_extraction", tmp_path / "model")
    with pytest.raises(UserError, match="it has no trained head for this task") as caught:
        predicted(tmp_path / "run", asked("text_classification", model, ["a"]))
    assert "\n" not in str(caught.value)


def test_an_encoder_without_its_pooler_still_gives_features(tmp_path: Path) -> None:
    model = build("masked_lm", tmp_path / "model")  # Which is saved without one.
    assert predicted(tmp_path / "run", asked("feature_extraction", model, ["a cat"]))[0]["output"].endswith(".npy")


def test_labels_of_a_models_own_survive(tmp_path: Path) -> None:
    from transformers import BertConfig, BertForTokenClassification

    torch.manual_seed(0)
    for part in (words(tmp_path / "model"), BertForTokenClassification(BertConfig(**BERT, **TAGS))):
        part.save_pretrained(tmp_path / "model")
    lines = predicted(tmp_path / "run", asked("token_classification", str(tmp_path / "model"), TEXTS))
    assert {entity["entity_group"] for line in lines for entity in line["output"]} <= {"PER"}


def test_an_architecture_without_the_task_is_refused(tmp_path: Path) -> None:
    model = build("causal_lm", tmp_path / "model")
    with pytest.raises(UserError, match="transformers has no AutoModelForObjectDetection for this architecture"):
        predicted(tmp_path / "run", asked("object_detection", model, images(tmp_path)))


def test_bf16_is_refused_or_left_where_a_pipeline_cannot_read_it(tmp_path: Path) -> None:
    model = build("depth_estimation", tmp_path / "model")
    with pytest.raises(UserError, match="precision=bf16: the pipeline of task=depth_estimation cannot read it"):
        predicted(tmp_path / "run", asked("depth_estimation", model, images(tmp_path), "precision=bf16"))
    assert (
        "output"
        in predicted(tmp_path / "auto", asked("depth_estimation", model, images(tmp_path), "precision=auto"))[0]
    )


def test_an_adapter_predicts_what_the_pipeline_gives_with_it(tmp_path: Path) -> None:
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForSequenceClassification, AutoTokenizer, pipeline

    base = build("text_classification", tmp_path / "model")
    torch.manual_seed(1)
    network = AutoModelForSequenceClassification.from_pretrained(base)
    adapted = get_peft_model(
        network, LoraConfig(task_type="SEQ_CLS", target_modules=["query"], init_lora_weights=False)
    )
    adapted.save_pretrained(tmp_path / "adapter")
    network.config.save_pretrained(tmp_path / "adapter")
    AutoTokenizer.from_pretrained(base).save_pretrained(tmp_path / "adapter")
    lines = predicted(tmp_path / "run", asked("text_classification", str(tmp_path / "adapter"), TEXTS))
    made = pipeline(
        "text-classification", model=adapted.eval(), tokenizer=AutoTokenizer.from_pretrained(base), device="cpu"
    )
    plain = predicted(tmp_path / "plain", asked("text_classification", base, TEXTS))
    for line, without, text in zip(lines, plain, TEXTS, strict=True):
        assert line["output"] == pytest.approx(made([text])[0], abs=1e-5)
        assert line["output"]["score"] != without["output"]["score"]


@pytest.mark.parametrize(
    ("typed", "name"),
    [
        ("sentiment-analysis", "text_classification"),
        ("text-generation", "causal_lm"),
        ("text-to-speech", "text_to_audio"),
        ("vqa", "visual_question_answering"),
        ("zero-shot-object-detection", "zero_shot_object_detection"),
    ],
)
def test_tasks_have_transformers_names_too(typed: str, name: str, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.chdir(tmp_path)
    compose.initialize(None)
    assert Run.parse(compose.values([f"task={typed}", "command=predict", "inputs=x"])).task.name == name


def test_every_alias_of_transformers_is_known() -> None:
    from transformers.pipelines import REMOVED_TASKS, SUPPORTED_TASKS, TASK_ALIASES

    for alias, own in TASK_ALIASES.items():
        assert naming.task_name(alias) == naming.task_name(own)
    named = {naming.task_name(name) for name in (*SUPPORTED_TASKS, *REMOVED_TASKS, "image-to-text")}
    trained_elsewhere = {"question_answering", "summarization", "translation", "text2text_generation"}
    assert named - trained_elsewhere <= set(Task.all())


def test_tasks_are_listed_with_what_they_take_and_give() -> None:
    rows = {row["task"]: row for row in compose.tasks(None)}
    assert set(rows) == {file.stem for file in (compose.conf_folder() / "task").glob("*.yaml")}
    assert rows["text_classification"]["other names"] == "sentiment_analysis"
    assert rows["text_classification"]["trains"] == "yes"
    assert rows["object_detection"]["trains"] == ""
    assert all(row["takes"] and row["gives"] for row in rows.values())


def test_the_list_of_tasks_needs_no_torch(tmp_path: Path) -> None:
    import subprocess
    import sys

    script = (
        "import sys; sys.argv = ['xp', 'command=tasks']\n"
        "from xp.__main__ import main\n"
        "assert main() == 0\n"
        "print([name for name in ('torch', 'transformers', 'mlflow') if name in sys.modules])"
    )
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=tmp_path)
    assert ended.stdout.splitlines()[-1] == "[]"
    assert "zero_shot_object_detection" in ended.stdout


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["command=predict"], "inputs has no value; give inputs=<a text, a list, or a file>"),
        (["inputs=x"], "inputs: command=train has rows, from data; use command=predict"),
        (["task=object_detection"], "task=object_detection: it can only predict; use command=predict"),
        (["task=objct_detection"], "Did you mean 'object_detection'?"),
        (["task.prediction.topk=1"], "task.prediction.topk: there is no such key. Did you mean 'top_k'?"),
        (["prediction.batchsize=1"], "prediction.batchsize: there is no such key. Did you mean 'batch_size'?"),
        (["+prediction.batchsize=1"], "prediction.batchsize: there is no such key. Did you mean 'batch_size'?"),
        (["prediction.batch_size=0"], "prediction.batch_size=0: it must be greater than 0."),
        (["task=object_detection", "command=predict", "inputs=x", "task.threshold=2"], "task.threshold=2"),
    ],
)
def test_what_is_wrong_is_said_at_once(overrides: list[str], message: str, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.chdir(tmp_path)
    compose.initialize(None)
    with pytest.raises(UserError) as caught:
        Run.parse(compose.values(overrides))
    assert message in str(caught.value)


def test_long_outputs_are_cut_with_a_mark() -> None:
    assert brief([{"generated_text": "a" * 200}]) == "a" * 99 + "…"
    assert brief({"label": "cat", "score": 0.98765}) == "cat 0.9877"
    assert brief([{"score": 0.5, "label": "a"}, {"score": 0.25, "label": "b"}]) == "a 0.5000, b 0.2500"
    assert brief({"labels": ["a"], "scores": [1.0]}) == '{"labels": ["a"], "scores": [1.0]}'


def test_a_run_without_any_prediction_fails(classifier: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="none of the 2 inputs has a prediction; input 0: text: is empty"):
        predicted(tmp_path / "run", asked("text_classification", classifier, ["", " "]))
    assert len((tmp_path / "run" / "predictions.jsonl").read_text().splitlines()) == 2


@pytest.mark.parametrize("number", [1, 30])
def test_why_inputs_have_no_prediction_is_told_once(
    number: int, classifier: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """As many as fit on a screen; all of them are in the file."""
    for name, more in (("some", ["a cat"]), ("none", [])):
        inputs = [f"{' ' * at}" for at in range(number)] + more
        end = pytest.raises(UserError) if not more else nullcontext()
        with end as caught:
            predicted(tmp_path / name, asked("text_classification", classifier, inputs))
        printed = capsys.readouterr().out
        told = [f"input {at}: text: is empty" for at in range(number)]
        own = [line.removeprefix("failed   ") for line in printed.splitlines() if line.startswith("failed   ")]
        if not more:
            assert str(caught.value).endswith(told.pop(0))
        assert own[:20] == told[:20]
        rest = [f"… and {len(told) - 20} more; see {tmp_path / name / 'predictions.jsonl'}"]
        assert own[20:] == (rest if len(told) > 20 else [])
        assert printed.count("is empty") == min(20, len(told))
        lines = [json.loads(line) for line in (tmp_path / name / "predictions.jsonl").read_text().splitlines()]
        assert [line.get("error") for line in lines] == ["text: is empty"] * number + [None] * len(more)


def test_the_command_ends_with_1_if_some_inputs_failed(classifier: str, tmp_path: Path) -> None:
    """And leaves the predictions in the run's folder, in MLflow, and where else they are wanted."""
    (tmp_path / "texts.txt").write_text("a cat\n\nthe hen\n")
    shared = ["command=predict", "task=sentiment-analysis", "model=pretrained", f"model.path={classifier}"]
    some = command(*shared, "inputs=texts.txt", "prediction.output=copy.jsonl", folder=tmp_path)
    assert some.returncode == 1, some.stderr
    assert "input 1 (texts.txt:2): text: is empty" in some.stdout
    lines = [json.loads(line) for line in (tmp_path / "copy.jsonl").read_text().splitlines()]
    assert [sorted(line) for line in lines] == [
        ["input", "output", "place", "position"],
        ["error", "input", "place", "position"],
        ["input", "output", "place", "position"],
    ]
    (folder,) = [file.parent for file in (tmp_path / "runs").glob("*/predictions.jsonl")]
    assert (folder / "predictions.jsonl").read_text() == (tmp_path / "copy.jsonl").read_text()
    result = json.loads((folder / "result.json").read_text())
    assert result["failed"] == 1
    assert result["metrics"]["predict/items"] == 3
    assert result["metrics"]["predict/items_per_second"] > 0
    tracked(tmp_path, result["run_id"])


def tracked(folder: Path, run_id: str) -> None:
    """The tracked run holds the metrics, the predictions and a table of them."""
    from mlflow import MlflowClient

    client = MlflowClient(f"sqlite:///{folder}/runs/mlflow.db")
    run = client.get_run(run_id)
    assert run.info.status == "FINISHED"
    assert run.data.metrics["predict/failed"] == 1
    assert {each.path for each in client.list_artifacts(run_id)} >= {
        "predictions.jsonl",
        "predictions.json",
        "run.yaml",
    }
    table = json.loads(Path(client.download_artifacts(run_id, "predictions.json")).read_text())
    column = table["columns"].index("error")
    assert [row[column] for row in table["data"]] == ["", "text: is empty", ""]
