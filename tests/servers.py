"""A real MLflow server on localhost, and what may stand between it and a run on a bad day."""

from __future__ import annotations

import os
import select
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


@contextmanager
def serving(folder: Path) -> Iterator[str]:
    """The address of an MLflow server on an sqlite file of its own."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    store = ["--backend-store-uri", f"sqlite:///{folder}/m.db", "--artifacts-destination", str(folder / "artifacts")]
    place = ["--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    with (folder / "log").open("w") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "mlflow", "server", *place, *store],
            stdout=log,
            stderr=log,
            cwd=folder,
            start_new_session=True,
        )
    address = f"http://127.0.0.1:{port}"
    try:
        for _ in range(240):
            try:
                urllib.request.urlopen(f"{address}/health", timeout=1)
                break
            except OSError:
                assert process.poll() is None, (folder / "log").read_text()
                time.sleep(0.5)
        yield address
    finally:
        os.killpg(process.pid, 15)
        process.wait(timeout=60)


class Proxy:
    """Stands before a server, each connection of which is one request; can be switched while it is used.

    ``mode`` is ``well``; ``dead``: no connection; ``mute``: the request arrives nowhere and is
    answered by nobody; or a status code that answers everything.
    """

    def __init__(self, server: str) -> None:
        self.target = int(server.rpartition(":")[2])
        self.mode = "well"
        self.requests: list[str] = []
        """The first line of each request, in the order they came."""

        self.lose = ""
        """What the request has in its first line whose answer is to get lost, once."""

        self.held = 0
        """Requests that nobody has answered, and whose sender still waits."""

        self._socket = socket.create_server(("127.0.0.1", 0), backlog=50)
        self.port = self._socket.getsockname()[1]
        self.address = f"http://127.0.0.1:{self.port}"
        self._closed = threading.Event()
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        self._closed.set()
        self._socket.close()

    def _accept(self) -> None:
        while not self._closed.is_set():
            with suppress(OSError):
                connection, _ = self._socket.accept()
                threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        with suppress(OSError), connection:
            if self.mode == "dead":
                # Reset, as the port of a server that is gone would.
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
                return
            head = b""
            while b"\r\n\r\n" not in head:
                part = connection.recv(65536)
                if not part:
                    return
                head += part
            self.requests.append(head.split(b"\r\n")[0].decode())
            mode = self.mode
            if self.lose and self.lose in self.requests[-1]:
                mode, self.lose = "lost", ""
            if mode.isdigit():
                connection.sendall(f"HTTP/1.1 {mode} No\r\nContent-Length: 2\r\nConnection: close\r\n\r\nno".encode())
                return
            if mode == "mute":
                self._hold(connection)
                return
            # One request a connection, so that a switch of the mode is heard by the next.
            line, _, rest = head.partition(b"\r\n")
            rest = rest.replace(b"Connection: keep-alive", b"Connection: close")
            with socket.create_connection(("127.0.0.1", self.target)) as there:
                there.sendall(line + b"\r\n" + rest)
                self._between(connection, there, lost=mode == "lost")

    def _hold(self, connection: socket.socket) -> None:
        self.held += 1
        try:
            while self.mode == "mute" and not self._closed.is_set():
                if select.select([connection], [], [], 0.05)[0] and not connection.recv(65536):
                    return
        finally:
            self.held -= 1

    @staticmethod
    def _between(connection: socket.socket, there: socket.socket, lost: bool) -> None:
        while True:
            for ready in select.select([connection, there], [], [], 60)[0]:
                part = ready.recv(65536)
                if ready is there:
                    if not part or lost:
                        return  # A lost answer: what it was asked for is done, and nobody hears it.
                    connection.sendall(part)
                elif part:
                    there.sendall(part)
                else:
                    return
