"""Writing: a model that writes texts, as the command line's prompts or a person's turns ask for them."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

from xp.commands.opening import machine
from xp.model import Wish
from xp.report import Report
from xp.run import Run


def wish_to_write(run: Run, precision: str, classes: tuple[str, ...], processor_class: str, report: Report) -> Wish:
    """The model as it is, decoder or encoder-decoder; its weights are of the type that is computed in.

    Args:
        precision: what it computes in.
        classes: transformers' Auto classes that may have it, by their names.
        processor_class: the Auto class of its tokenizer, or of what takes images and sounds, too.
        report: is told what to know of a model that was made for something else.

    Raises:
        UserError: it cannot write.
    """
    import torch

    from xp.prediction import writer

    wish = Wish(
        auto_class=classes,
        processor_class=processor_class,
        config=lambda labels: {},
        labels=[],
        texts=list,
        dtype=torch.float32 if precision == "fp32" else torch.bfloat16,
        peft_type=None,
        train=False,
        locate=partial(run.tracking.locate, runs=run.runs_folder),
        **machine(run, precision),
    )
    described = run.model.describe(wish)
    if not hasattr(described.processor, "tokenizer"):  # What takes images or sounds, too, was made to write.
        for line in writer.check(described.config):
            report.say(line)
    return replace(wish, peft_type="SEQ_2_SEQ_LM" if described.config.is_encoder_decoder else "CAUSAL_LM")
