"""Attacks that succeed: what the audit hook has to see, for its silence about the others to mean anything."""

from __future__ import annotations

import ctypes
import os
import pickle
import shutil
import socket
import sqlite3
import subprocess
from contextlib import suppress

from watch import MARK

OUTSIDE = f"../outside/{MARK}"
MODULE = f"planted_{MARK}"
PLANTED = f"""open("../outside/{MARK}", "w").close()
x = 1


class Payload:
    def __init__(self, *arguments, **named):
        open("../outside/{MARK}", "w").close()
"""
"""A module that lies in the current folder: to import it is to be attacked."""


class Payload:
    """What a pickle makes of itself when it is read."""

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.system, (f"touch {OUTSIDE}",)


PICKLE = pickle.dumps(Payload())


def system() -> None:
    os.system(f"touch {OUTSIDE}")


def process() -> None:
    subprocess.run(["touch", OUTSIDE], check=True)


def posix_spawn() -> None:
    os.waitpid(os.posix_spawn("/bin/touch", ["touch", OUTSIDE], os.environ), 0)


def execution() -> None:
    if (child := os.fork()) == 0:
        os.execv("/bin/true", ["true", MARK])
    os.waitpid(child, 0)
    with suppress(OSError):
        os.execv("/nowhere/at/all", [MARK])


def evaluation() -> None:
    eval(f"'{MARK}'.upper()")


def code() -> None:
    exec(f"x = '{MARK}'")


def an_import() -> None:
    import sys

    sys.path.insert(0, os.getcwd())
    __import__(MODULE)


def runpy() -> None:
    from runpy import run_path

    run_path(f"{MODULE}.py")


def unpickling() -> None:
    with open("evil.pkl", "rb") as file:
        pickle.load(file)


def unpickling_without_harm() -> None:
    pickle.loads(pickle.dumps(pickle.Pickler))


def numpy_unpickling() -> None:
    import numpy as np

    np.save("../tmp/x.npy", np.array([{}], dtype=object))
    np.load("../tmp/x.npy", allow_pickle=True)


def writing() -> None:
    open(OUTSIDE, "w").close()


def appending() -> None:
    with open("../outside/canary", "a") as file:
        file.write("x")


def writing_by_descriptor() -> None:
    os.close(os.open(OUTSIDE, os.O_CREAT | os.O_WRONLY))


def writing_through_a_link() -> None:
    os.makedirs("runs/x")
    os.symlink("../../../outside/canary", "runs/x/link")
    open("runs/x/link", "a").close()


def copying() -> None:
    shutil.copyfile("../outside/canary", OUTSIDE)


def moving() -> None:
    os.rename("../outside/canary", "../outside/other")


def removing() -> None:
    os.remove("../outside/canary")


def removing_all() -> None:
    shutil.rmtree("../outside")


def a_folder() -> None:
    os.mkdir(OUTSIDE)


def linking() -> None:
    os.symlink("canary", OUTSIDE)


def a_database() -> None:
    sqlite3.connect(OUTSIDE).close()


def a_connection() -> None:
    with suppress(OSError), socket.socket() as opened:
        opened.settimeout(0.01)
        opened.connect(("198.51.100.1", 80))


def a_name_of_the_network() -> None:
    with suppress(OSError):
        socket.getaddrinfo("example.invalid", 80)


def a_library() -> None:
    with suppress(OSError):
        ctypes.CDLL(f"./{MARK}.so")


def a_variable() -> None:
    os.environ[MARK] = "1"


def another_folder() -> None:
    os.chdir("../outside")


ALL = [
    system, process, posix_spawn, execution, evaluation, code, an_import, runpy, unpickling, unpickling_without_harm,
    numpy_unpickling, writing, appending, writing_by_descriptor, writing_through_a_link, copying, moving, removing,
    removing_all, a_folder, linking, a_database, a_connection, a_name_of_the_network, a_library, a_variable,
    another_folder,
]  # fmt: skip
