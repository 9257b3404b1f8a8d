"""Texts sorted by length and batched, beside one by one and beside batches as they come; the outputs must agree.

    python tests/benchmarks/prediction.py [model folder] [text file, a text and a tab first in each line]

Without arguments: the bundled model on functions of the standard library.
"""

from __future__ import annotations

import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")
ROUNDS = 3
NUMBER = 512
BATCH = 16


def texts(file: str | None) -> list[str]:
    """So many texts of very unequal length."""
    if file is not None:
        return [line.partition("\t")[0] for line in Path(file).read_text().splitlines()[:NUMBER]]
    from xp.config import compose
    from xp.run import Run

    compose.initialize(None)
    functions: list[str] = list(Run.parse(compose.values([])).data.load(("text", "label"), train=False).eval["text"])
    return [text[:1500] for text in functions[:NUMBER]]


def classifier(folder: str, save: Path) -> str:
    """The model with a head for two classes, of random weights, and a padding token; saved."""
    import torch
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    torch.manual_seed(0)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    network = AutoModelForSequenceClassification.from_pretrained(folder, num_labels=2, dtype=torch.float32)
    network.config.pad_token_id = tokenizer.pad_token_id
    for part in (tokenizer, network):
        part.save_pretrained(save)
    return str(save)


def by_pipeline(model: str, given: list[str], batch_size: int) -> tuple[float, list[Any]]:
    import torch
    from transformers import pipeline

    made = pipeline("text-classification", model=model, device="cpu", dtype=torch.float32)
    began = time.perf_counter()
    found = made(given, batch_size=batch_size, truncation=True, max_length=512)
    return time.perf_counter() - began, found


def by_xp(model: str, given: list[str]) -> tuple[float, list[Any]]:
    import torch

    from xp.commands.predict import load_trained
    from xp.config import compose
    from xp.prediction import engine, inputs, predictor
    from xp.run import Run

    compose.initialize(None)
    overrides = ["command=predict", "task=text_classification", "model=pretrained", f"model.path={model}"]
    run = Run.parse(compose.values([*overrides, "inputs=x"]))
    loaded = load_trained(run, predictor.candidates(run.task), "fp32")
    made = predictor.make(run.task, loaded, {}, run.generation, torch.device("cpu"))
    items = inputs.read(given, run.task, {})
    began = time.perf_counter()
    outcomes = engine.predict(made, items, lambda _: BATCH, 0, lambda item, output: output, lambda _: None, print)
    return time.perf_counter() - began, [outcome.output for outcome in outcomes]


def main() -> None:
    import transformers

    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    root = Path(__file__).parent.parent.parent
    folder, file = ([*sys.argv[1:], None, None])[:2]
    given = texts(file)
    with tempfile.TemporaryDirectory() as save:
        model = classifier(folder or str(root / "xp" / "assets" / "bundled"), Path(save))
        variants: dict[str, Callable[[], tuple[float, list[Any]]]] = {
            "pipeline, one by one": lambda: by_pipeline(model, given, 1),
            f"pipeline, batches of {BATCH}": lambda: by_pipeline(model, given, BATCH),
            f"xp, batches of {BATCH}": lambda: by_xp(model, given),
        }
        seconds: dict[str, list[float]] = {name: [] for name in variants}
        found: dict[str, list[Any]] = {}
        for _ in range(ROUNDS):
            for name, run in variants.items():
                took, found[name] = run()
                seconds[name].append(took)
    first, *_ = variants
    print(f"{'':<26}{'texts/s':>10}{'ratio':>8}  largest difference of a score")
    for name, took in seconds.items():
        ratio = statistics.median(one / other for one, other in zip(seconds[first], took, strict=True))
        worst = max(abs(one["score"] - other["score"]) for one, other in zip(found[first], found[name], strict=True))
        print(f"{name:<26}{len(given) / statistics.median(took):>10.1f}{ratio:>8.2f}  {worst:.1e}")


if __name__ == "__main__":
    main()
