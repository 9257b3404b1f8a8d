"""Writer: what goes on from prompts, in batches that are filled by a budget of tokens."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from xp.error import UserError
from xp.generation import Generation, continuous, padding
from xp.generation.answer import Answer
from xp.generation.habits import without_habits
from xp.hardware import home
from xp.model import Loaded
from xp.model.placement import place
from xp.model.tokenizer import settle_pad
from xp.prediction.inputs import Item
from xp.prediction.predictor import NO_LIMIT, Predictor, limit
from xp.prediction.prompts import Prompts, Reader
from xp.task.conversation import end_there

if TYPE_CHECKING:
    import torch

    from xp.generation.drafts import Draft


@dataclass(frozen=True)
class Writer(Predictor):
    """What writes to prompts."""

    generation: Generation

    single: bool
    """Whether prompts cannot share a batch."""

    continuous: bool
    """Whether all share one, see `xp.generation.continuous`."""

    def measure(self, rows: Sequence[dict[str, Any]]) -> list[int]:
        """How many tokens each prompt has."""
        return [len(row["tokens"]) for row in rows]

    def most(self, budget: int) -> Any:
        """How many prompts share a batch of so many tokens, prompts and answers, given the longest prompt's."""
        width = max(self.generation.beams, self.generation.num_return_sequences)

        def rows(longest: int) -> int:
            if self.continuous:
                return NO_LIMIT
            if self.generation.alone or self.single:
                return 1
            return max(1, budget // (width * (longest + self.generation.max_new_tokens)))

        return rows


def check(config: Any) -> list[str]:
    """Refuse a network that cannot write: an encoder alone, though transformers would make it a decoder of sorts.

    Returns:
        What to know of one that can, but was saved with another head than that of words.

    Raises:
        UserError: says what it is.
    """
    from transformers.models.auto import modeling_auto as auto

    decoders, encoders = auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES, auto.MODEL_FOR_MASKED_LM_MAPPING_NAMES
    if config.model_type in auto.MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES or getattr(config, "auto_map", None):
        return []
    reads = config.model_type in encoders and not getattr(config, "is_decoder", False)
    if reads or config.model_type not in decoders:
        raise UserError(
            f"model: {config.model_type} has no decoder of texts, so it cannot write; "
            "take another one, or command=predict for what it was made for"
        )
    saved = [each for each in config.architectures or [] if re.search(r"For(Sequence|Token|Question|Multiple)", each)]
    return [f"warning: this model was trained as {saved[0]}, and not to write"] if saved else []


def make(
    loaded: Loaded,
    generation: Generation,
    draft: Draft | None,
    seed: int,
    device: torch.device,
    scheduled: bool = False,
) -> Writer:
    """A writer on a device.

    Args:
        loaded: the network and its tokenizer.
        generation: how to write.
        draft: the draft model.
        seed: with a prompt's position, it decides what is drawn at random.
        scheduled: whether to leave batches to transformers' continuous batching.

    Raises:
        UserError: continuous batching of an encoder-decoder, or ``max_new_tokens`` leaves no room for a prompt.
    """
    loaded.network = network = place(loaded.network, device).eval()
    processor = loaded.processor
    settle_pad(processor, network.config)
    task = Prompts(name="text_generation")
    bound, means = limit(task, network, processor, generation)
    if bound < 1:
        raise UserError(f"generation.max_new_tokens: {means}, and so none for a prompt; lower it")

    def call(rows: list[dict[str, Any]]) -> list[list[Answer]]:
        if scheduled:
            new = continuous.write(network, [row["tokens"] for row in rows], processor, generation)
            return [[answer] for answer in generation.answers(network, new, processor)]
        samples = range(generation.num_return_sequences)
        seeds = [[seed, row["position"], sample] for row in rows for sample in samples]
        inputs = {name: value.to(home(network)) for name, value in padded(rows, network, processor).items()}
        tokens = generation.generate(network, inputs, processor, seeds=seeds, draft=draft).tolist()
        answers = generation.answers(network, tokens, processor)
        return [answers[at : at + len(samples)] for at in range(0, len(answers), len(samples))]

    if scheduled:
        if network.config.is_encoder_decoder:
            raise UserError(
                "prediction.continuous_batching=true: it is for decoders, this model has an encoder; use false"
            )
        slow = [
            "warning: continuous batching is made for GPUs; on a CPU, prediction.continuous_batching=false is faster"
        ]
        notes = slow if home(network).type == "cpu" else []
        return Writer(task, call, processor, None, bound, means, False, False, notes, generation, False, True)
    single = not (network.config.is_encoder_decoder or pads(network, processor))
    notes = ["padding changes what this network writes, so prompts go through it one at a time"] if single else []
    even = padding.counts(generation)
    return Writer(task, call, processor, None, bound, means, False, even, notes, generation, single, False)


def pads(network: Any, processor: Any) -> bool:
    """Whether a decoder makes of a padded prompt what it makes of the prompt: tried out, for there is no telling.

    Some recurrent networks take a mask, and are moved by the padding all the same.
    """
    import torch

    rows = [{"tokens": processor("a b c d")["input_ids"]}, {"tokens": processor("a b c d e f g h i")["input_ids"]}]
    with torch.inference_mode(), without_habits(network):
        alone, beside = (
            network.generate(
                **{name: value.to(home(network)) for name, value in padded(given, network, processor).items()},
                max_new_tokens=1,
                output_logits=True,
                return_dict_in_generate=True,
                pad_token_id=processor.pad_token_id,
            ).logits[0][0].float()
            for given in (rows[:1], rows)
        )  # fmt: skip
    near = 1e-3 if network.dtype == torch.float32 else 0.1  # bf16 has three digits, and layers lose more.
    return bool((alone - beside).abs().max() <= near * alone.abs().max())


def padded(rows: Sequence[dict[str, Any]], network: Any, processor: Any) -> dict[str, torch.Tensor]:
    """``input_ids`` and ``attention_mask`` (rows, longest), padded on the left for a decoder, whose text goes on at the
    right end, and on the right for an encoder, whatever the tokenizer would do."""
    import torch

    longest = max(len(row["tokens"]) for row in rows)
    ids = torch.full((len(rows), longest), processor.pad_token_id)
    mask = torch.zeros_like(ids)
    for at, row in enumerate(rows):
        size = len(row["tokens"])
        place = slice(0, size) if network.config.is_encoder_decoder else slice(longest - size, longest)
        ids[at, place] = torch.tensor(row["tokens"])
        mask[at, place] = 1
    return {"input_ids": ids, "attention_mask": mask}


def prepare(items: Sequence[Item], loaded: Loaded) -> list[str]:
    """Put tokens into the prompts, and let answers to conversations end where the template says; gives what to tell."""
    reader = Reader(loaded.processor)
    kinds: dict[str, list[Item]] = {"text": [], "rendered": [], "conversation": []}
    for item in items:
        if item.error:
            continue
        try:
            tokens, kind = reader.tokens(item.row)
        except UserError as error:
            item.error = str(error)
            continue
        kinds[kind].append(item)
        item.row = {"tokens": tokens, "position": item.position}
        if not tokens:
            item.error = "text: is empty"
    notes = []
    if kinds["conversation"] or kinds["rendered"]:
        end_there(loaded.processor, loaded.network)
    if kinds["rendered"]:
        notes.append(f"{len(kinds['rendered']):,} prompts hold the chat template already, and go in as they stand")
    if kinds["text"] and loaded.processor.chat_template:
        notes.append(
            f"{len(kinds['text']):,} prompts are plain texts and go in as they stand, though this model has a chat "
            "template; inputs='[{role: user, content: \"...\"}]' goes through it"
        )
    return notes
