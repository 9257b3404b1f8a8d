"""What is to be seen, drawn: in colours where there is a terminal, in marks where there is none."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby
from typing import TYPE_CHECKING

from xp.show.look import Example, Kind, Shown, Token

if TYPE_CHECKING:
    from rich.console import Console
    from rich.text import Text

COLOURS: dict[Kind, tuple[str, str]] = {
    "seen": ("#e4e4e4 on #303030", "#e4e4e4 on #444444"),
    "trained": ("bold #ffffff on #1d6b3a", "bold #ffffff on #2b8a4d"),
    "cut": ("strike #8a8a8a on default", "strike #a8a8a8 on default"),
}
"""By turns, so that each token can be told from the next."""

SPECIAL = "#ffd75f"
NOTE = "bold #5fd7ff"

HEAD: dict[Kind, int] = {"seen": 160, "trained": 240, "cut": 40}
TAIL: dict[Kind, int] = {"seen": 80, "trained": 60, "cut": 0}
"""How many tokens of one kind are drawn before and after what is too long to read."""

BINS = 12
WIDTH = 40


def draw_legend(console: Console) -> None:
    """What the colours or marks mean."""
    from rich.text import Text

    if not console.is_terminal:
        console.print("a|token|the|model|sees  [a][token][it][learns][to][say]  {a|token|that|was|cut}")
        return
    legend = Text()
    for kind, meaning in (("seen", " seen "), ("trained", " trained "), ("cut", "cut")):
        legend.append(meaning, COLOURS[kind][1]).append("  ")  # type: ignore[index]
    console.print(legend.append(" special ", f"{SPECIAL} on #444444"))


def draw_rows(console: Console, side: str, shown: Shown) -> None:
    """The examples of a split, each under a line that says what it is."""
    from rich.text import Text

    number = shown.encoded.notes.get("rows", len(shown.encoded.rows))
    for example in shown.examples:
        counts = [
            f"{sum(token.kind == kind for token in example.tokens):,} {what}"
            for kind, what in (("trained", "trained"), ("cut", "cut"))
            if any(token.kind == kind for token in example.tokens)
        ]
        size = sum(not token.blank for token in example.tokens)
        facts = [*([f"{size:,} tokens"] if size else []), *counts, *example.facts]
        console.print()
        title = Text(f"{side} row {example.row:,} of {number:,}: ", "bold").append(", ".join(facts), "not bold")
        console.print(title, soft_wrap=True)
        if example.tokens:
            drawn = _coloured(example) if console.is_terminal else _marked(example)
            console.print(drawn, soft_wrap=True, end="" if drawn.plain.endswith("\n") else "\n")


def _runs(example: Example) -> Iterator[tuple[Kind, list[Token], str]]:
    """Tokens of one kind that stand together, the middle of a long run told by a word instead."""
    for kind, tokens in groupby(example.tokens, key=lambda token: token.kind):
        run = list(tokens)
        left = len(run) - HEAD[kind] - TAIL[kind]
        if left <= 0:
            yield kind, run, ""
            continue
        yield kind, run[: HEAD[kind]], f" … {left:,} more … "
        if TAIL[kind]:
            yield kind, run[-TAIL[kind] :], ""


def readable(text: str) -> str:
    """A token's text with its line breaks shown, and with no character that a terminal would obey."""
    shown = "".join(each if each.isprintable() or each == "\n" else repr(each)[1:-1] for each in text)
    return shown.replace("\n", "↵\n")


def _coloured(example: Example) -> Text:
    from rich.text import Text

    drawn, number = Text(), 0
    for kind, tokens, more in _runs(example):
        for number, token in enumerate(tokens, number + 1):  # noqa: B020
            style = COLOURS[kind][number % 2]
            if token.special:
                struck = "strike " if kind == "cut" else ""
                style = f"{struck}{SPECIAL} {style[style.index('on') :]}"
            drawn.append(readable(token.text), style)
            if token.note:
                drawn.append(f"→{readable(token.note)}", f"{NOTE} {style[style.index('on') :]}")
        drawn.append(more, "dim")
    return drawn


def _marked(example: Example) -> Text:
    from rich.text import Text

    drawn, before = Text(), None
    for kind, tokens, more in _runs(example):
        texts = [readable(token.text) + (f"→{readable(token.note)}" if token.note else "") for token in tokens]
        between = "|" if before == kind == "seen" else ""
        inner = "".join(f"[{text}]" for text in texts) if kind == "trained" else "|".join(texts)
        drawn.append(f"{between}{{{inner}}}" if kind == "cut" else f"{between}{inner}").append(more)
        before = kind
    return drawn


def draw_lengths(console: Console, splits: Mapping[str, Shown], longest: int | None, bound: int | None) -> None:
    """How long the rows of each split are, and what that means for ``task.max_length``.

    Args:
        console: where to draw.
        splits: by name, ``train`` first.
        longest: tokens at which rows are cut.
        bound: the most tokens that the model takes; None if there is no bound.
    """
    from rich.table import Table

    measured = {side: shown for side, shown in splits.items() if shown.lengths}
    if not measured:
        return
    table = Table("tokens a row", title="\nbefore anything is cut", title_justify="left")
    for side in measured:
        table.add_column(side, justify="right")
    columns = [_statistics(shown, longest) for shown in measured.values()]
    for name in columns[0]:
        table.add_row(name, *(column.get(name, "") for column in columns))
    console.print(table)
    for side, shown in measured.items():
        _draw_bars(console, side, shown.lengths, longest)
    lengths = sorted(next(iter(measured.values())).lengths)
    side = next(iter(measured))
    if longest is not None:
        enough, most = _rounded(_percentile(lengths, 0.99)), _rounded(lengths[-1])
        advice = (
            f"task.max_length={enough} keeps 99 % of the {side} rows whole, {most} all of them; it is {longest} now"
        )
        console.print(advice + (f", and this model takes at most {bound}" if bound is not None else ""), soft_wrap=True)


def _statistics(shown: Shown, longest: int | None) -> dict[str, str]:
    lengths, notes = sorted(shown.lengths), shown.encoded.notes
    values = {
        "rows": f"{notes.get('rows', len(lengths)):,}",
        "shortest": f"{lengths[0]:,}",
        "median": f"{_percentile(lengths, 0.5):,}",
        "mean": f"{sum(lengths) / len(lengths):,.1f}",
        "95 % have at most": f"{_percentile(lengths, 0.95):,}",
        "99 % have at most": f"{_percentile(lengths, 0.99):,}",
        "longest": f"{lengths[-1]:,}",
    }
    if longest is not None:
        over = sum(length > longest for length in lengths)
        values[f"more than {longest:,}"] = f"{over:,} ({over / len(lengths):.2%})"
    items, tokens = (sum(shown.encoded.rows[name]) for name in ("items", "length"))
    if items != len(shown.encoded.rows):  # Else a row is one item, and its tokens are not what is learned.
        values["of them trained"] = f"{items / max(tokens, 1):.1%}"
    return values


def _draw_bars(console: Console, side: str, lengths: Sequence[int], longest: int | None) -> None:
    """A bar for each range of lengths; the last one takes the longest hundredth as well."""
    from rich.text import Text

    least = min(lengths)
    width = max(1, math.ceil((_percentile(sorted(lengths), 0.99) + 1 - least) / BINS))
    counts = [0] * BINS
    for length in lengths:
        counts[min((length - least) // width, BINS - 1)] += 1
    digits = len(f"{least + width * BINS:,}")
    console.print(f"\n{side} rows by tokens")
    for number, count in enumerate(counts):
        low, last = least + number * width, number == BINS - 1
        high = max(lengths) if last else low + width - 1
        name = f"{low:>{digits},} {'and more' if last else f'to {high:>{digits},}':<{digits + 5}}"
        style = "red" if longest is not None and high > longest else "green"
        bar = "█" * (count * WIDTH // max(counts)) or ("▏" if count else "")
        console.print(Text(f"  {name} ").append(bar, style).append(f" {count:,}"))


def _percentile(lengths: Sequence[int], share: float) -> int:
    """The least length that this share of the sorted lengths does not exceed."""
    return lengths[max(0, math.ceil(share * len(lengths)) - 1)]


def _rounded(length: int) -> int:
    """Up to a multiple of 8, which devices like."""
    return -(-length // 8) * 8
