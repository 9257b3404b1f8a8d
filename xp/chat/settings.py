"""What a conversation begins with."""

from __future__ import annotations

from pathlib import Path

from pydantic import PositiveInt

from xp.component import Settings


class Chat(Settings):
    """How ``command=chat`` begins."""

    system: str | None
    """System message that the conversation begins with; null leaves it to the template."""

    history: str | None
    """JSON file of a conversation to go on with: a list of messages, or a transcript of an earlier chat."""

    context: PositiveInt | None
    """Most tokens that the model is to see at once, its answer included; null: as many as its positions reach."""

    def check_files(self) -> None:
        """See whether the history can be gone on with, before anything heavy is imported.

        Raises:
            UserError: it cannot be read, or is no conversation.
        """
        if self.history:
            from xp.chat.talk import read

            read(Path(self.history))
