"""What transformers' ``GenerationConfig`` has and no way of writing here: who decides it instead."""

from __future__ import annotations

LEFT = "transformers 5 took {} out; what is left of it is code in a repository of the hub, which xp does not run"

DECIDED = {
    "do_sample": "generation=sample and beam_sample draw at random, greedy and beam do not",
    "num_beams": "generation=beam and beam_sample follow several beginnings, greedy and sample one",
    "max_length": "give generation.max_new_tokens, which counts what is written and not the prompt",
    "min_length": "give generation.min_new_tokens, which counts what is written and not the prompt",
    "pad_token_id": "the tokenizer has it",
    "bos_token_id": "the tokenizer has it",
    "eos_token_id": "the model's generation config has it, else the tokenizer; generation.stop_strings ends anywhere",
    "decoder_start_token_id": "the model has it: its decoder was trained to begin with it",
    "is_assistant": "a model is one where generation.assistant_model says so",
    "output_attentions": "what is written is all that a run gives",
    "output_hidden_states": "what is written is all that a run gives",
    "output_logits": "what is written is all that a run gives",
    "output_scores": "what is written is all that a run gives",
    "return_dict_in_generate": "what is written is all that a run gives",
    "token_healing": "it takes prompts apart without their attention mask, so rows of a batch would change each other",
    "continuous_batching_config": "transformers deprecates it; prediction.continuous_batching says it",
    "low_memory": LEFT.format("contrastive search"),
    "penalty_alpha": LEFT.format("contrastive search"),
    "dola_layers": LEFT.format("DoLa"),
    "diversity_penalty": LEFT.format("diverse beam search"),
    "num_beam_groups": LEFT.format("diverse beam search"),
    "constraints": LEFT.format("constrained beam search"),
    "force_words_ids": LEFT.format("constrained beam search"),
}
"""Its fields that no yaml of ``conf/generation/`` has, and the reason."""


def why(key: str) -> str | None:
    """Why a way of writing has no such key, where another one has it or xp decides it; else None."""
    from xp.generation import Generation

    if key in DECIDED:
        return f"xp has no such setting: {DECIDED[key]}"
    having = [name for name, each in sorted(Generation.all().items()) if key in each.model_fields]
    have = "has" if len(having) == 1 else "have"
    return f"only generation={' and '.join(having)} {have} it" if having else None


def near(key: str) -> str | None:
    """What a key may be meant for that other ways of writing have; None where none of their keys is near."""
    from difflib import get_close_matches

    from xp.generation import Generation

    keys = sorted({each for kind in Generation.all().values() for each in kind.model_fields})
    found = get_close_matches(key, keys, n=1, cutoff=0.7)
    return f"there is no such key. Did you mean {found[0]!r}? {why(found[0]) or ''}".rstrip() if found else None
