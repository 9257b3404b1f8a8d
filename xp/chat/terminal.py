"""Terminal: what the user types, line by line or through a pipe, and what is shown."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

from xp.console import console
from xp.error import UserError

BLOCK = '"""'
"""Begins and ends a message of several lines."""


class Terminal:
    """A person at a terminal, or a pipe: then only answers go to the standard output, and all else beside it."""

    def __init__(self, words: Iterable[str] = ()) -> None:
        self.interactive = self.is_interactive()
        self.console = console(stderr=not self.interactive)
        self.stopped = False
        """Whether Ctrl-C has asked for the end of this answer."""

        self.quoted = False
        """Whether what was read last stood in a block, where a slash is no order."""

        self._reads = self._answers = self._gone = False
        self._since = 0.0
        if self.interactive:
            self._edits(sorted(words))

    @staticmethod
    def is_interactive() -> bool:
        """Whether there is a person at both ends."""
        return sys.stdin.isatty() and sys.stdout.isatty()

    def say(self, text: str) -> None:
        """A line of xp's own."""
        self.console.print(text, style="dim" if self.interactive else None, soft_wrap=True)

    def show(self, piece: str) -> None:
        """A piece of an answer; the chat ends where whoever read them is gone."""
        try:
            sys.stdout.write(piece)
            sys.stdout.flush()
        except BrokenPipeError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # For what is still to be flushed.
            self._gone = self.stopped = True
            self.say("nobody reads the answers any more: the chat ends")

    def read(self) -> str | None:
        """The next message, of one line or several; None at the end (Ctrl-D). Ctrl-C forgets what was begun.

        Raises:
            UserError: what was read is no text.
        """
        while not self._gone:
            try:
                self._reads, self.stopped = True, False
                message = self._message()
                self._reads = False
            except EOFError:
                break
            except UnicodeDecodeError as error:
                self._reads = False
                raise UserError("this is no UTF-8, and is not said to the model") from error
            except KeyboardInterrupt:
                self._reads = False
                if not self.interactive:
                    raise
                self.show("\n")
                self.say("Ctrl-D or /exit ends the chat")
            else:
                if any("\ud800" <= sign <= "\udfff" for sign in message):
                    raise UserError("this is no UTF-8, and is not said to the model")
                return message
        self._reads = False
        return None

    def _message(self) -> str:
        first = self._line(">>> ")
        self.quoted = first.lstrip().startswith(BLOCK)
        if self.quoted:
            lines: list[str] = []
            line: str | None = first.lstrip().removeprefix(BLOCK)
            while line is not None and BLOCK not in line:
                lines.append(line)
                line = self._another()
            last, _, after = (line or "").partition(BLOCK)
            return "\n".join([*lines, last]).strip("\n") + after
        lines = [first]
        while lines[-1].endswith("\\"):
            lines[-1] = lines[-1][:-1]
            lines.append(self._another() or "")
        return "\n".join(lines)

    def _another(self) -> str | None:
        """One more line of a message; None where Ctrl-D, or the end of a pipe, ends the message."""
        try:
            return self._line("... ")
        except EOFError:
            if self.interactive:
                self.show("\n")
            return None

    def _line(self, sign: str) -> str:
        return input(sign if self.interactive else "")

    @contextmanager
    def talking(self) -> Iterator[None]:
        """Ctrl-C ends an answer, or what is being typed, and not the program; one with a pipe ends, between answers."""
        before = signal.getsignal(signal.SIGINT)

        def heard(number: int, frame: Any) -> None:
            waits = self.interactive and not self._reads
            if self._answers:
                self.stopped = True
            elif waits and not self.stopped:
                self.stopped, self._since = True, time.monotonic()
                os.write(2, b"\nCtrl-C once more, in a second, ends the program\n")
            elif waits and time.monotonic() - self._since < 1:
                pass  # A key that is held down.
            elif self._reads or not callable(before):
                raise KeyboardInterrupt
            else:
                before(number, frame)

        signal.signal(signal.SIGINT, heard)
        try:
            yield
        finally:
            signal.signal(signal.SIGINT, before)

    @contextmanager
    def answering(self) -> Iterator[Callable[[], bool]]:
        """Ctrl-C ends the answer here; gives what says whether it has."""
        self.stopped, self._answers = False, True
        try:
            yield lambda: self.stopped
        finally:
            self.stopped = self._answers = False

    def _edits(self, words: list[str]) -> None:
        """Arrow keys, earlier messages, and commands completed by the tabulator, where Python has readline."""
        with suppress(ImportError):
            import readline

            def complete(begun: str, number: int) -> str | None:
                found = [word for word in words if word.startswith(begun)] if begun.startswith("/") else []
                return found[number] if number < len(found) else None

            # A Ctrl-C that comes while readline begins would be heard as the line ends, and take the line with it. Here
            # Python hears it before anything is typed.
            with suppress(AttributeError):  # Not every library in its place has one.
                readline.set_pre_input_hook(lambda: None)
            readline.set_completer_delims(" ")
            readline.set_completer(complete)
            readline.parse_and_bind("tab: complete")
            readline.parse_and_bind("set enable-bracketed-paste on")  # Pasted lines are one message.
