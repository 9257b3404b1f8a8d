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
        beside = [str(entry) for entry in Path(path).parent.glob("*") if entry.is_dir()]
        raise UserError(f"{key}: there is no such folder.{nearest(path, beside) if beside else ''}")


def elsewhere(group: str, choices: Sequence[str]) -> str:
    """That a key is none of the chosen component's, but of others of its group."""
    has = "has it" if len(choices) == 1 else "have it"
    return f"the chosen {group} has no such key; {group}={', '.join(choices)} {has}"


def nearest(word: str, words: Iterable[str]) -> str:
    """``" Did you mean 'lora'?"``, or the valid words where none is near, to end an error message with.

    Near is what has the same letters (``lroa``) or differs in few, what the word's letters are the initials of (``lr``
    for ``learning_rate``), and what contains it or is contained in it (``num_train_epochs`` for ``epochs``).
    """
    from difflib import get_close_matches

    words = sorted(set(words))
    close = [each for each in words if sorted(each) == sorted(word)]
    close += get_close_matches(word, words, n=1, cutoff=0.7)
    close += [each for each in words if word == "".join(part[:1] for part in each.split("_"))]
    close += [each for each in sorted(words, key=len, reverse=True) if len(each) > 3 and each in word]
    close += [each for each in words if len(word) > 3 and word in each]
    close += get_close_matches(word, words, n=1, cutoff=0.5)
    if close:
        return f" Did you mean {close[0]!r}?"
    return f" There is: {', '.join(words)}." if words else ""
