"""From the journal to MLflow: on a bad day nothing is lost, nothing is there twice, and no training waits."""

from __future__ import annotations

import json
import resource
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from bombs import killed, nth
from conftest import command
from servers import Proxy

from xp.__main__ import _main
from xp.config import compose as composing
from xp.error import UserError
from xp.launch import start
from xp.resume import resumed
from xp.tracking import Tracker, Tracking, drain, journal
from xp.tracking.trouble import reason

Ran = Callable[..., dict[str, Any]]
LONG = ["training.max_steps=12", "training.save_every=3", "training.log_every=2"]


@pytest.fixture
def proxy(server: str) -> Iterator[Proxy]:
    made = Proxy(server)
    yield made
    made.mode = "dead"
    made.close()
    finish_threads()


@pytest.fixture(autouse=True)
def _hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pauses for tests: no test waits for a minute."""
    monkeypatch.setattr(drain, "LINGER", 0.05)
    monkeypatch.setattr(drain, "LONGEST_PAUSE", 0.2)
    monkeypatch.setattr(drain, "PATIENCE", {False: 5.0, True: 20.0})


def finish_threads() -> None:
    """Until no thread of an earlier run is left that still hangs in a request."""
    until(lambda: not [each for each in threading.enumerate() if each.name.startswith("mlflow")])


def until(true: Callable[[], Any]) -> Any:
    for _ in range(600):
        if found := true():
            return found
        time.sleep(0.05)
    pytest.fail("it has not become true within 30 s")


def lines(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "journal.jsonl").read_text().splitlines()]


def found(uri: str, name: str) -> list[Any]:
    """The runs of MLflow with this name that are not deleted."""
    from mlflow import MlflowClient

    client = MlflowClient(uri)
    everything = [each.experiment_id for each in client.search_experiments()]
    return list(client.search_runs(everything, f"attributes.run_name = '{name}'"))


def whole(uri: str, folder: Path) -> Any:
    """The one run of MLflow that a folder is, once all that is journalled was found there, each point once."""
    from mlflow import MlflowClient

    client = MlflowClient(uri)
    (tracked,) = found(uri, folder.name)
    said = lines(folder)
    points: dict[str, list[tuple[int, float, int]]] = {}
    for line in said:
        for name, value in line.get("metrics", {}).items():
            points.setdefault(name, []).append((line["step"], value, line["time"]))
    assert set(tracked.data.metrics) == set(points)
    for name, expected in points.items():
        history = client.get_metric_history(tracked.info.run_id, name)
        assert sorted((each.step, each.value, each.timestamp) for each in history) == sorted(expected)
    params = {name for line in said for name in line.get("params", {})}
    assert {name.replace("@", ":") for name in params} == set(tracked.data.params)
    for line in said:
        for name in line.get("tags", {}):
            assert name in tracked.data.tags
    if "status" in said[-1]:
        assert (tracked.info.status, tracked.info.end_time) == (said[-1]["status"], said[-1]["time"])
        assert tracked.data.tags.get("xp.error", "") == said[-1]["error"]
        files = {each.path for each in client.list_artifacts(tracked.info.run_id)}
        assert {line["artifact"] for line in said if line.get("artifact") in ("run.yaml", "result.json")} <= files
    else:
        assert tracked.info.status == "RUNNING"
    assert tracked.info.start_time == said[0]["time"]
    return tracked


def go_on(*overrides: str, where: str = "last") -> Path:
    composing.initialize(None)
    run, folder = resumed(where, list(overrides), None)
    start(run, folder=folder)
    return folder


def only() -> Path:
    (folder,) = [file.parent for file in Path("runs").glob("*/run.yaml")]
    return folder


@pytest.mark.parametrize(
    ("mode", "why"),
    [
        ("dead", "it closes the connection"),
        ("401", "it refuses the credentials (401), which are MLFLOW_TRACKING_USERNAME"),
        ("500", "it answers with error 500"),
    ],
)
def test_away_from_the_start_is_told_and_sync_brings_it_there(
    mode: str, why: str, server: str, proxy: Proxy, run: Ran, capfd: pytest.CaptureFixture[str]
) -> None:
    proxy.mode = mode
    result = run("task=text_classification", f"tracking.uri={proxy.address}")
    folder = Path(result["folder"])
    assert (result["run_id"], len(result["points"])) == ("", 9)
    first, last = capfd.readouterr().err.splitlines()
    assert first.startswith(f"xp: tracking.uri={proxy.address}: {why}")
    assert first.endswith("MLflow gets it when it answers, or by python -m xp command=sync")
    number = len(lines(folder))
    assert last.startswith(f"xp: {number} entries of {folder.name} are not in MLflow yet ({why}")

    assert _main(["command=sync"]) == 1
    said = capfd.readouterr().out
    assert said.startswith(f"{folder.name}: {number} entries are undelivered: tracking.uri={proxy.address}: {why}")
    assert said.count("\n") == 1
    proxy.mode = "well"
    assert _main(["command=sync"]) == 0
    tracked = whole(server, folder)
    assert capfd.readouterr().out == (
        f"{folder.name}: {number} entries delivered to {proxy.address}, run {tracked.info.run_id}\n"
    )
    assert (tracked.info.status, tracked.data.tags["xp.weights"]) == ("FINISHED", result["digest"])
    assert json.loads(tracked.data.tags["mlflow.loggedArtifacts"])
    proxy.requests.clear()
    assert _main(["command=sync"]) == 0
    assert capfd.readouterr().out == "MLflow has all of the runs in runs\n"
    assert proxy.requests == []


def test_a_server_that_comes_back_gets_everything_while_the_run_goes_on(
    server: str, proxy: Proxy, run: Ran, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    log = Tracker.log

    def switching(self: Tracker, metrics: dict[str, float], step: int) -> None:
        log(self, metrics, step)
        if "train/loss" not in metrics:
            return
        if step == 3:
            assert self.run_id
            until(lambda: "train/loss" in found(server, self.folder.name)[0].data.metrics)
            proxy.mode = "dead"
        elif step == 7:
            until(lambda: self._drain._told)
            proxy.mode = "well"
        elif step == 8:
            until(lambda: not self._drain._told)

    monkeypatch.setattr(Tracker, "log", switching)
    result = run(f"tracking.uri={proxy.address}", "training.max_steps=10")
    assert whole(server, Path(result["folder"])).info.run_id == result["run_id"]
    said = capfd.readouterr().err.splitlines()
    assert [line.partition(": ")[2].partition("; ")[0] for line in said] == [
        f"tracking.uri={proxy.address}: it closes the connection",
        f"tracking.uri={proxy.address} answers",
    ]


def test_no_step_waits_for_a_server_that_is_slow(
    server: str, proxy: Proxy, run: Ran, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """The training has ended while the first request is still unanswered."""
    monkeypatch.setattr(drain, "FIRST_ANSWER", {False: 0.1, True: 10.0})
    monkeypatch.setattr(drain, "PATIENCE", {False: 0.2, True: 20.0})
    held = []
    close = Tracker.close

    def closed(self: Tracker, *how: Any) -> None:
        held.append((proxy.held, len(proxy.requests)))
        close(self, *how)

    monkeypatch.setattr(Tracker, "close", closed)
    proxy.mode = "mute"
    result = run(f"tracking.uri={proxy.address}")
    assert held == [(1, 1)]
    assert len([point for point in result["points"] if "train/loss" in point]) == 6
    first, last = capfd.readouterr().err.splitlines()
    assert "it has not answered yet; the run goes on" in first
    assert "are not in MLflow yet (it is slow to answer)" in last
    proxy.mode = "well"
    finish_threads()
    assert _main(["command=sync"]) == 0
    whole(server, Path(result["folder"]))


def test_the_next_run_brings_there_what_earlier_ones_have_left(server: str, proxy: Proxy, run: Ran) -> None:
    proxy.mode = "dead"
    first = Path(run(f"tracking.uri={proxy.address}")["folder"])
    proxy.mode = "well"
    second = Path(run(f"tracking.uri={proxy.address}")["folder"])
    whole(server, first)
    whole(server, second)


def test_kill_9_loses_nothing_that_was_logged(
    server: str, proxy: Proxy, compose: Callable[..., Any], capfd: pytest.CaptureFixture[str]
) -> None:
    proxy.mode = "dead"
    settings = compose(f"tracking.uri={proxy.address}", "training.max_steps=12")
    assert killed(settings, "step", 8) == -signal.SIGKILL, Path("child.log").read_text()
    folder = only()
    heard = lines(folder)[-1]
    assert (heard["step"], "train/loss" in heard["metrics"]) == (7, True)
    proxy.mode = "well"
    assert _main(["command=sync"]) == 0
    assert f"{folder.name} was still open, and its process is gone; closed as KILLED" in capfd.readouterr().out
    tracked = whole(server, folder)
    assert (tracked.info.status, tracked.info.end_time) == ("KILLED", heard["time"])
    assert tracked.data.tags["xp.error"] == "its process is gone; nothing was heard from it"

    assert killed(settings, "step", 1, folder) == -signal.SIGKILL  # Dies again before it says anything.
    until(lambda: found(server, folder.name)[0].info.status == "RUNNING" or _main(["command=sync"]) == 0)
    assert _main(["command=sync"]) == 0
    assert whole(server, folder).info.status == "KILLED"
    go_on()
    after = whole(server, folder)
    assert (after.info.run_id, after.info.status) == (tracked.info.run_id, "FINISHED")
    assert sum("resumed" in line for line in lines(folder)) == 2


@pytest.mark.parametrize("position", ["begin", "middle"])
def test_what_has_arrived_without_being_noted_is_not_sent_again(
    position: str, run: Ran, corpus: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mlflow import MlflowClient

    result = run()
    folder, uri = Path(result["folder"]), f"sqlite:///{corpus}/runs/mlflow.db"
    before = whole(uri, folder)
    ends = [end for end, _ in journal.entries(folder)]
    journal.set_delivered(
        folder, journal.delivered(folder) | {"position": 0 if position == "begin" else ends[6], "ended": 0}
    )
    sent: list[int] = []
    log_batch = MlflowClient.log_batch

    def counted(self: Any, run_id: str, metrics: Any = (), *rest: Any, **named: Any) -> None:
        sent.append(len(metrics))
        log_batch(self, run_id, metrics, *rest, **named)

    monkeypatch.setattr(MlflowClient, "log_batch", counted)
    assert _main(["command=sync"]) == 0
    assert sent
    assert sum(sent) == 0
    after = whole(uri, folder)
    assert (after.info.run_id, after.data.params) == (before.info.run_id, before.data.params)
    assert not [tag for tag in after.data.tags if tag.startswith("xp.changed")]


@pytest.mark.parametrize("request_", ["runs/create", "log-batch", "log-inputs", "set-tag"])
def test_a_request_whose_answer_gets_lost_is_done_once(request_: str, server: str, proxy: Proxy, run: Ran) -> None:
    proxy.lose = request_
    result = run("task=text_classification", f"tracking.uri={proxy.address}")
    assert proxy.lose == ""
    whole(server, Path(result["folder"]))


@pytest.mark.parametrize("command_", ["evaluate", "predict"])
def test_other_commands_need_no_server_either(command_: str, server: str, proxy: Proxy, run: Ran) -> None:
    trained = run("task=text_classification")
    proxy.mode = "dead"
    where = [f"tracking.uri={proxy.address}", f"model.path={trained['model']}", "runs_folder=others"]
    inputs = ["inputs=[apple, dog]"] * (command_ == "predict")
    result = run("model=pretrained", "task=text_classification", f"command={command_}", *where, *inputs)
    proxy.mode = "well"
    assert _main(["command=sync", "runs_folder=others"]) == 0
    whole(server, Path(result["folder"]))


def test_a_job_of_a_sweep_is_delivered_below_its_parent(
    server: str, proxy: Proxy, compose: Callable[..., Any], corpus: Path
) -> None:
    """Whoever comes first: the parent's run is made before that of its job."""
    proxy.mode = "dead"
    tracking = compose(f"tracking.uri={proxy.address}").tracking
    folders = [corpus / "runs" / name for name in ("a-job", "sweep")]
    for folder in folders:
        folder.mkdir(parents=True)
    parent = Tracker(tracking, folders[1], {}, None)
    job = Tracker(tracking, folders[0], {}, folders[1])
    job.log({"a": 1.0}, 1)
    for tracker in (job, parent):
        tracker.close("FINISHED")
    proxy.mode = "well"
    assert _main(["command=sync"]) == 0
    below, above = (whole(server, folder) for folder in folders)
    assert below.data.tags["mlflow.parentRunId"] == above.info.run_id

    live = Tracker(tracking, corpus / "runs" / "sweep", {}, None)
    (corpus / "runs" / "late").mkdir()
    late = Tracker(tracking, corpus / "runs" / "late", {}, corpus / "runs" / "sweep")
    assert late.opened()
    late.close("FINISHED")
    live.close("FINISHED")
    assert whole(server, corpus / "runs" / "late").data.tags["mlflow.parentRunId"] == above.info.run_id


def test_a_run_that_failed_and_goes_on_has_no_error_in_the_end(
    run: Ran, corpus: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from xp.backend.torch import Torch

    uri = f"sqlite:///{corpus}/runs/mlflow.db"
    with monkeypatch.context() as patched:
        patched.setattr(Torch, "fit", nth(Torch.fit, 1, lambda self, job: 1 / 0))
        with pytest.raises(ZeroDivisionError):
            run()
    failed = whole(uri, only())
    assert (failed.info.status, failed.data.tags["xp.error"]) == ("FAILED", "ZeroDivisionError: division by zero")
    folder = go_on()
    after = whole(uri, folder)
    assert (after.info.run_id, after.info.status) == (failed.info.run_id, "FINISHED")
    assert "xp.error" not in after.data.tags


def test_deleted_runs_are_told_and_stop_nobody(
    compose: Callable[..., Any], corpus: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """One that goes on becomes a new run with all of its history; one that nobody tracks is left alone."""
    from mlflow import MlflowClient

    uri = f"sqlite:///{corpus}/runs/mlflow.db"
    client = MlflowClient(uri)
    killed(compose(*LONG), "step", 9)
    first = only()
    aside = first.rename(corpus / first.name)  # Or the second one would close it.
    killed(compose(*LONG), "step", 9)
    folders = [aside.rename(first), *(file.parent for file in Path("runs").glob("*/run.yaml") if file.parent != first)]
    deleted = found(uri, folders[0].name)[0].info.run_id
    client.delete_run(deleted)
    start(compose("training.max_steps=1"))
    assert f"run {deleted} was deleted in MLflow" in capfd.readouterr().err
    assert whole(uri, folders[1]).info.status == "KILLED"
    assert found(uri, folders[0].name) == []
    assert _main(["command=sync"]) == 0
    assert f"entries stay in {folders[0]}; resume makes it a new run" in capfd.readouterr().out

    go_on(where=str(folders[0]))
    assert f"run {deleted} was deleted in MLflow; {folders[0].name} becomes a new one" in capfd.readouterr().err
    tracked = whole(uri, folders[0])
    assert (tracked.info.status, tracked.info.run_id != deleted) == ("FINISHED", True)


def test_a_run_that_goes_on_elsewhere_takes_its_history_along(
    compose: Callable[..., Any], corpus: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    killed(compose(*LONG), "step", 9)
    here, there = (f"sqlite:///{corpus}/{name}.db" for name in ("runs/mlflow", "other"))
    folder = go_on(f"tracking.uri={there}")
    assert f"{folder.name} goes on at {there}, with all of its history" in capfd.readouterr().err
    assert whole(there, folder).info.status == "FINISHED"
    (behind,) = found(here, folder.name)
    assert (behind.info.status, behind.data.tags["xp.error"]) == ("KILLED", f"it goes on at {there}")


def test_a_busy_store_is_tried_again(
    run: Ran, corpus: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    from mlflow import MlflowClient
    from mlflow.exceptions import MlflowException

    def busy(*arguments: Any, **named: Any) -> None:
        raise MlflowException("(sqlite3.OperationalError) database is locked")

    monkeypatch.setattr(MlflowClient, "log_batch", nth(MlflowClient.log_batch, 2, busy))
    monkeypatch.setattr(MlflowClient, "create_run", nth(MlflowClient.create_run, 1, busy))
    whole(f"sqlite:///{corpus}/runs/mlflow.db", Path(run()["folder"]))
    assert capfd.readouterr().err == ""


def test_what_mlflow_never_takes_is_told_and_holds_up_nothing(
    compose: Callable[..., Any], corpus: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    folder = corpus / "runs" / "odd"
    folder.mkdir(parents=True)
    tracker = Tracker(compose().tracking, folder, {}, None)
    tracker.log({"good": 1.0, "bad;name": 2.0, "fine": 3.0}, 1)
    tracker.params({"a": 1, "b" * 300: 2})
    tracker.artifact(folder / "gone.txt")
    tracker.log({"good": 2.0}, 2)
    tracker.close("FINISHED")
    said = capfd.readouterr().err
    for what in ("bad;name", "b" * 300, "gone.txt"):
        assert [line for line in said.splitlines() if "MLflow does not take" in line and what in line]
    (tracked,) = found(f"sqlite:///{corpus}/runs/mlflow.db", "odd")
    assert (tracked.data.metrics, tracked.data.params) == ({"good": 2.0, "fine": 3.0}, {"a": "1"})
    assert tracked.data.tags["xp.lost"].startswith("bad;name, bbb")
    assert tracked.info.status == "FINISHED"


def test_a_store_of_artifacts_that_is_away_holds_up_nothing_else(
    run: Ran, corpus: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    from mlflow import MlflowClient

    def full(*arguments: Any, **named: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(drain, "PATIENCE", {False: 0.2, True: 0.2})
    with monkeypatch.context() as patched:
        patched.setattr(MlflowClient, "log_artifact", full)
        folder = Path(run()["folder"])
        finish_threads()
    uri = f"sqlite:///{corpus}/runs/mlflow.db"
    assert found(uri, folder.name)[0].info.status == "FINISHED"
    assert "are not in MLflow yet (no space left on device)" in capfd.readouterr().err
    assert _main(["command=sync"]) == 0
    whole(uri, folder)


def test_a_line_that_was_cut_was_never_said(compose: Callable[..., Any], corpus: Path) -> None:
    killed(compose(*LONG), "step", 9)
    folder = only()
    with (folder / "journal.jsonl").open("a") as file:
        file.write('{"time": 1, "step": 8, "metr')
    assert _main(["command=sync"]) == 0
    content = (folder / "journal.jsonl").read_text().splitlines()
    assert json.loads(content[-1])["status"] == "KILLED"
    del content[-2]
    (folder / "journal.jsonl").write_text("\n".join(content) + "\n")
    whole(f"sqlite:///{corpus}/runs/mlflow.db", folder)


def test_a_disk_without_room_ends_the_run_in_one_line(tmp_path: Path) -> None:
    written = journal.Journal(tmp_path)
    written.write(step=1, metrics={"a": 1.0})
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (journal.size(tmp_path) + 10, limits[1]))
    try:
        with pytest.raises(UserError, match=r"journal.jsonl cannot be written: File too large"):
            written.write(step=2, metrics={"a": 1.0})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, ignored)
        written.close()
    assert [entry["step"] for _, entry in journal.entries(tmp_path) if entry] == [1]


def test_a_run_that_is_running_is_left_to_itself(
    compose: Callable[..., Any], corpus: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    folder = corpus / "runs" / "alive"
    folder.mkdir(parents=True)
    tracker = Tracker(compose().tracking, folder, {}, None)
    tracker.opened()
    with journal.delivering(folder) as free:
        assert not free
    journal.set_delivered(folder, journal.delivered(folder) | {"position": 0})
    assert _main(["command=sync"]) == 0
    assert capfd.readouterr().out == "alive: it is running, and delivers by itself\n"
    tracker.close("FINISHED")
    whole(f"sqlite:///{corpus}/runs/mlflow.db", folder)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("API request to http://x failed with exception HTTPConnectionPool(host='x', port=9): Max retries exceeded "
         "(Caused by NewConnectionError(\"[Errno 111] Connection refused\"))", "connection refused"),
        ("(Caused by NameResolutionError(\"Failed to resolve 'x' ([Errno -2] Name or service not known)\"))",
         "name or service not known"),
        ("API request to http://x failed with timeout exception HTTPConnectionPool: Read timed out.",
         "it does not answer"),
        ("PERMISSION_DENIED: no", "it refuses the credentials (403)"),
        ("(Caused by ResponseError('too many 503 error responses'))", "it answers with error 503"),
        ("('Connection aborted.', RemoteDisconnected('Remote end closed connection without response'))",
         "it closes the connection"),
    ],
)  # fmt: skip
def test_reasons_are_told_in_a_few_words(text: str, why: str) -> None:
    assert reason(Exception(text)).startswith(why)


def test_sync_of_the_command_line_tells_by_its_exit_code(corpus: Path, proxy: Proxy, compose: Any) -> None:
    proxy.mode = "dead"
    folder = corpus / "runs" / "alone"
    folder.mkdir(parents=True)
    tracking: Tracking = compose(f"tracking.uri={proxy.address}").tracking
    Tracker(tracking, folder, {}, None).close("FINISHED")
    ended = command("command=sync", folder=corpus)
    assert (ended.returncode, ended.stderr) == (1, "")
    assert ended.stdout.startswith("alone: 2 entries are undelivered: tracking.uri=http://127.0.0.1")
    ended = command("-m", "command=sync", "seed=1,2", folder=corpus)
    assert (ended.returncode, ended.stderr.count("\n")) == (2, 1)
    assert "command=sync: it has no result that a sweep could compare" in ended.stderr
