"""Children: xp's command line in forked copies of a process that has imported all it needs, one a line of its input.

A fork costs milliseconds where a fresh interpreter costs a third of a second, and ten with the heavy libraries. A child
can be watched: an audit hook (`watch`) cannot be removed, so it lives and dies with the child.
"""

from __future__ import annotations

import gc
import json
import os
import signal
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from select import select
from typing import Any

HEAVY = ("torch", "transformers", "datasets", "mlflow", "peft", "accelerate", "numpy", "pandas")

MEMORY = 12 << 30
"""Bytes of addresses that a child may have: a bomb is not to take the machine along."""


@dataclass(frozen=True)
class Ended:
    """What has become of a child."""

    code: int
    out: str
    err: str
    heavy: list[str]
    """Which of the heavy libraries it has imported."""

    seen: list[str]
    """What its audit hook has recorded."""


class Children:
    """A process that forks a child for each command that it is asked for."""

    def __init__(self, *, heavy: bool, env: dict[str, str] | None = None) -> None:
        root = Path(__file__).parent.parent
        self.process = subprocess.Popen(
            [sys.executable, __file__, "heavy" if heavy else "light"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=os.environ
            | {"PYTHONPATH": f"{root}{os.pathsep}{root / 'tests'}", "OMP_NUM_THREADS": "1"}
            | (env or {}),
            text=True,
        )

    def do(self, arguments: list[str], folder: Path, **more: Any) -> Ended:
        """``python -m xp`` with these arguments in a folder.

        Args:
            arguments: of the command line.
            folder: the current one.
            more: ``env``: variables; ``allowed``: folders that may be written to, for a child that is to be watched;
                ``call``: a function of the tests to call instead, as ``module:name``; ``seconds``: to end in;
                ``stop``: end with `STARTED` instead of starting a run.
        """
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps({"arguments": arguments, "folder": str(folder)} | more) + "\n")
        self.process.stdin.flush()
        answer = self.process.stdout.readline()
        assert answer, "the process that forks children has died"
        return Ended(**json.loads(answer))

    def close(self) -> None:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.close()
        self.process.wait(60)
        self.process.stdout.close()


@contextmanager
def children(*, heavy: bool, **env: str) -> Iterator[Children]:
    """Children for as long as the context lasts."""
    made = Children(heavy=heavy, env=env)
    try:
        yield made
    finally:
        made.close()


def _warm(heavy: bool) -> None:
    """Import what the children will need, and compose once, so that they need not."""
    from xp.config import compose
    from xp.run import Backend, Data, Generation, Model, Peft, Run, Task
    from xp.sweep import launcher as sweep  # noqa: F401

    for kind in (Model, Data, Task, Backend, Peft, Generation):
        for component in kind.all().values():
            component.model_rebuild(force=True)
    if heavy:
        import hub_worker

        hub_worker.warm()
        import torch

        torch.set_num_threads(1)
    else:
        assert not set(HEAVY) & set(sys.modules)
    with tempfile.TemporaryDirectory() as empty:
        os.chdir(empty)
        compose.initialize(None)
        Run.parse(compose.values([]))
        os.chdir("/")
    gc.collect()
    gc.freeze()


STARTED = 77
"""Exit code of a run that was found right and would start now."""


def _stop_at_the_start() -> None:
    """Have a run that would start end instead: it was not refused."""
    from xp import launch, report
    from xp.sweep import forked

    def stop(*arguments: Any, **named: Any) -> Any:
        print("started", flush=True)
        raise SystemExit(STARTED)

    launch.start = forked.warm = report.show_tasks = stop


def _child(job: dict[str, Any], files: dict[str, int]) -> None:
    os.setpgid(0, 0)
    import resource

    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    for stream, number in (("out", 1), ("err", 2)):
        os.dup2(files[stream], number)
    os.chdir(job["folder"])
    os.environ |= job.get("env", {})
    tempfile.tempdir = None
    sys.argv = ["xp", *job["arguments"]]
    seen: list[str] = []
    if "allowed" in job:
        from watch import watch

        watch([Path(each) for each in job["allowed"]], seen, Path(job["folder"]).parent)
    if job.get("stop"):
        _stop_at_the_start()
    code = 1
    try:
        if "call" in job:
            from importlib import import_module

            module, _, name = job["call"].partition(":")
            code = int(getattr(import_module(module), name)(*job["arguments"]) or 0)
        else:
            from xp.__main__ import main

            code = main()
    except SystemExit as ended:
        code = ended.code if isinstance(ended.code, int) else 1
    except BaseException:
        traceback.print_exc()
    told = {"heavy": sorted(set(HEAVY) & set(sys.modules)), "seen": list(seen)}
    sys.stdout.flush()
    sys.stderr.flush()
    os.write(files["told"], json.dumps(told).encode())
    os._exit(code)


def _serve() -> None:
    for line in sys.stdin:
        job = json.loads(line)
        files = {name: os.memfd_create(name) for name in ("out", "err", "told")}
        child = os.fork()
        if child == 0:
            try:
                _child(job, files)
            finally:
                os._exit(70)
        ended = select([watched := os.pidfd_open(child)], [], [], job.get("seconds", 300))[0]
        os.close(watched)
        if not ended:
            os.kill(child, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
        said = {}
        for name, number in files.items():
            size = os.fstat(number).st_size
            said[name] = os.pread(number, size, 0).decode(errors="replace")
            os.close(number)
        told = json.loads(said.pop("told") or '{"heavy": [], "seen": []}')
        print(json.dumps({"code": os.waitstatus_to_exitcode(status)} | said | told), flush=True)


if __name__ == "__main__":
    _warm(sys.argv[1] == "heavy")
    _serve()
