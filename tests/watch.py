"""Watch: an audit hook that records what a hostile input could do: run code, write elsewhere, talk to strangers.

Python raises these events itself, in C where the work is done in C, whoever asks for it (PEP 578).
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

MARK = "0wned"
"""In every payload: the name of the file that it makes, of the module that it imports, of the variable that it sets."""

STARTS = {
    "os.system", "os.exec", "os.posix_spawn", "os.spawn", "os.startfile", "pty.spawn",
    "pickle.find_class", "sqlite3.load_extension", "os.forkpty", "ftplib.connect", "smtplib.connect",
}  # fmt: skip
"""Whatever their arguments are, an input has no business with these."""

CHANGES = {
    "os.mkdir": (0,), "os.rmdir": (0,), "os.remove": (0,), "os.rename": (0, 1), "os.link": (1,), "os.symlink": (1,),
    "os.truncate": (0,), "os.chmod": (0,), "os.chown": (0,), "os.utime": (0,), "os.chdir": (0,), "os.mkfifo": (0,),
    "os.setxattr": (0,), "shutil.rmtree": (0,), "shutil.move": (1,), "shutil.copyfile": (1,), "shutil.copytree": (1,),
    "shutil.make_archive": (0,), "shutil.unpack_archive": (1,), "sqlite3.connect": (0,), "tempfile.mkstemp": (0,),
    "tempfile.mkdtemp": (0,),
}  # fmt: skip
"""Which of their arguments are places that change."""

RELATIVE = {"os.remove", "os.rmdir", "os.mkdir"}
"""Those that rmtree calls with the descriptor of a folder."""

OURS = ("<template>",)
"""What Jinja calls the code that it makes of a template; its sandbox is what the templates are tried against."""

NEAR = ("127.0.0.1", "localhost", "::1", None, "")
"""Addresses of this machine, on which tests have servers."""

GIT = (["git", "rev-parse"], ["git", "status"], ["git", "-C"], ["git", "describe"], ["git", "log"], ["git", "diff"])
"""How xp finds out which version of its code runs."""


def watch(allowed: list[Path], seen: list[str], box: Path) -> None:
    """Record from now on, in this process, for ever.

    Args:
        allowed: folders that may be written to.
        seen: gets a line for each event.
        box: no code from a file in here may run.
    """
    places = [os.path.realpath(each) for each in allowed] + ["/dev", "/proc/self"]
    inside = os.path.realpath(box)

    def outside(path: Any) -> bool:
        if isinstance(path, int) or path is None:
            return False
        name = os.fsdecode(path).removeprefix("file:").partition("?")[0]
        if name in ("", ":memory:"):
            return False
        # A link is followed, as the system would follow it.
        real = os.path.realpath(name)
        return not any(real == place or real.startswith(place + os.sep) for place in places)

    def opens(path: Any, mode: Any, flags: int) -> Any:
        writes = flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND)
        return writes and outside(path) and f"for writing: {path}"

    def runs(code: Any) -> bool:
        place = getattr(code, "co_filename", "")
        return place.startswith(inside) or (place not in OURS and MARK in repr(getattr(code, "co_consts", code)))

    def compiles(source: Any, place: Any) -> bool:
        return place not in OURS and source is not None and MARK in str(source)

    def changes(event: str, arguments: tuple[Any, ...]) -> list[Any]:
        # The last argument of these is the descriptor of the folder that the path is seen from, or -1.
        beside = f"/proc/self/fd/{arguments[-1]}" if event in RELATIVE and arguments[-1] >= 0 else ""
        named = [arguments[at] for at in CHANGES[event] if at < len(arguments)]
        return [each for each in named if outside(os.path.join(beside, os.fsdecode(each)) if beside else each)]

    checks: dict[str, Callable[..., Any]] = {
        "open": opens,
        "exec": runs,
        "compile": compiles,
        "import": lambda module, *rest: MARK in str(module),
        "subprocess.Popen": lambda program, command, *rest: not any(list(command[:2]) == known for known in GIT),
        "socket.getaddrinfo": lambda host, *rest: host not in NEAR and host,
        "socket.connect": lambda opened, address: isinstance(address, tuple) and address[0] not in NEAR and address,
        "os.putenv": lambda name, value: MARK in str(name),
        "ctypes.dlopen": lambda name: MARK in str(name),
        "marshal.loads": lambda content: MARK.encode() in bytes(content),
    }

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        if event in CHANGES:
            found = changes(event, arguments)
        elif event in checks:
            found = checks[event](*arguments)
        else:
            found = event in STARTS
        if found:
            seen.append(f"{event}: {arguments if found is True else found}"[:300])

    sys.addaudithook(hook)
