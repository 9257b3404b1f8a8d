"""command=generate's batches beside plain `model.generate`, one prompt at a time and in batches as they come.

    python tests/benchmarks/generation.py

The bundled model writes 32 tokens at most to the beginnings of 200 functions of the standard library, greedily, in
fp32, on one thread. All ways must write the same texts. Seconds are those of the processor, so that what else the
machine does is left out.
"""

from __future__ import annotations

import os
import random
import statistics
import time
from collections.abc import Callable
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ["OMP_NUM_THREADS"] = "1"
ROUNDS, NUMBER, NEW, BATCH, BUDGET = 3, 200, 32, 16, 16384


def prompts() -> list[str]:
    """The first lines of functions, from 1 to 30 of them."""
    from xp.config import compose
    from xp.run import Run

    compose.initialize(None)
    functions = Run.parse(compose.values([])).data.load(("text", "label"), train=False).eval["text"]
    number = random.Random(0)
    cut = ["\n".join(text.splitlines()[: number.randint(1, 30)])[:1200] for text in functions[:]]
    return number.sample(cut, NUMBER)


def plainly(network: Any, processor: Any, given: list[str], size: int) -> list[str]:
    """`model.generate` on so many prompts at once, in their order."""
    import torch

    processor.padding_side = "left"
    found: list[str] = []
    for at in range(0, len(given), size):
        batch = processor(given[at : at + size], return_tensors="pt", padding=True, return_token_type_ids=False)
        with torch.inference_mode():
            tokens = network.generate(**batch, max_new_tokens=NEW, do_sample=False)
        found += processor.batch_decode(tokens[:, batch["input_ids"].shape[1] :], skip_special_tokens=True)
    return found


def by_xp(loaded: Any, given: list[str]) -> list[str]:
    """As command=generate does."""
    import torch

    from xp.config import compose
    from xp.prediction import engine, inputs, writer
    from xp.prediction.prompts import Prompts
    from xp.run import Run

    values = compose.values(["command=generate", "inputs=x", f"generation.max_new_tokens={NEW}"])
    generation = Run.parse(values).generation
    items = inputs.read(given, Prompts(name="text_generation"), {})
    writer.prepare(items, loaded)
    made = writer.make(loaded, generation, None, 0, torch.device("cpu"))
    outcomes = engine.predict(made, items, made.most(BUDGET), 0, lambda _, each: each, lambda _: None, print)
    return [outcome.output[0].text for outcome in outcomes]


def main() -> None:
    """Print the table."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from transformers.utils import logging

    from xp.model import Loaded
    from xp.model.pretrained import ASSETS

    logging.set_verbosity_error()
    logging.disable_progress_bar()
    folder = ASSETS / "bundled"
    network = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    processor = AutoTokenizer.from_pretrained(folder)
    given = prompts()
    lengths = sorted(len(processor(each)["input_ids"]) for each in given)
    print(f"{NUMBER} prompts of {lengths[0]} to {lengths[-1]} tokens, half of them under {lengths[NUMBER // 2]}")
    ways: dict[str, Callable[[], list[str]]] = {
        "generate, one prompt at a time": lambda: plainly(network, processor, given, 1),
        f"generate, batches of {BATCH} as they come": lambda: plainly(network, processor, given, BATCH),
        f"command=generate, {BUDGET} tokens at once": lambda: by_xp(Loaded(network, processor, []), given),
    }
    seconds: dict[str, list[float]] = {way: [] for way in ways}
    texts: dict[str, list[str]] = {}
    for _ in range(ROUNDS):
        for way, write in ways.items():
            began = time.process_time()
            texts[way] = write()
            seconds[way].append(time.process_time() - began)
    first, *others = texts.values()
    same = [sum(one == other for one, other in zip(first, each, strict=True)) for each in others]
    assert all(count == NUMBER for count in same), f"of {NUMBER} texts are the same: {same}"
    written = sum(len(processor(text, add_special_tokens=False)["input_ids"]) for text in first)
    slowest = statistics.median(seconds[next(iter(ways))])
    print(f"{'':<42} {'seconds':>8} {'tokens/s':>9} {'ratio':>6}")
    for way, taken in seconds.items():
        median = statistics.median(taken)
        print(f"{way:<42} {median:8.2f} {written / median:9,.0f} {slowest / median:6.2f}")


if __name__ == "__main__":
    main()
