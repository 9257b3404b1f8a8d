"""Adapters' folders opened again, all in one process that is not the one that trained them."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any

from bombs import forkserver

from xp.run import Run


def logits(network: Any) -> Any:
    """Of a batch that is the same everywhere."""
    import torch

    tokens = torch.arange(1, 19).reshape(2, 9)
    with torch.inference_mode():
        output = network.eval()(input_ids=tokens, attention_mask=torch.ones_like(tokens))
    return output.logits


def by_xp(values: dict[str, Any], folder: str) -> Any:
    """The logits of an adapter's folder as xp opens it."""
    from xp.commands.opening import load, read
    from xp.report import Report

    values["model"] |= {"path": folder}
    run = Run.parse(values | {"command": "evaluate"})
    report = Report()
    task, _, _ = read(run, report, False)
    return logits(load(run, task, "fp32", [], None, report).network)


def by_peft(values: dict[str, Any], folder: str) -> Any:
    """The logits as peft opens it, which xp has no part in."""
    from peft import AutoPeftModelForCausalLM

    return logits(AutoPeftModelForCausalLM.from_pretrained(folder))


def by_transformers(values: dict[str, Any], folder: str) -> Any:
    """The logits as transformers opens it, which neither xp nor peft has a part in."""
    from transformers import AutoModelForCausalLM

    return logits(AutoModelForCausalLM.from_pretrained(folder))


def _child(here: str, answer: Connection, how: Callable[..., Any], jobs: dict[str, tuple[dict[str, Any], str]]) -> None:
    os.chdir(here)
    warnings.simplefilter("ignore")
    for name, arguments in jobs.items():
        try:
            answer.send((name, how(*arguments).numpy()))
        except Exception as error:
            answer.send((name, f"{type(error).__name__}: {error}"))


def reopened(how: Callable[..., Any], jobs: dict[str, tuple[dict[str, Any], str]]) -> dict[str, Any]:
    """What ``how`` gives for each job in a new process: an array, or what went wrong."""
    context = forkserver()
    ours, theirs = context.Pipe(duplex=False)
    process = context.Process(target=_child, args=(os.getcwd(), theirs, how, jobs))
    process.start()
    theirs.close()
    found = dict(ours.recv() for _ in jobs)
    process.join(timeout=60)
    return found
