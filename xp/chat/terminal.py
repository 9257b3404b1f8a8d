"""Terminal: what the user types, line by line or through a pipe, and what is shown."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

BLOCK = '"""'
"""Begins and ends a message of several lines."""


class Terminal:
    """A person at a terminal, or a pipe: then only answers go to the standard output, and all else beside it."""

    def __init__(self, words: Iterable[str] = ()) -> None:
        from rich.console import Console

        self.interactive = self.is_interactive()
        self.console = Console(highlight=False, stderr=not self.interactive)
        self.stopped = False
        """Whether Ctrl-C has asked for the end of this answer."""

        if self.interactive:
            self._edits(sorted(words))

    @staticmethod
    def is_interactive() -> bool:
        """Whether there is a person at both ends."""
        return sys.stdin.isatty() and sys.stdout.isatty()

    def say(self, text: str) -> None:
        """A line of xp's own."""
        self.console.print(text, style="dim" if self.interactive else None, markup=False, soft_wrap=True)

    def show(self, piece: str) -> None:
        """A piece of an answer."""
        sys.stdout.write(piece)
        sys.stdout.flush()

    def read(self) -> str | None:
        """The next message, of one line or several; None at the end (Ctrl-D). Ctrl-C forgets what was begun."""
        while True:
            try:
                return self._message()
            except EOFError:
                return None
            except KeyboardInterrupt:
                if not self.interactive:
                    raise
                self.show("\n")
                self.say("Ctrl-D or /exit ends the chat")

    def _message(self) -> str:
        first = self._line(">>> ")
        if first.lstrip().startswith(BLOCK):
            rest = first.lstrip().removeprefix(BLOCK)
            lines = []
            while BLOCK not in rest:
                lines.append(rest)
                rest = self._line("... ")
            return "\n".join([*lines, rest.partition(BLOCK)[0]]).strip("\n")
        lines = [first]
        while lines[-1].endswith("\\"):
            lines[-1] = lines[-1][:-1]
            lines.append(self._line("... "))
        return "\n".join(lines)

    def _line(self, sign: str) -> str:
        return input(sign if self.interactive else "")

    @contextmanager
    def answering(self) -> Iterator[Callable[[], bool]]:
        """Ctrl-C ends the answer here, and not the program; gives what says whether it has."""
        self.stopped = False

        def stop(number: int, frame: Any) -> None:
            self.stopped = True

        before = signal.signal(signal.SIGINT, stop)
        try:
            yield lambda: self.stopped
        finally:
            signal.signal(signal.SIGINT, before)

    def _edits(self, words: list[str]) -> None:
        """Arrow keys, earlier messages, and commands completed by the tabulator, where Python has readline."""
        with suppress(ImportError):
            import readline

            def complete(begun: str, number: int) -> str | None:
                found = [word for word in words if word.startswith(begun)] if begun.startswith("/") else []
                return found[number] if number < len(found) else None

            readline.set_completer_delims(" ")
            readline.set_completer(complete)
            readline.parse_and_bind("tab: complete")
            readline.parse_and_bind("set enable-bracketed-paste on")  # Pasted lines are one message.
