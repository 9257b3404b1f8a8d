"""The error for whoever wrote the config, and its "did you mean"."""

from __future__ import annotations

from collections.abc import Iterable, Sequence


class UserError(ValueError):
    """Something the user can mend. Ends in one line on stderr and exit code 2, never in a traceback.

    The text names the key or file, the rule, the nearest valid word and the next step; secrets in it are hidden.
    """

    def __init__(self, text: str) -> None:
        from xp.secret import redacted

        super().__init__(redacted(text))


MOST = 20
"""Folders that a message lists; there may be any number."""


def check_folder(key: str, path: str) -> None:
    """See whether a folder is there.

    Args:
        key: the setting that names it, with its value.
        path: where it is to be.

    Raises:
        UserError: it is not (says the nearest one).
    """
    from pathlib import Path

    if not Path(path).is_dir():
        folder = Path(path)
        names = sorted(entry.name for entry in folder.parent.glob("*") if entry.is_dir())
        near = _near(folder.name, names)  # Of whole paths, those that begin alike would be.
        there = f" In {folder.parent} there is: {', '.join(names[:MOST])}{', ...' * (len(names) > MOST)}." * bool(names)
        hint = f" Did you mean {str(folder.with_name(near))!r}?" if near else there
        raise UserError(f"{key}: there is no such folder.{hint}")


def elsewhere(group: str, choices: Sequence[str]) -> str:
    """That a key is none of the chosen component's, but of others of its group."""
    has = "has it" if len(choices) == 1 else "have it"
    return f"the chosen {group} has no such key; {group}={', '.join(choices)} {has}"


def nearest(word: str, words: Iterable[str]) -> str:
    """``" Did you mean 'lora'?"``, or the valid words where none is near, to end an error message with.

    Near is what has the same letters (``lroa``) or differs in few, what the word's letters are the initials of (``lr``
    for ``learning_rate``), and what contains it or is contained in it (``num_train_epochs`` for ``epochs``).
    """
    words = sorted(set(words))
    if near := _near(word, words):
        return f" Did you mean {near!r}?"
    return f" There is: {', '.join(words)}." if words else ""


def _near(word: str, words: Sequence[str]) -> str | None:
    from difflib import get_close_matches

    close = [each for each in words if sorted(each) == sorted(word)]
    close += get_close_matches(word, words, n=1, cutoff=0.7)
    close += [each for each in words if word == "".join(part[:1] for part in each.split("_"))]
    close += [each for each in sorted(words, key=len, reverse=True) if len(each) > 3 and each in word]
    close += [each for each in words if len(word) > 3 and word in each]
    close += get_close_matches(word, words, n=1, cutoff=0.5)
    return close[0] if close else None
