"""A config is data: no input makes xp run code, or write where a run has no business. An audit hook looks on."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import attacks
import hostile
import pytest
from children import STARTED, Children, Ended, children
from hostile import MODULE, Case
from watch import MARK

EACH = 6
"""Inputs of each kind that are tried in every run of the tests; all of them with ``-m slow``."""


@pytest.fixture(scope="module")
def light() -> Iterator[Children]:
    with children(heavy=False) as made:
        yield made


class Box:
    """A folder to be attacked: ``here`` is where xp is started, all else is where it has no business."""

    def __init__(self, root: Path, caches: Path | None = None) -> None:
        self.root, self.here, self.outside = root, root / "here", root / "outside"
        self.home = caches or root / "home"
        for folder in (self.here, self.outside, root / "tmp", self.home):
            folder.mkdir(parents=True, exist_ok=True)
        (self.outside / "canary").write_text("unharmed\n")
        (self.here / f"{MODULE}.py").write_text(attacks.PLANTED)

    def put(self, files: Mapping[str, Any]) -> None:
        for name, content in files.items():
            file = self.here / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(content if isinstance(content, bytes) else content.encode())

    def state(self) -> dict[str, str]:
        """What is there of all that xp may not change."""
        found = {}
        for at, folders, names in os.walk(self.root):
            folders[:] = [
                name for name in folders if not (at == str(self.root) and name in ("tmp", "home")) and name != "runs"
            ]
            for name in (*folders, *names):
                file = Path(at, name)
                kept = file.is_file() and not file.is_symlink()
                content = hashlib.sha256(file.read_bytes()).hexdigest() if kept else ""
                found[str(file.relative_to(self.root))] = content
        return found

    def do(self, asked: Children, arguments: list[str], **more: object) -> Ended:
        allowed = [str(self.root / "tmp"), str(self.home), str(self.here / "runs")]
        tmp = str(self.root / "tmp")
        env = {"TMPDIR": tmp, "TORCHINDUCTOR_CACHE_DIR": tmp, "HOME": str(self.home)}
        return asked.do(arguments, self.here, allowed=allowed, env=env, **more)


@pytest.fixture
def box(tmp_path: Path) -> Box:
    return Box(tmp_path / "box")


def told(ended: Ended, *, alone: bool) -> bool:
    """Whether it has ended as a user's error does, in one line; libraries that are at work may have warned before."""
    lines = ended.err.splitlines()
    return ended.code == 2 and lines[-1:] != [] and lines[-1].startswith("xp: ") and (not alone or len(lines) == 1)


def check(case: Case, box: Box, asked: Children, *, stop: bool) -> list[str]:
    """What is wrong with how xp takes a hostile input."""
    before = box.state()
    ended = box.do(asked, case.arguments, seconds=60, stop=stop)
    wrong = [f"the hook has seen {each}" for each in ended.seen]
    if "Traceback" in ended.err:
        wrong.append(f"a traceback: {ended.err[-600:]}")
    if case.refused and not told(ended, alone=stop):
        wrong.append(f"not refused in one line, but code {ended.code}: {ended.err[-300:]}")
    if not case.refused and ended.code not in (0, 1, 2, STARTED):
        wrong.append(f"ended with code {ended.code}: {ended.err[-300:]}")
    if case.says not in ended.err:
        wrong.append(f"not told {case.says!r}, but {ended.err!r}")
    if stop and ended.heavy:
        wrong.append(f"imported {ended.heavy}")
    if (after := box.state()) != before:
        wrong.append(f"changed {sorted(name for name in {**before, **after} if before.get(name) != after.get(name))}")
    return [f"{case}\n    {' '.join(case.arguments)[:300]}\n    {each}" for each in wrong]


def check_all(kind: Callable[[], Iterator[Case]], every: bool, root: Path, asked: Children, *, stop: bool) -> None:
    cases = list(kind())
    chosen = cases if every else cases[:: max(1, len(cases) // EACH)]
    wrong = []
    for number, case in enumerate(chosen):
        box = Box(root / str(number))
        box.put(case.files)
        wrong += check(case, box, asked, stop=stop)
    assert not wrong, f"{len(wrong)} of {len(chosen)}:\n" + "\n".join(wrong)


@pytest.mark.parametrize("attack", attacks.ALL, ids=lambda attack: attack.__name__)
def test_the_hook_sees_an_attack(attack: Callable[[], object], box: Box, light: Children) -> None:
    """Else all that follows would prove nothing."""
    (box.here / "evil.pkl").write_bytes(attacks.PICKLE)
    ended = box.do(light, [], call=f"attacks:{attack.__name__}")
    assert ended.seen, ended.err


def test_the_hook_sees_code_that_the_command_line_asks_for(box: Box, light: Children) -> None:
    ended = box.do(light, [f"imports=[{MODULE}]"], stop=True)
    assert ended.code == STARTED, ended.err
    assert any(each.startswith("exec: ") for each in ended.seen), ended.seen
    assert any(each.startswith("open: for writing: ") for each in ended.seen), ended.seen
    assert (box.outside / MARK).exists()


def test_the_hook_sees_nothing_where_there_is_nothing(box: Box, light: Children) -> None:
    ended = box.do(light, [], stop=True)
    assert (ended.code, ended.seen) == (STARTED, [])


@pytest.mark.parametrize("kind", hostile.LIGHT, ids=lambda kind: kind.__name__)
def test_a_hostile_config_is_refused(kind: Callable[[], Iterator[Case]], tmp_path: Path, light: Children) -> None:
    check_all(kind, False, tmp_path, light, stop=True)


@pytest.mark.slow
@pytest.mark.parametrize("kind", hostile.LIGHT, ids=lambda kind: kind.__name__)
def test_every_hostile_config_is_refused(kind: Callable[[], Iterator[Case]], tmp_path: Path, light: Children) -> None:
    check_all(kind, True, tmp_path, light, stop=True)


def test_what_a_sweeper_says_of_a_job_is_no_consent(box: Box, light: Children) -> None:
    """The command line's own consent holds for all jobs; what a config's sweeper adds is not the command line's."""
    for params, code in (({"seed": "1,2"}, STARTED), ({"imports": f"[{MODULE}]"}, 2)):
        body = {"hydra": {"sweeper": {"params": params}}}
        box.put({"conf/experiment/x.yaml": hostile.EXPERIMENT + json.dumps(body)})
        ended = box.do(light, ["-m", "experiment=x"], stop=True)
        assert (ended.code, ended.seen) == (code, []), ended.err
    assert (box.outside / MARK).exists() is False
    ended = box.do(light, ["-m", "seed=1,2", f"imports=[{MODULE}]"], stop=True)
    assert ended.code == STARTED
    assert (box.outside / MARK).exists()
