"""Generate: what a model writes to a person's prompts."""

from __future__ import annotations

import shutil
import time
from pathlib import Path
from typing import Any

from xp.commands.drafting import load_draft
from xp.commands.opening import choose_machine, describe_model, take
from xp.commands.writing import wish_to_write
from xp.error import UserError
from xp.report import Report
from xp.run import Run
from xp.task.chat import Chat
from xp.tracking import Tracker


def generate(run: Run, folder: Path, tracker: Tracker, report: Report) -> dict[str, Any]:
    """Let a model go on from prompts.

    Returns:
        What goes to ``result.json``: ``metrics``, ``failed`` (how many prompts have no answer), places and times.

    Raises:
        UserError: the model cannot write, or no prompt has an answer.
    """
    import torch

    from xp.prediction import engine, inputs, outputs, writer
    from xp.prediction.prompts import Prompts

    started = time.perf_counter()
    device, precision = choose_machine(run, tracker, report)
    columns = {part: column for part, column in run.data.columns.items() if isinstance(column, str)}
    items = inputs.read(run.inputs, Prompts(name="text_generation"), columns)
    classes = ("AutoModelForCausalLM", "AutoModelForSeq2SeqLM")
    wish = wish_to_write(run, precision, classes, "AutoTokenizer", report)
    torch.manual_seed(run.seed)
    loaded = take(run, wish, report)
    describe_model(loaded, tracker, report)
    if isinstance(run.task, Chat):
        for line in run.task.equip(loaded.processor, loaded.network, adapted=True):
            report.say(line)
    for line in writer.prepare(items, loaded):
        report.say(line)
    scheduled = run.prediction.continuous_batching
    made = writer.make(loaded, run.generation, load_draft(run, wish, device), run.seed, device, scheduled)
    for line in made.notes:
        report.say(line)
    tracker.opened()

    began = time.perf_counter()
    with report.predicting(len(items)) as done:
        most = made.most(run.prediction.batch_tokens)
        outcomes = engine.predict(made, items, most, run.seed, lambda _, answers: answers, done, report.say)
    seconds = time.perf_counter() - began
    file, lines = outputs.write_answers(outcomes, folder)
    if run.prediction.output is not None:
        shutil.copyfile(file, run.prediction.output)
    report.answers(lines, run.prediction.shown, file)

    failed = sum(bool(outcome.error) for outcome in outcomes)
    written = [line for line in lines if "error" not in line]
    new = sum(line["new_tokens"] for line in written)
    metrics = {
        "generate/prompts": float(len(outcomes)),
        "generate/failed": float(failed),
        "generate/prompt_tokens": float(sum(line["prompt_tokens"] for line in written if line["sample"] == 0)),
        "generate/new_tokens": float(new),
        "generate/finished": sum(line["finish"].startswith("stop") for line in written) / max(1, len(written)),
        "generate/seconds": seconds,
        "generate/tokens_per_second": new / seconds,
    }
    tracker.log(metrics, 0)
    tracker.artifact(file)
    tracker.table(outputs.answer_table(lines), "generations.json")
    if failed == len(outcomes):
        raise UserError(f"none of the {failed} prompts has an answer; {engine.described(outcomes[0])}")
    return {
        "objective": metrics["generate/tokens_per_second"],
        "metric": "generate/tokens_per_second",
        "goal": "max",
        "metrics": metrics,
        "baseline": {},
        "failed": failed,
        "generations": str(file),
        "seconds": time.perf_counter() - started,
    }
