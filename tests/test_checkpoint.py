"""Checkpoints: whole or not there, whatever happens while one is written."""

from __future__ import annotations

import gc
import io
import json
import os
import re
import resource
import shutil
import signal
import subprocess
import threading
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from bombs import killed
from test_resume import LONG, ended, go_on, only

from xp.error import UserError
from xp.launch import start
from xp.saving import checkpoint
from xp.saving.writer import Writer


@pytest.mark.parametrize("file", ["weights.safetensors", "optimizer.safetensors", "state.json", "manifest.json"])
@pytest.mark.parametrize("harm", ["truncated", "changed", "missing"])
def test_a_damaged_checkpoint_is_told_and_the_one_before_is_used(
    file: str, harm: str, damaged: Path, capsys: pytest.CaptureFixture[str]
) -> None:

    newest = checkpoint.path(damaged, checkpoint.STEP, 6) / file
    if harm == "missing":
        newest.unlink()
    else:
        content = bytearray(newest.read_bytes())
        content[len(content) // 2] ^= 1
        newest.write_bytes(bytes(content) if harm == "changed" else bytes(content[:-7]))
    said: list[str] = []
    found = checkpoint.newest(damaged, said.append)
    if file == "manifest.json" and harm == "changed" and found is not None and found.step == 6:
        pytest.fail("a changed manifest was taken")
    assert found is not None
    assert found.step == 3
    assert "the checkpoint of step 6 is damaged" in said[0]


@pytest.fixture
def damaged(tmp_path: Path) -> Path:
    """Two small checkpoints."""
    for step in (3, 6):
        tensors = {name: {"a": torch.full((40,), float(step))} for name in ("weights", "optimizer", "random")}
        checkpoint.write(checkpoint.path(tmp_path, checkpoint.STEP, step), tensors, {"step": step, "needs_best": None})
    return tmp_path


def test_what_a_writer_dies_of_ends_the_training(tmp_path: Path) -> None:
    writer = Writer(tmp_path, 2)
    writer.save(checkpoint.STEP, 1, {}, {"needs_best": object()})
    with pytest.raises(TypeError, match="not JSON serializable"):
        writer.wait()
    with pytest.raises(TypeError, match="not JSON serializable"):
        writer.save(checkpoint.STEP, 2, {}, {"needs_best": None})


def test_no_third_checkpoint_is_copied_while_two_are_held(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One on its way to the disk, one waiting or just being copied."""
    go, write = threading.Event(), checkpoint.write
    monkeypatch.setattr(checkpoint, "write", lambda *arguments: (go.wait(30), write(*arguments)))
    writer = Writer(tmp_path, 2)
    kept: list[weakref.ref[torch.Tensor]] = []
    for step in (1, 2):
        writer.room()
        tensor = torch.full((8,), float(step))
        kept.append(weakref.ref(tensor))
        writer.save(checkpoint.STEP, step, {"weights": {"a": tensor}}, {"step": step, "needs_best": None})
    del tensor
    third = threading.Thread(target=writer.room)
    third.start()
    third.join(0.5)
    assert third.is_alive()
    go.set()
    third.join(30)
    assert not third.is_alive()
    writer.wait()
    assert [each() for each in kept] == [None, None]
    writer.close()
    assert sorted(each.name for each in tmp_path.iterdir()) == ["step-00000001", "step-00000002"]


def test_what_is_left_of_steps_to_come_counts_for_nothing(tmp_path: Path) -> None:
    tensors = {"weights": {"a": torch.zeros(4)}}

    def left() -> list[str]:
        return sorted(each.name for each in tmp_path.iterdir())

    for kind, step in ((checkpoint.STEP, 4), (checkpoint.STEP, 9), (checkpoint.BEST, 4), (checkpoint.BEST, 8)):
        checkpoint.write(checkpoint.path(tmp_path, kind, step), tensors, {"step": step, "needs_best": 4})
    (checkpoint.path(tmp_path, checkpoint.STEP, 9) / "weights.safetensors").unlink()
    writer = Writer(tmp_path, 1, done=4)
    writer.save(checkpoint.BEST, 6, tensors, {})
    writer.save(checkpoint.STEP, 7, tensors, {"step": 7, "needs_best": 6})
    writer.close()
    assert left() == ["best-00000006", "step-00000007"]
    writer = Writer(tmp_path, 0)
    writer.save(checkpoint.BEST, 2, tensors, {})
    writer.close()
    assert left() == ["best-00000002"]


def test_no_room_leaves_the_checkpoints_before(tmp_path: Path) -> None:
    import resource

    writer = Writer(tmp_path, 2)
    small, large = ({"weights": {"a": torch.zeros(size)}} for size in (10, 100_000))
    writer.save(checkpoint.STEP, 1, small, {"step": 1, "needs_best": None})
    writer.wait()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limits[1]))
    try:
        writer.save(checkpoint.STEP, 2, large, {"needs_best": None})
        with pytest.raises(UserError, match=r"the checkpoint of step 2 cannot be written .* it needs 0.4 MB"):
            writer.wait()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, ignored)
    found = checkpoint.newest(tmp_path, print)
    assert found is not None
    assert found.step == 1
    assert [each.name for each in tmp_path.iterdir()] == ["step-00000001"]


SAVES = 3
"""Of `_saves`."""


def _saves(folder: Path) -> None:
    """All that happens to checkpoints: what is left is cleared away, two are written with their best, two go."""
    tensors = {name: {"a": torch.arange(50.0)} for name in ("weights", "optimizer", "random")}
    writer = Writer(folder, 1, done=4)
    writer.save(checkpoint.BEST, 8, {"weights": tensors["weights"]}, {"step": 8, "needs_best": None})
    writer.save(checkpoint.STEP, 8, tensors, {"step": 8, "needs_best": 8})
    writer.save(checkpoint.STEP, 9, tensors, {"step": 9, "needs_best": 8})
    writer.close()


@pytest.fixture
def before(tmp_path: Path) -> Path:
    """What `_saves` finds: a whole checkpoint and its best weights, a damaged one of a later step, halves."""
    folder = tmp_path / "before"
    tensors = {name: {"a": torch.zeros(50)} for name in ("weights", "optimizer", "random")}
    for kind, step in ((checkpoint.BEST, 4), (checkpoint.STEP, 4), (checkpoint.BEST, 6), (checkpoint.STEP, 6)):
        checkpoint.write(checkpoint.path(folder, kind, step), tensors, {"step": step, "needs_best": step})
    (checkpoint.path(folder, checkpoint.STEP, 6) / "weights.safetensors").unlink()
    for rest in ("step-00000009.part", "step-00000002.old"):
        shutil.copytree(checkpoint.path(folder, checkpoint.STEP, 6), folder / rest)
    return folder


class Acts:
    """Counts what is done to the disk; at the n-th it refuses, or the process is killed in the midst of it."""

    def __init__(self, number: int, kills: bool) -> None:
        self.number, self.kills, self.done = number, kills, 0
        self.names: list[str] = []

    def act(self, name: str) -> None:
        self.done += 1
        self.names.append(name)
        if self.done == self.number:
            if self.kills:
                os.kill(os.getpid(), signal.SIGKILL)
            raise OSError(28, "No space left on device")

    def wrapped(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def acting(*arguments: Any, **named: Any) -> Any:
            self.act(name)
            return function(*arguments, **named)

        return acting

    def patch(self) -> None:
        """Of this process, which has no other use."""
        import safetensors.torch

        gc.disable()  # What it finalises may have files to remove.
        opened, save_file, acts = io.open, safetensors.torch.save_file, self

        def opening(file: Any, mode: str = "r", *arguments: Any, **named: Any) -> Any:
            if "w" not in mode:
                return opened(file, mode, *arguments, **named)
            acts.act("open")
            found = opened(file, mode, *arguments, **named)
            write = found.write

            def writing(text: Any) -> int:
                write(text[: len(text) // 2])
                found.flush()
                acts.act("write")
                return int(write(text[len(text) // 2 :]))

            found.write = writing
            return found

        def saving(tensors: Any, file: Any) -> None:
            content = safetensors.torch.save(tensors)
            with opened(file, "wb") as half:
                half.write(content[: len(content) // 2])
            acts.act("write")
            save_file(tensors, file)

        io.open, safetensors.torch.save_file = opening, saving  # type: ignore[assignment]
        for name in ("fsync", "replace", "mkdir", "unlink", "rmdir"):
            setattr(os, name, self.wrapped(name, getattr(os, name)))


@pytest.mark.parametrize("kills", [False, True], ids=["refused", "killed"])
def test_whatever_fails_of_a_save_a_whole_checkpoint_is_there(kills: bool, before: Path, tmp_path: Path) -> None:
    """Every write, fsync, rename, mkdir and removal, one after the other, until there is none left that could fail."""
    outcomes: dict[int, int] = {}
    names: list[str] = []
    for number in range(1, 1000):
        folder = tmp_path / f"{number}"
        shutil.copytree(before, folder)
        if (process := os.fork()) == 0:
            acts = Acts(number, kills)
            code = 3
            try:
                acts.patch()
                _saves(folder)
                code = 0
            except UserError:
                code = 2
            finally:
                if acts.done < number:
                    acts.number, code = 0, 4
                    (tmp_path / "names").write_bytes(json.dumps(acts.names).encode())
                os._exit(code)
        status = os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
        assert status in (0, 2, 4, -signal.SIGKILL), number  # 0: of a removal that failed, the rest stays.
        found = checkpoint.newest(folder, lambda line: None)
        assert found is not None
        outcomes[found.step] = outcomes.get(found.step, 0) + 1
        writer = Writer(folder, 1, done=found.step)
        writer.save(checkpoint.STEP, 10, {"weights": {"a": torch.zeros(1)}}, {"needs_best": found.state["needs_best"]})
        writer.close()
        best = found.state["needs_best"]
        assert sorted(each.name for each in folder.iterdir()) == [f"best-{best:08d}", "step-00000010"]
        shutil.rmtree(folder)
        if status == 4:
            names = json.loads((tmp_path / "names").read_text())
            break
    assert outcomes.keys() == {4, 8, 9}
    assert sum(outcomes.values()) == len(names) + 1
    tensors = 1 + 3 + 3
    assert [names.count(name) for name in ("mkdir", "write", "fsync", "replace")] == [
        SAVES,
        2 * SAVES + tensors,
        4 * SAVES + tensors,
        SAVES + 5,
    ]
    assert {"open", "unlink", "rmdir"} < set(names)


@pytest.mark.parametrize("kills", [False, True], ids=["refused", "killed"])
def test_a_write_that_ends_in_the_midst_leaves_the_one_before(kills: bool, before: Path, tmp_path: Path) -> None:
    """By the kernel, at the n-th byte of a file: the size of files is limited."""
    seen = set()
    for number in range(0, 700, 37):
        folder = tmp_path / f"{number}"
        shutil.copytree(before, folder)
        if (process := os.fork()) == 0:
            code = 3
            try:
                resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
                signal.signal(signal.SIGXFSZ, signal.SIG_DFL if kills else signal.SIG_IGN)
                resource.setrlimit(resource.RLIMIT_FSIZE, (number, number))
                _saves(folder)
                code = 0
            except UserError as error:
                code = 2 if "cannot be written" in str(error) else 3
            finally:
                os._exit(code)
        seen.add(os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]))
        found = checkpoint.newest(folder, lambda line: None)
        assert found is not None
        assert found.step in (4, 8, 9)
    assert seen == ({-signal.SIGXFSZ, 0} if kills else {2, 0})


@pytest.fixture
def small_disk(corpus: Path) -> Iterator[Callable[[str], None]]:
    """The folder of runs on a disk of its own, which can be made as large, or as closed, as the test likes."""
    runs = corpus / "runs"
    runs.mkdir(exist_ok=True)
    mount = ["mount", "-t", "tmpfs", "-o", "size=700k", "tmpfs", runs]
    mounted = subprocess.run(mount, capture_output=True, check=False)
    if mounted.returncode:
        pytest.skip(f"mounting is not permitted here: {mounted.stderr.decode().strip()}")
    yield lambda options: subprocess.run(["mount", "-o", f"remount,{options}", runs], check=True) and None
    subprocess.run(["umount", runs], check=True)


DISK = [*LONG, "cache=false", "tracking.uri=sqlite:///elsewhere.db"]


def test_a_full_disk_says_what_is_needed_and_the_run_goes_on(
    compose: Callable[..., Any], small_disk: Callable[[str], None], tmp_path: Path
) -> None:
    run = compose(*DISK)
    whole = ended(Path(start(compose(*DISK, "runs_folder=whole"))["folder"]))
    with pytest.raises(UserError) as caught:
        start(run)
    said = (
        r"checkpoint of step \d+ cannot be written \(No space left on device\); it needs 0.\d MB and 0.\d MB are free"
    )
    assert re.search(said, str(caught.value)), caught.value
    assert str(caught.value).endswith(f"make room, then python -m xp resume={only()}")
    assert checkpoint.newest(only() / checkpoint.FOLDER, pytest.fail) is not None
    small_disk("size=8m")
    assert ended(go_on(DISK[-1])) == whole


def test_a_disk_that_is_read_only_says_so_and_the_run_goes_on_later(
    compose: Callable[..., Any], small_disk: Callable[[str], None]
) -> None:
    small_disk("size=8m")
    whole = ended(Path(start(compose(*DISK, "runs_folder=whole"))["folder"]))
    assert killed(compose(*DISK), "saved", 17) == -signal.SIGKILL
    small_disk("ro")
    with pytest.raises(
        UserError, match="^runs/.*: nothing can be written there: Read-only file system; mend that first$"
    ):
        go_on(DISK[-1])
    with pytest.raises(UserError, match="^runs_folder=runs: no folder can be made there: Read-only file system$"):
        start(compose(*DISK))
    small_disk("rw")
    assert ended(go_on(DISK[-1])) == whole


PICKLE = (b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05", b"PK\x03\x04")
"""How pickles of protocol 2 and later begin, and zip files, which torch's are."""


def test_nothing_of_a_run_is_a_pickle(compose: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """All that a killed run leaves is of known kinds, and opens as what it is; nothing is unpickled to go on."""
    import pickle

    from safetensors import safe_open

    killed(compose(*LONG, "peft=lora"), "saved", 17)

    def refuse(*arguments: Any, **named: Any) -> None:
        raise AssertionError("unpickled")

    for module, name in ((pickle, "load"), (pickle, "loads"), (torch, "load")):
        monkeypatch.setattr(module, name, refuse)
    go_on()
    files = [file for file in only().rglob("*") if file.is_file()]
    assert {"weights.safetensors", "optimizer.safetensors", "random.safetensors"} < {file.name for file in files}
    for file in files:
        assert not file.read_bytes().startswith(PICKLE), file
        if file.suffix == ".safetensors":
            with safe_open(file, "pt") as content:
                assert content.keys()
        elif file.suffix in (".json", ".yaml"):
            json.loads(file.read_text())
        elif file.suffix == ".jsonl":
            assert [json.loads(line) for line in file.read_text().splitlines() if line]
        else:
            assert file.name in ("lock", "mlflow.lock", "README.md", "chat_template.jinja") or file.suffix in (
                ".png",
                ".log",
            ), file


def test_random_states_come_back_to_the_last_bit() -> None:
    """Each step draws from a seed of its own; what else draws, a module of the user's, goes on as well."""
    import random

    import numpy as np
    import torch

    from xp.saving import state

    def draws() -> tuple[Any, ...]:
        return torch.randn(3).tolist(), np.random.standard_normal(3).tolist(), random.gauss(0, 1), random.random()

    draws()
    tensors, plain = state._random()
    plain = json.loads(json.dumps(plain))
    first = draws()
    assert draws() != first
    state._take_random(tensors, plain)
    assert draws() == first
