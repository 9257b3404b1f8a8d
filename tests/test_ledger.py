"""Which runs there have been of a config: what makes two the same, and who may do one."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import pytest
from conftest import rows, write_rows

from xp.ledger import Claim, digest
from xp.ledger import identity as identity_of
from xp.process import lock

Compose = Callable[..., Any]
SETTINGS = {"seed": 1}


def identity(run: Any) -> str:
    return identity_of(run.values())


def test_where_it_is_kept_and_tracked_does_not_make_it_another(compose: Compose) -> None:
    same = compose("tracking.experiment=x", "runs_folder=elsewhere", "cache=false", "sweep.retry=5", "sweep.skip=false")
    assert identity(same) == identity(compose())


@pytest.mark.parametrize(
    "override", ["seed=1", "backend=hf", "training.max_steps=7", "training.workers=1", "peft=lora"]
)
def test_any_other_setting_does(override: str, compose: Compose) -> None:
    assert identity(compose(override)) != identity(compose())


@pytest.mark.parametrize("side", ["train", "eval"])
def test_rows_that_have_changed_under_the_same_name_make_it_another(side: str, compose: Compose, corpus: Path) -> None:
    before = identity(compose())
    file = corpus / f"{side}.jsonl"
    content = file.read_bytes()
    time = file.stat().st_mtime_ns
    file.write_bytes(content.replace(b"cat", b"cow"))
    os.utime(file, ns=(time + 1, time + 1))
    assert identity(compose()) != before
    file.write_bytes(content)  # The same again, at another time.
    assert identity(compose()) == before


def test_files_of_lists_and_of_mixtures_count(compose: Compose, corpus: Path) -> None:
    write_rows(corpus / "more.jsonl", rows(5))
    mixed = ["data=mixture", "+data@data.sources.a=files", "data.sources.a.train=more.jsonl",
             "data.sources.a.eval=eval.jsonl", "task=causal_lm"]  # fmt: skip
    settings = [["data.train=[train.jsonl,more.jsonl]"], mixed]

    def identities() -> list[str]:
        from xp.config import compose as composing
        from xp.run import Run

        return [identity(compose(*settings[0])), identity(Run.parse(composing.values(settings[1])))]

    before = identities()
    write_rows(corpus / "more.jsonl", rows(6))
    assert not set(before) & set(identities())


def test_a_folder_and_a_module_count(compose: Compose, corpus: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (corpus / "base").mkdir()
    (corpus / "base" / "config.json").write_text("{}")
    (corpus / "mine.py").write_text("A = 1\n")
    monkeypatch.syspath_prepend(corpus)
    given = ["model=pretrained", "model.path=base", "imports=[mine]"]
    before = identity(compose(*given))
    (corpus / "base" / "config.json").write_text("{ }")
    changed = identity(compose(*given))
    (corpus / "mine.py").write_text("A = 2\n# longer\n")
    assert len({before, changed, identity(compose(*given))}) == 3


def test_a_link_to_nothing_in_a_folder_counts_as_itself(compose: Compose, corpus: Path) -> None:
    (corpus / "base").mkdir()
    link = corpus / "base" / "config.json"
    link.symlink_to("nowhere")
    before = identity(compose("model=pretrained", "model.path=base"))
    assert identity(compose("model=pretrained", "model.path=base")) == before
    link.unlink()
    assert identity(compose("model=pretrained", "model.path=base")) != before


def test_what_a_run_writes_and_words_that_are_folders_by_chance_do_not_count(compose: Compose, corpus: Path) -> None:
    given = ["command=predict", "inputs=train.jsonl", "prediction.output=out.jsonl", "data.columns.text=text"]
    before = identity(compose(*given))
    (corpus / "out.jsonl").write_text("x")
    (corpus / "text").mkdir()
    (corpus / "text" / "new").write_text("x")
    assert identity(compose(*given)) == before
    write_rows(corpus / "train.jsonl", rows(3))
    assert identity(compose(*given)) != before


def _holds(claim: Claim, answer: Any) -> None:
    answer.send("here")
    signal.pause()


def _works(folder: Path, answer: Any) -> None:
    with lock.held(folder, lock.STARTER):
        _holds(Claim("", folder), answer)


def test_a_claim_is_one_process_and_goes_with_it(tmp_path: Path) -> None:
    mine, other = Claim("a" * 64, tmp_path), Claim("a" * 64, tmp_path)
    assert mine.take()
    assert not other.take()
    assert Claim("b" * 64, tmp_path).take()

    ours, theirs = get_context("forkserver").Pipe()
    child = get_context("forkserver").Process(target=_holds, args=(mine, theirs))
    child.start()
    assert ours.recv() == "here"
    mine.close()  # The child has it now.
    assert not other.take()
    child.kill()
    child.join()
    assert other.take()
    other.close()


def _begun(claim: Claim, name: str, *journal: dict[str, Any], result: str | None = None) -> Path:
    folder = claim.runs / name
    folder.mkdir()
    (folder / "run.yaml").write_text(json.dumps(SETTINGS))
    (folder / "journal.jsonl").write_text("".join(json.dumps(line) + "\n" for line in (BEGIN, *journal)))
    if result is not None:
        (folder / "result.json").write_text(result)
    claim.note(folder)
    return folder


BEGIN: dict[str, Any] = {"time": 1, "begin": {}}
AGAIN: dict[str, Any] = {"time": 2, "resumed": {}}
POINT = {"time": 1, "step": 1, "metrics": {"train/loss": 1.0}}
FINISHED = {"time": 2, "status": "FINISHED", "error": ""}
FAILED = {"time": 2, "status": "FAILED", "error": "broken"}
KILLED = {"time": 2, "status": "KILLED", "error": ""}


@pytest.mark.parametrize(
    ("journal", "result", "state", "failures"),
    [
        ([POINT, FINISHED], "{}", "finished", 0),
        ([POINT], "{}", "interrupted", 0),  # Killed before it could say so.
        ([POINT, FAILED], None, "failed", 1),
        ([POINT, FAILED, AGAIN, POINT, FAILED], None, "failed", 2),
        ([POINT, FAILED, AGAIN, POINT, KILLED], None, "interrupted", 1),
        ([POINT, FAILED, AGAIN], None, "interrupted", 1),
        ([POINT, KILLED], '{"objec', "interrupted", 0),
        ([], None, "interrupted", 0),
    ],
)
def test_what_has_become_of_a_run(
    journal: list[Any], result: str | None, state: str, failures: int, tmp_path: Path
) -> None:
    claim = Claim("a" * 64, tmp_path, digest(SETTINGS))
    assert claim.earlier() is None
    folder = _begun(claim, "one", *journal, result=result)
    found = claim.earlier()
    assert found is not None
    assert (found.folder, found.state, found.failures) == (folder, state, failures)
    assert found.error == ("broken" if state == "failed" else "")


def test_the_furthest_run_counts_and_only_while_it_is_still_this_one(tmp_path: Path) -> None:
    claim = Claim("a" * 64, tmp_path, digest(SETTINGS))
    first = _begun(claim, "one", POINT, FINISHED, result='{"objective": 1}')
    second = _begun(claim, "two", POINT, FAILED)
    third = _begun(claim, "three", POINT, KILLED)
    assert (found := claim.earlier()) is not None
    assert (found.folder, found.result, found.failures) == (first, {"objective": 1}, 1)
    (first / "run.yaml").write_text(json.dumps(SETTINGS | {"seed": 2}))  # As after more epochs.
    assert (found := claim.earlier()) is not None
    assert found.folder == third
    for folder in (second, third):
        (folder / "run.yaml").write_text("")
    assert claim.earlier() is None


def test_a_run_whose_process_is_there_is_being_done(tmp_path: Path) -> None:
    """Also one that has no claim, because it was the second of its kind."""
    claim = Claim("a" * 64, tmp_path, digest(SETTINGS))
    folder = _begun(claim, "one", POINT)
    ours, theirs = get_context("forkserver").Pipe()
    child = get_context("forkserver").Process(target=_works, args=(folder, theirs))
    child.start()
    assert ours.recv() == "here"
    assert (found := claim.earlier()) is not None
    assert found.state == "running"
    child.kill()
    child.join()
    assert (found := claim.earlier()) is not None
    assert found.state == "interrupted"


def test_a_run_of_this_process_is_known_and_runs(compose: Compose, run: Callable[..., Any], corpus: Path) -> None:
    """A run that nobody called a sweep is in the ledger all the same."""
    claim = Claim.of(compose().values())
    assert claim.earlier() is None
    result = run()
    found = claim.earlier()
    assert found is not None
    assert (found.state, found.result["run"], found.folder.name) == ("finished", result["run"], result["run"])
    assert claim.take()  # It has let go.
    claim.close()
