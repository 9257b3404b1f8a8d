"""Hostile files: models, adapters, data, templates and folders of runs that try to run code, or to write elsewhere."""

from __future__ import annotations

import io
import json
import pickle
import struct
import zipfile
from collections.abc import Iterator
from typing import Any

from attacks import MODULE, PICKLE, Payload
from hostile import Case
from watch import MARK

SMALL = ["precision=fp32", "tracking.log_model=false", "cache=false"]
PREDICT = ["command=predict", "model=pretrained", "model.path=model", "inputs=a cat", *SMALL]
ON_ROWS = ["data=files", "data.train=train.jsonl", "data.eval=eval.jsonl"]
TRAIN = [*ON_ROWS, "training.epochs=null", "training.max_steps=1", "training.batch_size=2", "training.save_total=0",
         *SMALL]  # fmt: skip
ANYHOW = {"refused": False}
CODE = f"open('../outside/{MARK}', 'w')\n"
REMOTE = CODE + (
    "from transformers import BertConfig as Config, BertForSequenceClassification as Model, BertTokenizer as Tokenizer\n"
    "def generate(*arguments, **named): pass\n"
)


def torch_zip(payload: bytes) -> bytes:
    """A file as ``torch.save`` writes it, but for what is in it."""
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w") as file:
        file.writestr("archive/data.pkl", payload)
        file.writestr("archive/version", "3\n")
        file.writestr("archive/byteorder", "little")
    return made.getvalue()


PICKLES = {"plain": PICKLE, "zip": torch_zip(PICKLE), "old": pickle.dumps(Payload(), protocol=0),
           "newest": pickle.dumps(Payload(), protocol=5)}  # fmt: skip


def safetensors(header: Any, body: bytes = b"", length: int | None = None) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + body


def bad_safetensors() -> Iterator[tuple[str, bytes]]:
    one = {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}
    yield "a pickle", PICKLE
    yield "a torch file", torch_zip(PICKLE)
    yield "nothing", b""
    yield "a huge header", safetensors({}, length=1 << 60)
    yield "a header of 100 MB", safetensors({}, length=100_000_001)
    yield "no json", safetensors(b"{" * 100)
    yield "a deep header", safetensors(b"[" * 90_000 + b"]" * 90_000)
    yield "offsets beyond", safetensors({"x": one | {"data_offsets": [0, 1 << 40]}}, b"1234")
    yield "offsets backwards", safetensors({"x": one | {"data_offsets": [4, 0]}}, b"1234")
    yield "negative shape", safetensors({"x": one | {"shape": [-1]}}, b"1234")
    yield "a huge shape", safetensors({"x": one | {"shape": [1 << 60, 1 << 60]}}, b"1234")
    yield "another type", safetensors({"x": one | {"dtype": "PICKLE"}}, b"1234")
    yield "overlapping", safetensors({"x": one, "y": one}, b"1234")


def pickled_models() -> Iterator[Case]:
    """Weights that are pickles, under every name by which transformers would find them."""
    gone = {"model/model.safetensors": None}
    for form, content in PICKLES.items():
        for command in (PREDICT, [*TRAIN, "model=pretrained", "model.path=model"]):
            yield Case("pickled models", f"pytorch_model.bin {form} {command[0]}", command,
                       gone | {"model/pytorch_model.bin": content}, says="pickle", base=("model",))  # fmt: skip
        for name in ("training_args.bin", "optimizer.pt", "scheduler.pt", "rng_state.pth", "model.pkl", "vocab.pkl",
                     "pytorch_model.bin", "adapter_model.bin", "tf_model.h5", "model.ckpt", "x.joblib"):  # fmt: skip
            yield Case("pickled models", f"{name} {form} beside", PREDICT, {f"model/{name}": content},
                       base=("model",), **ANYHOW)  # fmt: skip
        for index, shard in (("model.safetensors.index.json", "evil.bin"), ("model.safetensors.index.json", "x.pkl"),
                             ("model.safetensors.index.json", "../evil.bin"),
                             ("pytorch_model.bin.index.json", "evil.bin"),
                             ("pytorch_model.bin.index.json", "../evil.bin")):  # fmt: skip
            listed = json.dumps({"metadata": {"total_size": 4}, "weight_map": {"classifier.weight": shard}})
            files = gone | {f"model/{index}": listed, "model/evil.bin": content, "model/x.pkl": content,
                            "evil.bin": content}  # fmt: skip
            yield Case("pickled models", f"{index} names {shard} {form}", PREDICT, files, base=("model",))
        for weights in ("evil.bin", "../evil.bin", "pytorch_model.bin.index.json"):
            yield Case("pickled models", f"transformers_weights {weights} {form}", PREDICT,
                       gone | {"model/evil.bin": content, "evil.bin": content,
                               "model/config.json": {"transformers_weights": weights}}, base=("model",))  # fmt: skip
    for name, content in bad_safetensors():
        yield Case("pickled models", f"model.safetensors is {name}", PREDICT, {"model/model.safetensors": content},
                   base=("model",))  # fmt: skip


def remote_code() -> Iterator[Case]:
    """Code of a model's repository, and names of classes and modules in its configs."""
    there = {"model/remote.py": REMOTE, f"model/{MODULE}.py": REMOTE, "model/custom_generate/generate.py": REMOTE,
             "model/custom_generate/requirements.txt": "", "model/sitecustomize.py": REMOTE,
             "model/conftest.py": REMOTE, "model/__init__.py": REMOTE}  # fmt: skip
    autos = {"AutoConfig": "remote.Config", "AutoModelForSequenceClassification": "remote.Model",
             "AutoModel": "remote.Model", "AutoTokenizer": ["remote.Tokenizer", "remote.Tokenizer"]}  # fmt: skip
    changes: dict[str, dict[str, Any]] = {
        "nothing says so": {},
        "auto_map": {"config.json": {"auto_map": autos}},
        "auto_map of an unknown type": {"config.json": {"auto_map": autos, "model_type": "unheard_of"}},
        "auto_map of a hub": {"config.json": {"auto_map": {name: f"evil/x--{each}" for name, each in autos.items()}}},
        "auto_map up": {"config.json": {"auto_map": {"AutoConfig": "../remote.Config"}, "model_type": "unheard_of"}},
        "auto_map absolute": {"config.json": {"auto_map": {"AutoConfig": "/tmp/remote.Config"}, "model_type": "no"}},
        "auto_map of the tokenizer": {
            "tokenizer_config.json": {"auto_map": {"AutoTokenizer": ["remote.Tokenizer"] * 2}}
        },
        "its class": {"tokenizer_config.json": {"tokenizer_class": f"{MODULE}.Payload"}},
        "an unknown class": {"tokenizer_config.json": {"tokenizer_class": "os.system"}},
        "its file": {"tokenizer_config.json": {"tokenizer_file": "/etc/passwd", "vocab_file": "/etc/passwd"}},
        "its attributes": {"tokenizer_config.json": {"extra_special_tokens": {"__class__": "x", "encode": "y"}}},
        "custom_generate": {"generation_config.json": {"custom_generate": "model"}},
        "custom_generate up": {"generation_config.json": {"custom_generate": f"../{MODULE}"}},
        "a compiler": {"generation_config.json": {"compile_config": {"backend": MODULE}}},
        "pipelines": {"config.json": {"custom_pipelines": {"text-classification": {"impl": "remote.Model", "pt": []}}}},
        "a kernel": {"config.json": {"attn_implementation": "evil/kernel"}},
        "a kernel of the community": {"config.json": {"attn_implementation": "kernels-community/flash-attn"}},
        "a kernel by its other name": {"config.json": {"_attn_implementation": "evil/kernel:evil"}},
        "a kernel of experts": {"config.json": {"experts_implementation": "evil/kernel"}},
        "architectures": {"config.json": {"architectures": ["os.system", f"{MODULE}.Payload"]}},
        "type": {"config.json": {"model_type": f"../{MODULE}"}},
        "type of a module": {"config.json": {"model_type": "..os"}},
        "dtype": {"config.json": {"dtype": f"__import__('{MODULE}')"}},
        "dtype of torch": {"config.json": {"dtype": "hub"}},
        "old dtype": {"config.json": {"torch_dtype": "load"}},
        "another's weights": {"config.json": {"transformers_weights": "/etc/passwd"}},
        "a plan": {"config.json": {"base_model_tp_plan": {"*": MODULE}, "base_model_pp_plan": {"x": MODULE}}},
        "kinds of sub-configs": {"config.json": {"text_config": {"auto_map": autos, "model_type": "no"}}},
        "trust": {"config.json": {"trust_remote_code": True}, "tokenizer_config.json": {"trust_remote_code": True}},
    }
    for method in ("custom", "gptq", "awq", "aqlm", "quanto", "eetq", "hqq", "higgs", "fbgemm_fp8", "torchao", "vptq",
                   "bitnet", "spqr", "fp8", "auto-round", "quark", "mxfp4", "fp_quant", "bitsandbytes", "../x"):  # fmt: skip
        settings = {"quant_method": method, "bits": 4, "modules_to_not_convert": [MODULE]}
        for more in ({}, {"load_in_4bit": True}, {"load_in_8bit": True}) if method == "bitsandbytes" else ({},):
            said = {"config.json": {"quantization_config": settings | more}}
            changes[f"quantized by {method} {' '.join(more)}"] = said
    for name, change in changes.items():
        for way in (PREDICT, [*TRAIN, "model=pretrained", "model.path=model"]):
            files = there | {f"model/{file}": content for file, content in change.items()}
            yield Case("remote code", f"{name} {way[0]}", way, files, base=("model",), **ANYHOW)


def hostile_values() -> Iterator[Case]:
    """Numbers that would take all memory, names that would become files, texts that a terminal would act upon."""
    for key, value in (("num_labels", 10**12), ("hidden_size", 10**9), ("vocab_size", 10**12),
                       ("num_hidden_layers", 10**9), ("max_position_embeddings", -1), ("hidden_size", "x"),
                       ("hidden_size", [1] * 1000), ("num_attention_heads", 0), ("hidden_act", "os.system"),
                       ("hidden_act", f"{MODULE}.Payload"), ("initializer_range", "nan"), ("pad_token_id", 10**9),
                       ("problem_type", "../x"), ("pruned_heads", {"0": [0]}), ("layer_types", ["x"] * 9),
                       ("rope_parameters", {"rope_type": MODULE}), ("rope_scaling", {"type": "../x"})):  # fmt: skip
        yield Case("hostile values", f"{key}={str(value)[:30]}", PREDICT, {"model/config.json": {key: value}},
                   base=("model",), **ANYHOW)  # fmt: skip
    for label in (
        "../../outside/x",
        "/tmp/x",
        "\x1b]0;owned\x07",
        "a\nb",
        "a" * 100_000,
        "{{ 7 * 7 }}",
        "%(x)s",
        "[red]",
    ):
        names = {"id2label": {"0": label, "1": label + "x", "2": "y"},
                 "label2id": {label: 0, label + "x": 1, "y": 2}}  # fmt: skip
        for way in (PREDICT, ["command=evaluate", "model=pretrained", "model.path=model", *ON_ROWS, *SMALL]):
            yield Case("hostile values", f"label {label[:20]!r} {way[0]}", way, {"model/config.json": names},
                       base=("model",), **ANYHOW)  # fmt: skip
    for name in ("../../../outside/x", "/tmp/x", "..", "a/b", "x\x00", "../../outside/canary"):
        templates = {"chat_template": [{"name": name, "template": "x"}, {"name": "default", "template": "y"}]}
        yield Case("hostile values", f"chat template {name!r}", [*TRAIN, "model=pretrained", "model.path=model"],
                   {"model/tokenizer_config.json": templates}, base=("model",))  # fmt: skip
    for part in ("tokenizer.json", "config.json", "tokenizer_config.json", "generation_config.json"):
        for name, content in (("deep", b"[" * 100_000), ("no text", b"\xff\xfe\x00"), ("a list", b"[]"), ("null", b"null"),
                              ("a number", b"1" * 5000), ("nothing", b""), ("a text", b'"x"')):  # fmt: skip
            yield Case("hostile values", f"{part} is {name}", PREDICT, {f"model/{part}": content}, base=("model",),
                       **ANYHOW)  # fmt: skip


def adapters() -> Iterator[Case]:
    """What an adapter's folder can name."""
    predict = [each.replace("=model", "=adapter") if each.startswith("model.path") else each for each in PREDICT]
    train = [*TRAIN, "model=pretrained", "model.path=adapter", "peft=lora"]
    config = "adapter/adapter_config.json"
    gone = {"adapter/adapter_model.safetensors": None}
    for form, content in PICKLES.items():
        for way in (predict, train):
            yield Case("adapters", f"adapter_model.bin {form} {way[0]}", way,
                       gone | {"adapter/adapter_model.bin": content}, says="pickle", base=("adapter", "model"))  # fmt: skip
    there = {f"adapter/{MODULE}.py": CODE, f"{MODULE}/__init__.py": CODE, "adapter/remote.py": REMOTE,
             "evil.bin": PICKLES["zip"], "adapter/evil.bin": PICKLES["zip"]}  # fmt: skip
    tuning = {"peft_type": "PROMPT_TUNING", "task_type": "SEQ_CLS", "num_virtual_tokens": 2, "prompt_tuning_init": "TEXT",
              "prompt_tuning_init_text": "x", "tokenizer_name_or_path": "remote"}  # fmt: skip
    for name, change, refused in (
        ("a parent library", {"auto_mapping": {"base_model_class": "Payload", "parent_library": MODULE}}, True),
        ("os", {"auto_mapping": {"base_model_class": "system", "parent_library": "os"}}, True),
        ("megatron", {"megatron_config": {"x": 1}, "megatron_core": MODULE}, True),
        ("megatron.core", {"megatron_config": {"x": 1}, "megatron_core": f"megatron.{MODULE}"}, True),
        ("another base", {"base_model_name_or_path": "remote"}, False),
        ("a base up", {"base_model_name_or_path": "../outside"}, True),
        ("no base", {"base_model_name_or_path": None}, True),
        ("an unknown type", {"peft_type": MODULE}, True),
        ("a type of another", {"peft_type": "XLORA", "adapters": {"x": "../x"}, "hidden_size": 8}, False),
        ("corda", {"init_lora_weights": "corda", "corda_config": {"cache_file": "evil.bin"}}, False),
        ("eva", {"init_lora_weights": "eva", "eva_config": {"rho": 2.0}}, False),
        ("loftq", {"init_lora_weights": "loftq", "loftq_config": {"loftq_bits": 4}}, False),
        ("pissa", {"init_lora_weights": "pissa_niter_4"}, False),
        ("an unknown start", {"init_lora_weights": f"{MODULE}.x"}, False),
        ("a rank of a billion", {"r": 10**9}, False),
        ("modules to save", {"modules_to_save": ["../x", "__class__"]}, False),
        ("prompt tuning", tuning, False),
        ("prompt tuning that trusts", tuning | {"tokenizer_kwargs": {"trust_remote_code": True}}, True),
        ("many tasks", tuning | {"peft_type": "MULTITASK_PROMPT_TUNING", "prompt_tuning_init": "AVERAGE_SOURCE_TASKS",
                                 "prompt_tuning_init_state_dict_path": "evil.bin", "num_tasks": 1}, False),
        ("no mapping", None, True),
    ):  # fmt: skip
        for way in (predict, train):
            files = there | {config: b"[1]" if change is None else change}
            files |= {"remote/config.json": json.dumps({"model_type": "no", "auto_map": {"AutoConfig": "remote.Config"}}),
                      "remote/remote.py": REMOTE}  # fmt: skip
            yield Case("adapters", f"{name} {way[0]}", way, files, base=("adapter", "model"), refused=refused)


def templates() -> Iterator[Case]:
    """Chat templates: jinja's sandbox against the classical ways out of it, and what has no end."""
    reach = ["''.__class__.__mro__[1].__subclasses__()", "cycler.__init__.__globals__.os.system('{}')",
             "joiner.__init__.__globals__.os.popen('{}').read()", "namespace.__init__.__globals__.os.system('{}')",
             "lipsum.__globals__['os'].popen('{}').read()", "self.__init__.__globals__.__builtins__",
             "self._TemplateReference__context.cycler.__init__.__globals__.os.system('{}')",
             "request.application.__globals__.__builtins__.__import__('os').system('{}')",
             "messages.__class__.__base__.__subclasses__()", "raise_exception.__globals__",
             "raise_exception.__globals__['__builtins__']['exec'](\"{}\")", "strftime_now.__globals__",
             "strftime_now.__code__", "strftime_now('%Y').__class__.__base__.__subclasses__()",
             "tojson.__globals__", "(messages|map(attribute='__class__')|list)[0].__base__",
             "(messages|attr('__class__'))", "''|attr('__class__')|attr('__mro__')", "''['__class__']",
             "messages|map('attr', '__class__')|list", "messages|groupby('__class__')", "messages|sort(attribute='__class__')",
             "'{{0.__class__.__init__.__globals__}}'.format(cycler)", "'%s'|format(cycler.__init__)",
             "'{{0.__class__}}'.format_map({{'0': 1}})", "messages.append(1)", "messages.clear()", "messages[0].update(a=1)",
             "messages[0].pop('role')", "namespace(a=1).__class__", "caller.__globals__", "loop.__init__.__globals__",
             "varargs.__class__", "kwargs.__class__", "config.__class__.__init__.__globals__['os'].popen('{}')",
             "get_flashed_messages.__globals__", "url_for.__globals__", "dict.__base__.__subclasses__()",
             "range.__class__", "(1).__class__.__bases__[0].__subclasses__()", "true.__class__.__base__",
             "x.__init__.__globals__", "''.__getattribute__('__class__')", "''.join.__self__.__class__",
             "[].append.__self__.__class__.__base__", "messages.__reduce__()", "messages.__init_subclass__()",
             "().__class__.__bases__[0].__subclasses__()[80]('open')", "tools.__class__.__base__"]  # fmt: skip
    shapes = ["{{{{ {} }}}}", "{{% set x = {} %}}{{{{ x }}}}", "{{% if {} %}}a{{% endif %}}",
              "{{% for x in [{}] %}}{{{{ x }}}}{{% endfor %}}", "{{{{ ({})|string }}}}", "{{% macro m() %}}{{{{ {} }}}}"
              "{{% endmacro %}}{{{{ m() }}}}"]  # fmt: skip
    texts = {f"{way[:40]} {at}": shape.format(way.format(f"touch ../outside/{MARK}"))
             for way in reach for at, shape in enumerate(shapes)}  # fmt: skip
    texts |= {
        "include": "{% include 'train.jsonl' %}", "import": f"{{% import '{MODULE}' as x %}}{{{{ x }}}}",
        "from": f"{{% from '{MODULE}' import x %}}", "extends": "{% extends '/etc/passwd' %}",
        "include of a variable": "{% include messages[0].content %}", "no end": "{% for m in messages %}",
        "no filter": "{{ messages|system }}", "no test": "{% if messages is system %}{% endif %}",
        "debug": "{% debug %}", "do": "{% do messages.append(1) %}",
        "a long range": "{% for i in range(10**9) %}x{% endfor %}", "a longer range": "{{ range(10**30)|list }}",
        "a division": "{{ 1 / 0 }}", "an unknown name": "{{ nobody.has.this }}", "a huge shift": "{{ 1 << 10**12 }}",
        "a loud refusal": "{{ raise_exception('a\\nb\\x1b[31m') }}", "recursion": "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}",
        "deep": "{{ " + "(" * 500 + "1" + ")" * 500 + " }}", "deep blocks": "{% if 1 %}" * 200 + "{% endif %}" * 200,
        "a date": "{{ strftime_now('%' * 100000) }}",
    }  # fmt: skip
    show = ["command=show", "task=chat", "data=files", "data.train=talks.jsonl", "data.eval=talks.jsonl", "cache=false",
            "model=bundled"]  # fmt: skip
    for name, text in texts.items():
        yield Case("templates", f"{name} in a file", [*show, "task.template=x.jinja"], {"x.jinja": text}, **ANYHOW)
    for name, text in texts.items():
        if name.endswith((" 1", " 2", " 3", " 4", " 5")):
            continue
        yield Case("templates", f"{name} of a tokenizer", [*show[:-1], "model=pretrained", "model.path=model"],
                   {"model/chat_template.jinja": text}, base=("model",), **ANYHOW)  # fmt: skip


def data() -> Iterator[Case]:
    """Rows and folders of rows."""
    hub = ["data=hub", "data.train=train", "data.eval=train", "command=show", "cache=false"]
    for name in ("pandas", "webdataset", "generator", "sql", "spark", "arrow", "json", "text", "cache", "eval", "hdf5"):
        files: dict[str, Any] = {"train.pkl": PICKLE, "train.pickle": PICKLE, "data/train.pkl": PICKLE}
        yield Case("data", f"path={name}", [*hub, f"data.path={name}"], files)
    for name in ("set/set.py", "set/train.py", f"set/{MODULE}.py", "set/dataset_infos.json"):
        files = {name: CODE, "set/train.jsonl": '{"text": "a", "label": "x"}\n' * 4}
        yield Case("data", f"script {name}", [*hub, "data.path=set"], files, **ANYHOW)
        yield Case("data", f"script {name} named", [*hub, f"data.path={name}"], files, **ANYHOW)
    for ending in ("pkl", "pickle", "pt", "pth", "npy", "npz", "joblib", "bin", "h5", "zip"):
        yield Case("data", f"train.{ending}", [*hub, "data.path=set"], {f"set/train.{ending}": PICKLE}, **ANYHOW)
        yield Case("data", f"data.train=x.{ending}", ["command=show", "data=files", f"data.train=x.{ending}",
                   "data.eval=eval.jsonl", "cache=false"], {f"x.{ending}": PICKLE})  # fmt: skip
        for form in ("csv", "json", "parquet", "conll", "squad", "tsv"):
            yield Case("data", f"data.train=x.{ending} as {form}", ["command=show", "data=files",
                       f"data.train=x.{ending}", "data.eval=eval.jsonl", f"data.format={form}", "cache=false"],
                       {f"x.{ending}": PICKLE}, **ANYHOW)  # fmt: skip
    for yaml in (f"!!python/object/apply:os.system ['{COMMAND}']", "configs: [{config_name: x, data_files: /etc/passwd}]",
                 "configs: [{config_name: x, data_files: '../../../../etc/passwd'}]", "dataset_info: [1]",
                 "configs: [{config_name: x, data_dir: ../../outside}]", "configs: [{config_name: x, builder: pandas}]",
                 "dataset_info: {features: [{name: x, dtype: os.system}]}",
                 "dataset_info: {features: [{name: x, _type: Pickle}]}"):  # fmt: skip
        readme = {"set/README.md": f"---\n{yaml}\n---\n", "set/train.jsonl": '{"text": "a", "label": "x"}\n' * 4}
        yield Case("data", f"README {yaml[:50]}", [*hub, "data.path=set"], readme, **ANYHOW)
    for name in ("x.pth", "x.npy", "x.npz", "x.pyd", "x.pickle", "../../outside/x.txt", "/tmp/x.txt", "x.json"):
        yield Case("data", f"tar {name}", [*hub, "data.path=set"], {"set/train-00000.tar": tar(name)}, **ANYHOW)
        yield Case("data", f"tar {name} streamed", [*hub, "data.path=set", "data.streaming=true",
                   "training.max_steps=1", "training.epochs=null"], {"set/train-00000.tar": tar(name)}, **ANYHOW)  # fmt: skip
    for name, change in (
        ("a type", {"dataset_info.json": {"features": {"text": {"dtype": "string", "_type": "os.system"}}}}),
        ("a module", {"dataset_info.json": {"features": {"text": {"_type": f"{MODULE}.Payload"}}}}),
        ("fields", {"dataset_info.json": {"features": {"text": {"_type": "Value", "dtype": "__import__('os')"}}}}),
        ("a builder", {"dataset_info.json": {"builder_name": MODULE, "citation": MODULE}}),
        ("files up", {"state.json": {"_data_files": [{"filename": "../../../etc/passwd"}]}}),
        ("files elsewhere", {"state.json": {"_data_files": [{"filename": "/etc/passwd"}]}}),
        ("a format", {"state.json": {"_format_type": MODULE}}),
        ("arguments of a format", {"state.json": {"_format_type": "custom", "_format_kwargs": {"transform": MODULE}}}),
        ("an index", {"state.json": {"_indices_data_files": [{"filename": "../x"}]}}),
        ("a fingerprint", {"state.json": {"_fingerprint": "../../../outside/x"}}),
    ):  # fmt: skip
        files = {f"saved/{file}": content for file, content in change.items()}
        yield Case("data", f"saved {name}", ["command=show", "data=saved", "data.path=saved", "data.train=null",
                   "data.eval=x", "cache=false"], files, base=("saved",), **ANYHOW)  # fmt: skip
    for name, content in (("deep", b"[" * 100_000), ("deep rows", b'{"a":' * 50_000), ("wide", b'{"text": "' + b"x" * 50_000
                          + b'", "label": "x"}'), ("zeros", b"\x00" * 1000), ("a number", b"9" * 100_000),
                          ("nan", b'{"text": NaN, "label": Infinity}'), ("formula", b'{"text": "=cmd()", "label": "../x"}'),
                          ("keys", b'{"__class__": "x", "text": "a", "label": "../../outside/x"}')):  # fmt: skip
        for ending in ("jsonl", "json", "csv", "parquet", "conll"):
            yield Case("data", f"{name} {ending}", ["command=show", "data=files", f"data.train=x.{ending}",
                       f"data.eval=x.{ending}", "cache=false"], {f"x.{ending}": content}, **ANYHOW)  # fmt: skip


COMMAND = f"touch ../outside/{MARK}"


def tar(name: str) -> bytes:
    import tarfile

    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w") as file:
        for number in range(3):
            for inner, content in ((name.replace("x.", f"{number}.") if number else name, PICKLES["zip"]),
                                   (f"{number}.txt", b"a"), (f"{number}.cls", b"1")):  # fmt: skip
                entry = tarfile.TarInfo(inner)
                entry.size = len(content)
                file.addfile(entry, io.BytesIO(content))
    return made.getvalue()


def resumed() -> Iterator[Case]:
    """A run's folder from somebody else, that is gone on with."""
    resume = ["resume=runs/victim", "training.max_steps=4"]
    file = "runs/victim/run.yaml"
    for name, change, refused in (
        ("imports", {"imports": [MODULE]}, True),
        ("imports as text", {"imports": MODULE}, True),
        ("trust", {"model": {"trust_remote_code": True}}, True),
        ("trust as text", {"model": {"trust_remote_code": "true"}}, True),
        ("runs_folder", {"runs_folder": f"../outside/{MARK}"}, True),
        ("runs_folder absolute", {"runs_folder": f"/tmp/{MARK}"}, True),
        ("a store", {"tracking": {"uri": f"sqlite:///../outside/{MARK}.db"}}, True),
        ("a store of files", {"tracking": {"uri": f"file:../outside/{MARK}"}}, True),
        ("a plugin's store", {"tracking": {"uri": f"{MODULE}://x"}}, True),
        ("an output", {"prediction": {"output": f"../outside/{MARK}"}}, True),
        ("a choice up", {"choices": {"model": "../../outside/x"}}, True),
        ("a choice of training", {"choices": {"training": "../../../etc/x"}}, True),
        ("a choice with more", {"choices": {"training": f"default,imports=[{MODULE}]"}}, True),
        ("a choice of imports", {"choices": {"imports": f"[{MODULE}]"}}, True),
        ("a target", {"model": {"_target_": "os.system", "command": COMMAND}}, True),
        ("a target at the top", {"_target_": "os.system", "command": COMMAND}, True),
        ("another command", {"command": "predict", "inputs": "x"}, True),
        ("a group that is none", {"model": "x"}, True),
        ("a text of choices", {"choices": "x"}, True),
        ("a list of steps", {"training": {"max_steps": [1]}}, True),
        ("an infinite rate", {"training": {"learning_rate": 1e999}}, True),
        ("null", {"model": None}, True),
        ("an interpolation", {"seed": "${oc.env:HOME}"}, True),
    ):  # fmt: skip
        yield Case("resumed", name, resume, {file: change}, base=("run",), refused=refused)
    for name, content in (("deep", b"[" * 100_000), ("a list", b"[]"), ("nothing", b""), ("no text", b"\xff\xfe"),
                          ("a pickle", PICKLE), ("yaml", f"a: !!python/object/apply:os.system ['{COMMAND}']".encode()),
                          ("a number", b"1"), ("null", b"null")):  # fmt: skip
        yield Case("resumed", f"run.yaml is {name}", resume, {file: content}, base=("run",))
    for place in ("journal.jsonl", "checkpoints", "checkpoints/step-00000003.part", "run.yaml.part", "mlflow.json.part",
                  "tracker.json.part", "lengths.json", "lengths.json.part", "result.json", "model", "lock",
                  "mlflow.lock", "tables", "x"):  # fmt: skip
        for to in ("outside/canary", "outside", f"outside/{MARK}"):
            up = "../" * (3 + place.count("/"))
            yield Case("resumed", f"{place} is a link to {to}", resume, {f"runs/victim/{place}": Link(f"{up}{to}")},
                       says="link", base=("run",))  # fmt: skip
    for name, change in (
        ("no such run", {"run_id": "../../x", "position": 10**18}),
        ("another store", {"uri": f"sqlite:///../outside/{MARK}.db"}),
        ("a file store", {"uri": f"file:../outside/{MARK}"}),
        ("a module", {"uri": f"{MODULE}://x"}),
        ("wrong types", {"run_id": [1], "uri": {}, "position": "x", "owed": 1, "ended": None}),
        ("files of others", {"owed": [{"artifact": "../../../outside/canary"}, {"artifact": "/etc/passwd"}]}),
        ("tables of others", {"owed": [{"table": "/etc/passwd", "file": "../x.json"}]}),
    ):  # fmt: skip
        yield Case(
            "resumed", f"mlflow.json {name}", resume, {"runs/victim/mlflow.json": change}, base=("run",), **ANYHOW
        )
    for name, change in (("another store", {"uri": f"sqlite:///../outside/{MARK}.db"}), ("no process", {"process": "x"}),
                         ("a list", {"process": [], "since": {}, "host": 1}), ("init", {"process": 1})):  # fmt: skip
        yield Case(
            "resumed", f"tracker.json {name}", resume, {"runs/victim/tracker.json": change}, base=("run",), **ANYHOW
        )
    for name, content in (("deep", b"[" * 100_000), ("a pickle", PICKLE), ("null", b"null")):
        for part in ("mlflow.json", "tracker.json", "lengths.json", "journal.jsonl"):
            yield Case(
                "resumed", f"{part} is {name}", resume, {f"runs/victim/{part}": content}, base=("run",), **ANYHOW
            )
    for name, line in (
        ("files of others", {"artifact": "../../../outside/canary"}),
        ("a file of the machine", {"artifact": "/etc/passwd", "into": "../../x"}),
        ("tables", {"table": "/etc/passwd", "file": "../../x.json"}),
        ("a parent", {"begin": {"parent": "../../../outside", "tags": {}, "token": "x' OR '1'='1"}}),
        ("metrics", {"metrics": {"../../x": 1.0, "train/loss": "x"}, "step": 10**30}),
        ("a status", {"status": "../../x", "error": 1}),
        ("a data set", {"dataset": {"name": 1}}),
    ):  # fmt: skip
        yield Case("resumed", f"a line of {name}", resume, {"runs/victim/journal.jsonl": json.dumps(line).encode() + b"\n"},
                   base=("run",), **ANYHOW)  # fmt: skip
        yield Case("resumed", f"synced: a line of {name}", ["command=sync"],
                   {"runs/victim/journal.jsonl": json.dumps(line).encode() + b"\n", "runs/victim/mlflow.json": None},
                   base=("run",), **ANYHOW)  # fmt: skip


class Link(str):
    """A file that is a link to this place."""


def checkpoints() -> Iterator[Case]:
    """A checkpoint with true checksums and false content."""
    resume = ["resume=runs/victim", "training.max_steps=4"]
    for name, change in (
        ("a name up", {"manifest": {"../../../../outside/canary": {"bytes": 9, "sha256": "x"}}}),
        ("an absolute name", {"manifest": {"/etc/passwd": {"bytes": 9, "sha256": "x"}}}),
        ("a number for a file", {"manifest": {"state.json": 1}}),
        ("a best up", {"state": {"needs_best": "../../../outside/x", "best_step": "../../x"}}),
        ("a best of a billion", {"state": {"needs_best": 10**30}}),
        ("a step of a billion", {"state": {"step": 10**30}}),
        ("a step before the first", {"state": {"step": -1}}),
        ("a step of text", {"state": {"step": "x"}}),
        ("no optimizer", {"state": {"optimizer": None}}),
        ("an optimizer with a class", {"state": {"optimizer": {"state": {"__class__": {}}, "groups": []}}}),
        ("a schedule of objects", {"state": {"schedule": {"_get_lr_called_within_step": "x", "lr_lambdas": [{"__class__": 1}],
                                                          "step": "os.system", "get_lr": "x"}}}),
        ("random states", {"state": {"random": [{"numpy": ["../x", 1, 2, 3], "python": [9, None]}]}}),
        ("a window", {"state": {"window": {"items": "x", "seconds": [], "processes": [{}]}}}),
        ("another config", {"state": {"config": {"imports": [MODULE]}, "data": {}}}),
        ("metrics", {"state": {"metrics": {"../../x": 1}, "notes": {"x": ["y"]}}}),
        ("nothing", {"state": None}),
        ("a list", {"state": b"[]"}),
        ("deep", {"state": b"[" * 100_000}),
        ("weights that are a pickle", {"weights": PICKLE}),
        ("weights that are a torch file", {"weights": PICKLES["zip"]}),
        ("an optimizer that is a pickle", {"optimizer": PICKLE}),
        ("random states that are a pickle", {"random": PICKLE}),
        *((f"weights: {name}", {"weights": content}) for name, content in bad_safetensors()),
    ):  # fmt: skip
        yield Case("checkpoints", name, resume, {"checkpoint": change}, base=("run",), **ANYHOW)


HEAVY = [pickled_models, remote_code, hostile_values, adapters, templates, data, resumed, checkpoints]
