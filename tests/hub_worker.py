"""Runs xp in a fresh copy of a process that has imported the heavy libraries, once a line of its input.

Huggingface's libraries read where the hub is when they are imported: so whoever asks starts this with HF_ENDPOINT set.
"""

from __future__ import annotations

import gc
import json
import os
import sys
import traceback

MORE = [
    "aiohttp",
    "alembic.command",
    "fsspec.implementations.http",
    "peft",
    "sqlalchemy.dialects.sqlite",
    "transformers.trainer_pt_utils",
    "xp.launch",
    "xp.config.compose",
    "xp.metric.classification",
    "xp.metric.tagging",
    "xp.metric.text",
    "evaluate",
    "matplotlib.backends.backend_agg",
    "mlflow.store.tracking.sqlalchemy_store",
    "rouge_score.rouge_scorer",
    "sacrebleu",
    "soundfile",
]
CLASSES = [
    "AutoConfig",
    "AutoTokenizer",
    "BartForConditionalGeneration",
    "BertForMultipleChoice",
    "BertForSequenceClassification",
    "LlamaForCausalLM",
    "Wav2Vec2FeatureExtractor",
    "Wav2Vec2ForSequenceClassification",
    "ViTForImageClassification",
    "ViTImageProcessorPil",
]


def do(job: dict[str, object], output: int) -> None:
    """The job itself, in the child: its own folder, variables and output, and the real ``python -m xp``."""
    os.dup2(output, 1)
    os.dup2(output, 2)
    os.chdir(str(job["folder"]))
    os.environ |= job["env"]  # type: ignore[operator]
    sys.argv = ["xp", *job["arguments"]]  # type: ignore[misc]
    from xp.__main__ import main

    code = 1
    try:
        code = main()
    except SystemExit as error:
        code = int(error.code or 0)
    except BaseException:
        traceback.print_exc()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def warm() -> None:
    """Import all that the jobs will need, and that a fork gives them for nothing."""
    from importlib import import_module

    from xp.process import ahead
    from xp.sweep.forked import AHEAD

    for name in ahead.modules([*AHEAD, *MORE]):
        import_module(name)
    import matplotlib.pyplot  # noqa: F401  # What a run's figures are drawn with, and its fonts.
    import transformers

    for name in CLASSES:
        getattr(transformers, name)
    gc.collect()
    gc.freeze()  # Else each job's collection would touch, and so copy, every page.


if __name__ == "__main__":
    warm()
    import torch

    torch.set_num_threads(1)
    for line in sys.stdin:
        read, write = os.pipe()
        child = os.fork()
        if child == 0:
            os.close(read)
            do(json.loads(line), write)
        os.close(write)
        with os.fdopen(read, encoding="utf-8", errors="replace") as pipe:
            said = pipe.read()
        _, status = os.waitpid(child, 0)
        print(json.dumps({"code": os.waitstatus_to_exitcode(status), "said": said}), flush=True)
