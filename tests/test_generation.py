"""Ways of writing: every setting of transformers is one here or decided, each has its effect, wrong ones are told."""

from __future__ import annotations

import os
import subprocess
import sys
import warnings
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import ROOT, from_yaml

from xp.config import compose as composing
from xp.error import UserError
from xp.generation import Generation
from xp.generation.beam import Beam
from xp.generation.beam_sample import BeamSample
from xp.generation.compilation import MODES
from xp.generation.decided import DECIDED
from xp.generation.drafts import Draft
from xp.generation.greedy import Greedy
from xp.generation.sample import Sample
from xp.model.pretrained import ASSETS

PROMPTS = ["def main(", "class Reader:\n    def", "import os\nimport re\n\nfor name in", "x"]


@pytest.fixture(scope="module")
def network() -> Any:
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(ASSETS / "bundled", dtype=torch.float32).eval()


@pytest.fixture(scope="module")
def encoder_decoder() -> Any:
    """A tiny one; it has learned nothing, but no row of it writes what another one does."""
    from transformers import BartConfig, BartForConditionalGeneration

    torch.manual_seed(1)
    sizes = {f"{side}_{name}": 2 for side in ("encoder", "decoder") for name in ("layers", "attention_heads")}
    tokens = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "decoder_start_token_id": 2}
    config = BartConfig(vocab_size=4096, d_model=32, init_std=0.5, max_position_embeddings=256, **sizes, **tokens)
    made = BartForConditionalGeneration(config).eval()
    made.generation_config.forced_eos_token_id = None
    return made


@pytest.fixture(scope="module")
def processor() -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(ASSETS / "bundled")


def batch(processor: Any, prompts: list[str], side: str = "left") -> dict[str, torch.Tensor]:
    processor.padding_side = side
    found = processor(prompts, return_tensors="pt", padding=True)
    return {name: found[name] for name in ("input_ids", "attention_mask")}


def write(generation: Generation, network: Any, processor: Any, prompts: list[str] = PROMPTS, **more: Any) -> list[str]:
    side = "right" if network.config.is_encoder_decoder else "left"
    with torch.inference_mode(), warnings.catch_warnings():
        warnings.simplefilter("error")
        tokens = generation.generate(network, batch(processor, prompts, side), processor, **more)
    return processor.batch_decode(tokens)  # type: ignore[no-any-return]


def test_each_setting_of_transformers_is_one_here_or_is_decided_for_a_reason() -> None:
    from transformers import GenerationConfig

    theirs = {name for name in vars(GenerationConfig()) if not name.startswith("_")} - {"transformers_version"}
    ours = set().union(*(each.model_fields for each in Generation.all().values())) - {"name"}
    assert theirs - ours == set(DECIDED) - {"num_beams"}  # Which two of the ways have.
    assert ours - theirs == {"assistant_model"}  # An argument of generate.
    assert all(DECIDED.values())
    assert {"max_new_tokens", "num_return_sequences", "stop_strings"} <= set.intersection(
        *(set(each.model_fields) for each in Generation.all().values())
    )


def compiling(**more: str) -> str:
    values = {"fullgraph": "false", "dynamic": "null", "backend": "inductor", "mode": "null", "options": "null"} | more
    return f"generation.compile_config={{{', '.join(f'{name}: {value}' for name, value in values.items())}}}"


def test_the_modes_of_inductor_are_torchs() -> None:
    from torch._inductor import list_mode_options

    assert set(MODES) == set(list_mode_options())


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["generation.temperature=0.7"], "generation.temperature: only generation=beam_sample and sample have it"),
        (["+generation.temperature=0.7"], "generation.temperature: only generation=beam_sample and sample have it"),
        (["generation.num_beams=4"], "generation.num_beams: xp has no such setting: generation=beam and beam_sample"),
        (["generation.penalty_alpha=0.6"], "transformers 5 took contrastive search out"),
        (["generation.max_length=10"], "give generation.max_new_tokens"),
        (["generation.max_new_token=10"], "Did you mean 'max_new_tokens'?"),
        (["generation.temprature=1"], "Did you mean 'temperature'? only generation=beam_sample and sample have it"),
        (["generation=nucleus"], "generation=nucleus: there is no such generation."),
        (["generation=sample", "generation.temperature=0"], "generation.temperature=0: it must be greater than 0"),
        (["generation=sample", "generation.top_k=-1"], "generation.top_k=-1: it must be greater than or equal to 0"),
        (["generation=sample", "generation.top_p=1.5"], "generation.top_p=1.5: it must be less than or equal to 1"),
        (["generation.max_new_tokens=0"], "generation.max_new_tokens=0: it must be greater than 0"),
        (["generation.max_new_tokens=null"], "generation.max_new_tokens=null: it must be an integer"),
        (["generation.min_new_tokens=65"], "generation.min_new_tokens=65: it must not exceed max_new_tokens=64"),
        (["generation.num_return_sequences=2"], "greedy writes the same each time; choose generation=sample"),
        (["generation=beam", "generation.num_return_sequences=5"], "it must not exceed num_beams=4"),
        (["generation=beam", "generation.early_stopping=nver"],
         "generation.early_stopping=\"nver\": it must be a boolean or 'never'. Did you mean 'never'?"),
        (["generation.bad_words_ids=[[foo]]"], 'generation.bad_words_ids.0.0="foo": it must be an integer.'),
        (["generation.forced_bos_token_id=1.5"], "generation.forced_bos_token_id=1.5: it must be a string or an int"),
        (["generation.stop_strings=['']"], "generation.stop_strings: an empty text ends every answer"),
        (["generation.bad_words_ids=['']"], "generation.bad_words_ids: an empty text stands for no token"),
        (["generation.sequence_bias=[[3, foo]]"], "generation.sequence_bias: a pair is a text and a number, not"),
        (["generation.use_cache=false", "generation.cache_implementation=static"], "there is no cache"),
        (["generation.cache_implementation=statc"], "generation.cache_implementation=\"statc\": it must be"),
        (["generation.max_cache_len=9"], "other caches grow; give cache_implementation=static"),
        (["generation.cache_config={nbits: 4}"], "only a quantized cache has options"),
        (["generation.compile_config={fullgraph: true, dynamic: null, backend: eager, mode: default, options: null}"],
         "generation.compile_config: other caches are not compiled"),
        (["generation.watermarking_config={bia: 2}"], "config.bia: there is no such key. Did you mean 'bias'"),
        (["generation.num_assistant_tokens=5"], "there is no draft model; give generation.assistant_model=<path>"),
        (["generation.max_matching_ngram_size=3"], "give generation.prompt_lookup_num_tokens"),
        (["generation.prompt_lookup_num_tokens=3", "generation.use_mtp=true"], "lookup_num_tokens drafts already"),
        (["generation.prompt_lookup_num_tokens=3", "generation.use_cache=false"], "needs the cache"),
        (["generation.prompt_lookup_num_tokens=3"], "drafts are for one input at a time, command=train has batches"),
        (["generation=sample", "generation.num_return_sequences=2"], "command=train has one answer an input"),
        (["generation.exponential_decay_length_penalty=[1]"], "generation.exponential_decay_length_penalty=[1]"),
        (["generation.exponential_decay_length_penalty=[3.7,2]"], "_penalty=[3.7, 2]: it must be a whole number of"),
        (["generation.exponential_decay_length_penalty=[-3,2]"], "_penalty=[-3, 2]: it must be a whole number of"),
        (["generation.exponential_decay_length_penalty=[3,0]"], "_penalty=[3, 0]: it must be a whole number of"),
        (["generation.cache_implementation=static", compiling(mode="reduce-overheat")],
         "generation.compile_config.mode=reduce-overheat: inductor has no such mode. Did you mean 'reduce-overhead'?"),
        (["generation.cache_implementation=static", compiling(mode="default", options="{max_autotune: true}")],
         "generation.compile_config.mode=default: torch takes a mode or options; set one of them to null"),
        (["generation.guidance_scale=1"], "generation.guidance_scale=1: it must be greater than 1"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_told_in_one_line_that_names_the_key(
    overrides: list[str], said: str, compose: Callable[..., Any]
) -> None:
    with pytest.raises(UserError) as error:
        compose(*overrides)
    assert said in str(error.value)
    assert str(error.value).startswith("generation")
    assert "\n" not in str(error.value)


def test_wrong_settings_are_told_before_torch_is_there(tmp_path: Path) -> None:
    given = [sys.executable, "-X", "importtime", "-m", "xp", "generation=sample", "generation.temperature=-1"]
    env = os.environ | {"PYTHONPATH": str(ROOT)}
    told = subprocess.run(given, cwd=tmp_path, env=env, capture_output=True, text=True, check=False)
    assert told.returncode == 2
    assert "generation.temperature=-1: it must be greater than 0" in told.stderr
    assert " pydantic" in told.stderr
    assert " torch" not in told.stderr


def test_a_model_s_habits_have_no_say_and_its_knowledge_stays(network: Any, processor: Any) -> None:
    plain = write(from_yaml(Greedy, max_new_tokens=8), network, processor)
    config = network.generation_config
    habits = {"num_beams": 3, "max_length": 500, "temperature": 0.1, "do_sample": True, "renormalize_logits": True,
              "cache_implementation": "static", "stop_strings": ["e"], "length_penalty": 9.0}  # fmt: skip
    before = {name: getattr(config, name) for name in habits}
    try:
        for name, value in habits.items():
            setattr(config, name, value)
        assert write(from_yaml(Greedy, max_new_tokens=8), network, processor) == plain
        assert {name: getattr(config, name) for name in habits} == habits  # Put back.
        first = processor.encode(plain[0], add_special_tokens=False)[0]
        config.suppress_tokens = [first]
        assert write(from_yaml(Greedy, max_new_tokens=8), network, processor)[0] != plain[0]
    finally:
        for name, value in before.items():
            setattr(config, name, value)
        config.suppress_tokens = None


def test_texts_are_never_written_or_come_first(network: Any, processor: Any) -> None:
    plain = write(from_yaml(Greedy, max_new_tokens=12), network, processor)
    assert any("self" in text for text in plain)
    without = write(from_yaml(Greedy, max_new_tokens=12, bad_words_ids=["self"]), network, processor)
    assert not any("self" in text for text in without)
    biased = write(from_yaml(Greedy, max_new_tokens=12, sequence_bias=[["self", -50.0]]), network, processor)
    assert not any("self" in text for text in biased)
    suppressed = write(from_yaml(Greedy, max_new_tokens=12, suppress_tokens=["self"]), network, processor)
    assert not any("self" in text for text in suppressed)
    begins = write(from_yaml(Greedy, max_new_tokens=3, forced_bos_token_id="None"), network, processor, first=None)
    assert begins == write(from_yaml(Greedy, max_new_tokens=3), network, processor)  # Decoders have begun already.
    with pytest.raises(
        UserError, match="generation.suppress_tokens=this is long: it must be one token; this tokenizer"
    ):
        write(from_yaml(Greedy, suppress_tokens=["this is long"]), network, processor)
    for key, value in (("suppress_tokens", [4096]), ("bad_words_ids", [[4096]]), ("sequence_bias", [[[4096], 1.5]])):
        with pytest.raises(UserError, match=f"^generation.{key}=4096: the tokenizer's last token is 4095$"):
            write(from_yaml(Greedy, **{key: value}), network, processor)
    with pytest.raises(UserError, match="^generation.bad_words_ids=-1: the tokenizer's last token is 4095$"):
        write(from_yaml(Greedy, bad_words_ids=[[-1]]), network, processor)


def test_answers_of_an_encoder_decoder_begin_with_what_they_are_made_to(encoder_decoder: Any, processor: Any) -> None:
    texts = write(from_yaml(Greedy, max_new_tokens=3, forced_bos_token_id="None"), encoder_decoder, processor)
    assert all(text.startswith("None") for text in texts)
    with pytest.raises(UserError, match="the task has answers begin with token 7"):
        write(from_yaml(Greedy, forced_bos_token_id="None"), encoder_decoder, processor, first=7)


@pytest.mark.parametrize("kind", ["network", "encoder_decoder"])
def test_rows_stop_where_a_text_was_written_whatever_the_prompt_ends_with(
    kind: str, request: pytest.FixtureRequest, processor: Any
) -> None:
    model = request.getfixturevalue(kind)
    plain = write(from_yaml(Greedy, max_new_tokens=16, min_new_tokens=16), model, processor)
    stop = plain[1][3:6]
    assert stop.strip()
    stopping = from_yaml(Greedy, max_new_tokens=16, min_new_tokens=16, stop_strings=[stop, "none of this"])
    stopped = write(stopping, model, processor, [f"{stop}{stop}", *PROMPTS[1:]])
    assert stop in stopped[1]
    assert len(stopped[1].replace("<|pad|>", "")) < len(plain[1])
    assert stopped[0].replace("<|pad|>", "") != ""


def test_what_is_drawn_for_a_row_is_a_function_of_its_seeds_alone(network: Any, processor: Any) -> None:
    sample = from_yaml(Sample, max_new_tokens=24, temperature=0.9, top_p=0.95, num_return_sequences=2)
    seeds = [[3, index, number] for index in range(4) for number in range(2)]
    together = write(sample, network, processor, seeds=seeds)
    assert together == write(sample, network, processor, seeds=seeds)
    for at, prompt in enumerate(PROMPTS):
        assert write(sample, network, processor, [prompt], seeds=seeds[2 * at : 2 * at + 2]) == together[2 * at :][:2]
    assert len(set(together)) == 8
    assert write(sample, network, processor, seeds=[[4, *seed[1:]] for seed in seeds]) != together


def test_what_is_drawn_follows_the_distribution(network: Any, processor: Any) -> None:
    """One token after one prompt, 4,000 times: as often as the model and top_k say."""
    sample = from_yaml(Sample, max_new_tokens=1, top_k=3, num_return_sequences=1000)
    texts = [text for number in range(4) for text in write(
        sample, network, processor, ["def main("], seeds=[[number, each] for each in range(1000)])]  # fmt: skip
    with torch.inference_mode():
        scores = network(**batch(processor, ["def main("])).logits[0, -1].topk(3)
    shares = scores.values.softmax(-1).tolist()
    for token, share in zip(processor.batch_decode(scores.indices[:, None]), shares, strict=True):
        assert texts.count(token) / 4000 == pytest.approx(share, abs=0.03)


def test_drafts_leave_the_text_as_it_is(network: Any, processor: Any) -> None:
    text = "def double(value):\n    return value * 2\n\n\ndef triple(value):\n    return"
    plain = write(from_yaml(Greedy, max_new_tokens=24), network, processor, [text])
    looked_up = from_yaml(Greedy, max_new_tokens=24, prompt_lookup_num_tokens=4)
    assert looked_up.alone
    assert write(looked_up, network, processor, [text]) == plain
    calls: list[int] = []
    with_draft = from_yaml(Greedy, max_new_tokens=24, assistant_model="bundled", num_assistant_tokens=3)
    twin = Draft(deepcopy(network), processor)
    hook = network.register_forward_hook(lambda *_: calls.append(1))
    drafted = write(with_draft, network, processor, [text], draft=twin)
    hook.remove()
    assert drafted == plain
    assert len(calls) < 24  # A draft of its own twin is right: several tokens each time.
    assert write(from_yaml(Greedy, max_new_tokens=24, assistant_early_exit=2), network, processor, [text]) == plain


def test_beams_give_their_best_first(network: Any, processor: Any) -> None:
    one = write(from_yaml(Beam, max_new_tokens=8), network, processor)
    several = write(from_yaml(Beam, max_new_tokens=8, num_return_sequences=3), network, processor)
    assert several[::3] == one
    assert len(set(several[:3])) == 3


def test_a_cache_of_fixed_size_and_none_change_nothing(network: Any, processor: Any) -> None:
    plain = write(from_yaml(Greedy, max_new_tokens=12), network, processor)
    for settings in ({"use_cache": False}, {"cache_implementation": "static", "disable_compile": True},
                     {"prefill_chunk_size": 2}):  # fmt: skip
        assert write(from_yaml(Greedy, max_new_tokens=12, **settings), network, processor) == plain


PLAIN = {"max_new_tokens": 10}
EFFECTS: list[tuple[type[Any], dict[str, Any]]] = [
    (Greedy, {"repetition_penalty": 3.0}),
    (Greedy, {"no_repeat_ngram_size": 2}),
    (Greedy, {"guidance_scale": 4.0}),
    (Greedy, {"begin_suppress_tokens": list(range(3, 2000))}),
    (Greedy, {"exponential_decay_length_penalty": [1.0, 9.0]}),
    (Greedy, {"forced_eos_token_id": "<|end|>"}),
    (Greedy, {"watermarking_config": {"greenlist_ratio": 0.25, "bias": 9.0, "hashing_key": 15485863,
                                      "seeding_scheme": "lefthash", "context_width": 1}}),
    (Sample, {"temperature": 0.1}),
    (Sample, {"top_h": 0.1}),
    (Sample, {"top_k": 1}),
    (Sample, {"top_p": 0.2}),
    (Sample, {"min_p": 0.9}),
    (Sample, {"typical_p": 0.1}),
    (Sample, {"epsilon_cutoff": 0.3}),
    (Sample, {"eta_cutoff": 0.5}),
    (Sample, {"watermarking_config": {"greenlist_ratio": 0.25, "bias": 20.0, "hashing_key": 15485863,
                                      "seeding_scheme": "lefthash", "context_width": 1}}),
    (Beam, {"num_beams": 2}),
    (BeamSample, {"temperature": 3.0}),
]  # fmt: skip
"""Settings that change what is written."""


@pytest.mark.parametrize(
    ("kind", "settings"), EFFECTS, ids=lambda each: "-".join(each) if isinstance(each, dict) else ""
)
def test_each_setting_changes_what_is_written(
    kind: type[Any], settings: dict[str, Any], network: Any, processor: Any
) -> None:
    torch.manual_seed(0)
    seeds = [[0, at] for at in range(len(PROMPTS))]
    plain = write(from_yaml(kind, **PLAIN), network, processor, seeds=seeds)
    torch.manual_seed(0)
    changed = write(from_yaml(kind, **PLAIN, **settings), network, processor, seeds=seeds)
    assert changed != plain
    if "eos" in "".join(settings):
        assert all("<|end|>" in text for text in changed)


def test_settings_on_the_input_change_what_is_written_to_it(encoder_decoder: Any, processor: Any) -> None:
    likely = {"max_new_tokens": 4, "sequence_bias": [["import", 60.0]]}
    prompts = ["x", "import re; import os"]  # At the start of a text and after a space it is two tokens.
    assert all("import" in text for text in write(from_yaml(Greedy, **likely), encoder_decoder, processor, prompts))
    for settings in ({"encoder_no_repeat_ngram_size": 1}, {"encoder_repetition_penalty": 0.01}):
        without, within = write(from_yaml(Greedy, **likely, **settings), encoder_decoder, processor, prompts)
        assert "import" in without
        assert "import" not in within  # It is in the input. A penalty below 1 is for what is.
    with pytest.raises(UserError, match="guidance_scale: it is for decoders"):
        write(from_yaml(Greedy, guidance_scale=2.0), encoder_decoder, processor)


def test_beams_prefer_short_or_long_answers(network: Any, processor: Any) -> None:
    likely = {"max_new_tokens": 12, "sequence_bias": [["<|end|>", 7.0]], "early_stopping": False}
    short, long = (
        [len(text.replace("<|pad|>", "")) for text in write(beam, network, processor)]
        for beam in (from_yaml(Beam, **likely, length_penalty=penalty) for penalty in (-8.0, 8.0))
    )
    assert sum(short) < sum(long)


def test_a_compiled_network_writes_the_same(network: Any, processor: Any) -> None:
    plain = write(from_yaml(Greedy, max_new_tokens=4), network, processor)
    compiled: list[int] = []
    own = type(network).get_compiled_call
    how = {"fullgraph": False, "dynamic": None, "backend": "eager", "mode": "default", "options": None}
    static = from_yaml(Greedy, max_new_tokens=4, cache_implementation="static", compile_config=how)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(type(network), "get_compiled_call", lambda *given: compiled.append(1) or own(*given))
        assert write(static, network, processor) == plain
    assert compiled


def test_answers_say_what_ended_them(network: Any, processor: Any) -> None:
    greedy = from_yaml(Greedy, max_new_tokens=6, stop_strings=["ab", "."])
    ids = [processor.encode(each, add_special_tokens=False) for each in ("x = ", "ab", "one.two", "for x in y")]
    end, pad = processor.eos_token_id, processor.pad_token_id
    rows = [[*ids[0], end, pad, pad], [*ids[0], *ids[1], pad], [*ids[2], 7, 7], ids[0], (ids[3] * 3)[:6]]
    answers = greedy.answers(network, rows, processor)
    assert [(each.text, each.finish) for each in answers] == [
        ("x = ", "stop"), ("x = ", "stop_string"), ("one", "stop_string"), ("x = ", "time"),
        (processor.decode(rows[4]), "length"),
    ]  # fmt: skip
    assert answers[0].tokens == len(ids[0]) + 1
    assert answers[1].tokens == len(ids[0]) + len(ids[1])
    assert answers[2].tokens < len(rows[2])


def test_every_yaml_of_the_group_states_every_value(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    composing.initialize(None)
    for name, kind in Generation.all().items():
        assert set(composing.values([f"generation={name}"])["generation"]) == set(kind.model_fields)
