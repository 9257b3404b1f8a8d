"""Report: what a person sees of a run in the terminal."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from xp.console import console
from xp.process import world
from xp.secret import redacted

if TYPE_CHECKING:
    from rich.progress import TaskID

    from xp.model import Loaded
    from xp.run import Run

COUNTS = ("predict/items", "predict/failed", "predict/truncated", "chat/answers", "chat/new_tokens", "generate/prompts",
          "generate/failed", "generate/prompt_tokens", "generate/new_tokens")  # fmt: skip

LINES = 20
"""At most about this many lines of training progress where there is no terminal to draw a bar in."""


class Report:
    """Speaks for rank 0 and is silent on the others."""

    def __init__(self, aside: bool = False) -> None:
        """Speak on the standard output, or beside it (``aside``), where that is for something else."""
        self.console = console(quiet=world.rank() != 0, stderr=aside)
        self._total = 0
        self._next = 0
        self._task: TaskID | None = None
        self._bar: Any = None

    def say(self, text: str) -> None:
        """One line, without secrets that a library's error may have brought into it."""
        self.console.print(redacted(text), soft_wrap=True)

    def rows(self, side: str, notes: dict[str, int], max_length: int | None) -> None:
        """What became of a split's rows, with a warning where some were cut or dropped."""
        rest = {name: number for name, number in notes.items() if name != "rows" and number}
        if not rest:
            return
        counts = ", ".join(f"{number:,} {name.replace('_', ' ')}" for name, number in rest.items())
        shares = [f"{rest[word] / notes['rows']:.1%}" for word in ("truncated", "dropped") if word in rest]
        share = f" ({shares[0]} of the rows)" if shares else ""
        at = f" at task.max_length={max_length}" if max_length is not None else ""
        self.say(f"{side}: {counts}{at}{share}")

    def model(self, run: Run, loaded: Loaded, trained: int, weights: int) -> None:
        """What will be trained."""
        name = type(loaded.network).__name__
        self.say(f"{run.choices['model']} ({name}), {trained:,} of {weights:,} weights train ({trained / weights:.2%})")
        if loaded.new and run.model.name != "scratch":
            self.say(f"new, not in the pretrained weights: {', '.join(loaded.new[:6])}{' ...' * (len(loaded.new) > 6)}")

    def start(self, total: int) -> None:
        """A training of so many steps is about to begin."""
        self._total = total
        self._next = 1

    def __enter__(self) -> Report:
        if not self.console.is_terminal or self.console.quiet:
            return self
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        columns = (TextColumn("training"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        self._bar = Progress(*columns, TextColumn("{task.fields[state]}"), console=self.console, transient=True)
        self._task = self._bar.add_task("", total=self._total, state="")
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()
            self._bar = None

    def point(self, metrics: dict[str, float], step: int) -> None:
        """A point of the training curves, or an evaluation."""
        if "train/loss" in metrics:
            state = (
                f"loss {metrics['train/loss']:.4f}  lr {metrics['train/lr']:.2e}  "
                f"{metrics['train/items_per_second']:,.0f} items/s"
            )
            if self._bar is not None:
                self._bar.update(self._task, completed=step, state=state)
            elif step >= self._next:
                self.say(f"step {step:>{len(str(self._total))}}/{self._total}  {state}")
                self._next = step + max(1, self._total // LINES)
        else:
            values = "  ".join(f"{name} {value:.4f}" for name, value in metrics.items())
            self.say(f"step {step:>{len(str(self._total))}}/{self._total}  {values}")

    @contextmanager
    def predicting(self, total: int) -> Iterator[Callable[[int], None]]:
        """A bar for so many inputs, on a terminal; gives what is to be told of every few that are done."""
        if not self.console.is_terminal or self.console.quiet:
            yield lambda number: None
            return
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        columns = (TextColumn("predicting"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        with Progress(*columns, console=self.console, transient=True) as bar:
            task = bar.add_task("", total=total)
            yield lambda number: bar.advance(task, number)

    def predictions(self, lines: list[dict[str, Any]], most: int, file: Path) -> None:
        """The first predictions as a table, and why inputs have none, the first `LINES` of them; ``file`` has all."""
        from rich.table import Table
        from rich.text import Text

        table = Table("", "input", "output", show_lines=False)
        for line in lines[:most]:
            output = "failed" if "error" in line else brief(line["output"])
            mark = " (of its beginning)" if "truncated" in line else ""
            table.add_row(str(line["position"]), Text(brief(line["input"], 50)), Text(output + mark))
        if table.row_count:
            self.console.print(table)
        if len(lines) > most:
            self.say(f"… and {len(lines) - most:,} more in {file}")
        self._failures(lines, file)
        cut = sum("truncated" in line for line in lines)
        if cut:
            self.say(f"truncated: {cut:,} of {len(lines):,} inputs were longer than the model reaches; what came "
                     "after that was left out, as task.overlong says")  # fmt: skip

    def answers(self, lines: list[dict[str, Any]], most: int, file: Path) -> None:
        """The first answers as a table, and why prompts have none, likewise."""
        from rich.table import Table
        from rich.text import Text

        several = any(line.get("sample") for line in lines)
        table = Table("", *(["sample"] if several else []), "prompt", "what follows", "finish", "tokens", "tokens/s")
        table.columns[-1].justify = table.columns[-2].justify = "right"
        for line in lines[:most]:
            answer = "failed" if "error" in line else visible(line["text"])
            sample = [str(line.get("sample", ""))] if several else []
            sizes = f"{line['prompt_tokens']:,} + {line['new_tokens']:,}" if "new_tokens" in line else ""
            speed = f"{line['tokens_per_second']:,.1f}" if "tokens_per_second" in line else ""
            prompt = Text(brief(line["input"], 50))
            table.add_row(str(line["position"]), *sample, prompt, Text(answer), line.get("finish", ""), sizes, speed)
        if table.row_count:
            self.console.print(table)
        if len(lines) > most:
            self.say(f"… and {len(lines) - most:,} more in {file}")
        self._failures(lines, file)

    def _failures(self, lines: list[dict[str, Any]], file: Path) -> None:
        failures = [line for line in lines if "error" in line]
        if len(failures) == len(lines):
            failures = failures[1:]  # The first is what the run ends with.
        for line in failures[:LINES]:
            place = f" ({line['place']})" if "place" in line else ""
            self.say(f"failed   input {line['position']}{place}: {line['error']}")
        if len(failures) > LINES:
            self.say(f"failed   … and {len(failures) - LINES:,} more; see {file}")

    def result(self, run: Run, result: dict[str, Any], run_id: str) -> None:
        """The short table at the end."""
        from rich.table import Table

        subjects = {"predict": f" on {run.choices['task']}", "generate": f" by {run.choices['generation']}"}
        subjects |= {"chat": "", "merge": ""}
        subject = subjects.get(run.command, f" on {run.choices['data']}")
        table = Table(title=f"{run.command} {run.choices['model']}{subject}", title_justify="left")
        table.add_column("metric")
        table.add_column("value", justify="right")
        baseline = result["baseline"]
        if baseline:
            table.add_column("baseline", justify="right")
        for name, value in result["metrics"].items():
            beside = f"{baseline[name]:.4f}" if name in baseline else ""
            table.add_row(name, f"{value:,.0f}" if name in COUNTS else f"{value:.4f}", *([beside] if baseline else []))
        self.console.print(table)
        lines = {}
        if "trainable" in result:
            share = result["trainable"] / result["weights"]
            lines["trained"] = f"{result['trainable']:,} of {result['weights']:,} weights ({share:.2%})"
        lines["time"] = _duration(result["seconds"])
        if "training_seconds" in result:
            lines["time"] += f", training {_duration(result['training_seconds'])}"
        lines["run"] = run_id or "not in MLflow yet; python -m xp command=sync brings it there"
        for place in ("model", "predictions", "generations", "transcript"):
            if place in result:
                lines[place] = result[place]
        lines["compare"] = (
            f"mlflow ui --backend-store-uri {run.tracking.uri}" if run.tracking.embedded else run.tracking.uri
        )
        for name, text in lines.items():
            self.say(f"{name:<{max(map(len, lines))}} {text}")


def _duration(seconds: float) -> str:
    return (
        time.strftime("%H:%M:%S", time.gmtime(seconds))
        if seconds >= 3600
        else f"{int(seconds // 60)}:{seconds % 60:04.1f}"
    )


def brief(output: Any, width: int = 100) -> str:
    """A prediction in one short line, with a mark where it was cut."""
    if isinstance(output, list) and len(output) == 1:
        output = output[0]
    if isinstance(output, dict) and len(output) == 1:
        output = next(iter(output.values()))
    if isinstance(output, dict) and set(output) == {"label", "score"}:
        output = [output]
    scored = isinstance(output, list) and output and all(
        isinstance(each, dict) and len(each) == 2 and "score" in each for each in output
    )  # fmt: skip
    if scored:
        named = [(next(v for k, v in each.items() if k != "score"), each["score"]) for each in output]
        text = ", ".join(f"{name} {score:.4f}" if isinstance(score, float) else f"{name}" for name, score in named)
    else:
        text = output if isinstance(output, str) else json.dumps(output, ensure_ascii=False, default=str)
    text = " ".join(text.split())
    return text if len(text) <= width else text[: width - 1] + "…"


def visible(text: str, width: int = 200) -> str:
    """A text in one line, its line ends as signs, with a mark where it was cut."""
    text = text.replace("\n", "↵").replace("\t", "→")
    return text if len(text) <= width else text[: width - 1] + "…"


def show_tasks(tasks: list[dict[str, str]]) -> None:
    """The table of all tasks: what they are called, whether models are trained for them, what they take and give."""
    from rich.table import Table
    from rich.text import Text

    screen = console()
    if not screen.is_terminal:
        screen.width = 240
    table = Table(*tasks[0], title="python -m xp command=predict task=<task> inputs=...", title_justify="left")
    for task in tasks:
        table.add_row(*map(Text, task.values()))
    screen.print(table)
