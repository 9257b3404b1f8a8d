"""Chat with a model."""

from __future__ import annotations

import time
from functools import partial
from pathlib import Path
from typing import Any

from xp.chat.orders import ORDERS, Desk
from xp.chat.speaker import Speaker
from xp.chat.talk import Talk, read
from xp.chat.terminal import Terminal
from xp.commands.drafting import load_draft
from xp.commands.opening import choose_machine, describe_model, take
from xp.commands.writing import wish_to_write
from xp.error import UserError
from xp.hardware import autocast
from xp.model import positions
from xp.model.placement import place
from xp.report import Report
from xp.run import Run
from xp.task.chat import Chat
from xp.tracking import Tracker

ANY = (ImportError, ValueError, TypeError, LookupError, AttributeError, RuntimeError, AssertionError)
"""What transformers and torch raise on a setting that the model cannot honour."""


def chat(run: Run, folder: Path, tracker: Tracker, report: Report) -> dict[str, Any]:
    """Chat with a model, in a terminal or through a pipe.

    Returns:
        What goes to ``result.json``: ``metrics``, the place of the transcript, and times.

    Raises:
        UserError: the model cannot write, or the history or a setting does not fit it.
    """
    started = time.perf_counter()
    terminal = Terminal(ORDERS)
    report.console = terminal.console
    task = run.task
    assert isinstance(task, Chat)
    talk = Talk(read(Path(run.chat.history)) if run.chat.history else [])
    if run.chat.system is not None:
        talk.system = run.chat.system
    device, precision = choose_machine(run, tracker, report)
    kinds = ("CausalLM", "Seq2SeqLM", "ImageTextToText", "MultimodalLM")
    wish = wish_to_write(run, precision, tuple(f"AutoModelFor{each}" for each in kinds), "AutoProcessor", report)
    loaded = take(run, wish, report)
    describe_model(loaded, tracker, report)
    network = place(loaded.network, device).eval()
    tokenizer = getattr(loaded.processor, "tokenizer", loaded.processor)
    plain = not loaded.processor.chat_template and task.template == "auto"
    for line in task.equip(tokenizer, network, adapted=True):
        report.say(line)
    context = _context(run, network, tokenizer)
    draft = load_draft(run, wish, device)
    speaker = Speaker(network, loaded.processor, run.generation, context, run.seed, draft, plain)
    speaker.check(run.generation)
    desk = Desk(talk, speaker, terminal.say, partial(run.tracking.locate, runs=run.runs_folder))
    tracker.opened()
    how = "plainly: it has no template of its own" if plain else "through its template"
    report.say(f"{run.choices['model']} answers {how}; /help says what can be ordered, Ctrl-D ends")
    file = folder / "transcript.json"
    with terminal.talking():
        numbers = _converse(desk, terminal, file, tracker, partial(autocast, precision, device))
    tracker.log(numbers, int(numbers["chat/answers"]))
    tracker.table(_table(talk), "conversation.json")  # Beside transcript.json, which a chat can go on from.
    return {
        "objective": numbers["chat/tokens_per_second"],
        "metric": "chat/tokens_per_second",
        "goal": "max",
        "metrics": numbers,
        "baseline": {},
        "transcript": str(file),
        "seconds": time.perf_counter() - started,
    }


def _context(run: Run, network: Any, tokenizer: Any) -> int | None:
    """Most tokens that the model sees at once.

    Raises:
        UserError: more are asked for than its positions reach.
    """
    text = network.config.get_text_config()
    reach = min(positions(text) or 1 << 60, tokenizer.model_max_length or 1 << 60)
    if run.chat.context is not None and run.chat.context > reach:
        raise UserError(f"chat.context={run.chat.context}: this model sees at most {reach} tokens; use that or less")
    return run.chat.context or (reach if reach < 1 << 30 else None)


def _converse(desk: Desk, terminal: Terminal, file: Path, tracker: Tracker, computing: Any) -> dict[str, float]:
    """Talk until the user ends it; the transcript is on disk after every turn. Gives how much was said and how fast."""
    talk, answers, tokens, seconds, attempts = desk.talk, 0, 0, 0.0, 0
    due = talk.waits
    if due:
        terminal.say("the history ends with a question, which is answered first")
    before, back = (talk.messages[:-1], talk.attached), "the question is taken back"
    while True:
        if not due:
            before, back = talk.kept(), "the conversation is as it was"
            try:
                line = terminal.read()
                if line is None:
                    break
                if not line.strip():
                    continue
                due = _heard(desk, line, terminal.quoted)
                if talk.messages[:-1] == before[0]:
                    back = "what was said is taken back"
            except UserError as error:
                terminal.say(f"xp: {error}")
            except EOFError:
                break
        if due:
            due, attempts = False, attempts + 1
            try:
                with terminal.answering() as stopped, computing():
                    about = _answer(desk, terminal, stopped, attempts)
            except UserError as error:
                talk.back(before)
                terminal.say(f"xp: {error}; {back}")
            else:
                answers, tokens, seconds = answers + 1, tokens + about["tokens"], seconds + about["seconds"]
                points = {f"chat/{name}": float(about[name]) for name in ("prompt_tokens", "tokens", "seconds")}
                tracker.log(points, answers)
        talk.save(file)
        tracker.artifact(file)
    speed = tokens / seconds if seconds else 0.0
    return {"chat/answers": float(answers), "chat/new_tokens": float(tokens), "chat/tokens_per_second": speed}


def _heard(desk: Desk, line: str, quoted: bool) -> bool:
    """Do what the user says; True where an answer is due now."""
    if line.lstrip().startswith("/") and not quoted:
        return desk.order(line)
    desk.talk.ask(line)
    return True


def _answer(desk: Desk, terminal: Terminal, stopped: Any, attempt: int) -> dict[str, Any]:
    """One answer, shown while it is written.

    Raises:
        UserError: what was asked cannot be answered.
    """
    talk, speaker = desk.talk, desk.speaker
    inputs, dropped = speaker.fitted(talk)
    if dropped:
        left = "oldest turn" if dropped == 1 else f"{dropped} oldest turns"
        terminal.say(f"the context of {speaker.context:,} tokens is full: the model does not see the {left}")
    try:
        answer = speaker.answer(inputs, [talk.turns, attempt], terminal.show, stopped)
    except UserError:
        raise
    except ANY as error:
        terminal.show("\n")
        said = " ".join(str(error).split())[:300]
        raise UserError(f"the model cannot answer like this: {type(error).__name__}: {said}") from error
    terminal.show("\n")
    if answer.reason == "length":
        most = speaker.generation.max_new_tokens
        terminal.say(f"cut at max_new_tokens={most}; /set max_new_tokens=<more> and /retry, or ask on")
    elif answer.reason == "time":
        terminal.say(f"ended at max_time={speaker.generation.max_time}; /set max_time=<more> and /retry, or ask on")
    elif answer.reason == "stopped":
        terminal.say("stopped")
    talk.answer(answer.text, answer.about)
    return answer.about


def _table(talk: Talk) -> dict[str, list[Any]]:
    """The conversation as columns."""
    return {
        "role": [message["role"] for message in talk.messages],
        "content": [message["content"] if isinstance(message["content"], str) else str(message["content"])
                    for message in talk.messages],
        "reason": [message.get("about", {}).get("reason", "") for message in talk.messages],
        "tokens": [message.get("about", {}).get("tokens", 0) for message in talk.messages],
    }  # fmt: skip
