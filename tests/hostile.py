"""Hostile inputs: each one tries to run code, or to write where a run has no business, through what xp reads."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import cycle
from typing import Any

from watch import MARK

COMMAND = f"touch ../outside/{MARK}"
MODULE = f"planted_{MARK}"
"""A module that lies in the current folder, beside the configs; importing it is the attack."""


@dataclass(frozen=True)
class Case:
    """One input, and how it is given to xp."""

    kind: str
    name: str
    arguments: list[str]
    files: Mapping[str, Any] = field(default_factory=dict)
    """By their places below the current folder: a text, bytes, what changes in a json file, or None: removed."""

    refused: bool = True
    """Whether it must end in one line and exit code 2; else it is data, and may end in any way but a traceback."""

    says: str = ""
    """Of the line."""

    base: tuple[str, ...] = ()
    """Folders that are there before, see `test_hostile_files`."""

    def __str__(self) -> str:
        return f"{self.kind}: {self.name}"


def target(name: str, /, **more: Any) -> dict[str, Any]:
    return {"_target_": name, **more}


TARGETS = [
    target("os.system", command=COMMAND),
    target("subprocess.check_output", args=COMMAND, shell=True),
    target("subprocess.run", _args_=[["touch", f"../outside/{MARK}"]]),
    target("builtins.exec", _args_=[f"open('../outside/{MARK}', 'w')"]),
    target("builtins.eval", _args_=[f"__import__('{MODULE}')"]),
    target("importlib.import_module", name=MODULE),
    target(f"{MODULE}.Payload"),
    target("pathlib.Path.touch", self=target("pathlib.Path", _args_=[f"../outside/{MARK}"])),
    target("shutil.copy", src="train.jsonl", dst=f"../outside/{MARK}"),
    target("pickle.load", file=target("builtins.open", file="evil.pkl", mode="rb")),
    target("runpy.run_path", path_name=f"{MODULE}.py"),
    target("ctypes.CDLL", name=f"./{MARK}.so"),
    target("hydra.utils.instantiate", config=target("os.system", command=COMMAND)),
    target("os.system", _partial_=True, command=COMMAND),
    target("os.system", _recursive_=True, _convert_="all", command=COMMAND),
    target("socket.create_connection", address=["198.51.100.1", 80]),
]


def factory(name: str, /, **more: Any) -> dict[str, Any]:
    return {"()": name, **more}


LOGGING = [
    {"handlers": {"x": factory("os.system", command=COMMAND)}},
    {"formatters": {"x": factory("os.system", command=COMMAND)}},
    {"filters": {"x": factory(f"{MODULE}.Payload")}},
    {"handlers": {"x": {"class": f"{MODULE}.Payload"}}},
    {
        "handlers": {"x": {"class": "logging.FileHandler", "filename": f"../outside/{MARK}"}},
        "root": {"handlers": ["x"]},
    },
    {"handlers": {"x": {"class": "logging.handlers.WatchedFileHandler", "filename": f"../outside/{MARK}"}}},
    {"handlers": {"x": {"class": "logging.handlers.SocketHandler", "host": "198.51.100.1", "port": 1}}},
    {"handlers": {"x": {"class": "logging.handlers.HTTPHandler", "host": "198.51.100.1", "url": "/"}}},
    {"handlers": {"file": {"filename": f"../outside/{MARK}"}}},
    {"formatters": {"x": {"class": f"{MODULE}.Payload"}}},
    {"formatters": {"x": {"format": f"ext://{MODULE}.x"}}},
    {"loggers": {"x": {"handlers": [factory("os.system", command=COMMAND)]}}},
]

HYDRA: list[dict[str, Any]] = [
    *({"callbacks": {"x": each}} for each in TARGETS),
    *({group: each} for group in ("job_logging", "hydra_logging") for each in LOGGING),
    *({"launcher": each} for each in TARGETS[:8]),
    *({"launcher": {"slots": each}} for each in TARGETS[:8]),
    *({"sweeper": each} for each in TARGETS[:8]),
    *({"sweeper": {"params": {"seed": each}}} for each in TARGETS[:4]),
    {"sweeper": {"max_batch_size": TARGETS[0]}},
    {"sweeper": {"params": {"imports": f"[{MODULE}]"}}},
    {"sweeper": {"params": {"+imports": f"[{MODULE}]"}}},
    {"sweeper": {"params": {"++imports": f"[{MODULE}]"}}},
    {"sweeper": {"params": {"model.trust_remote_code": "true"}}},
    {"sweeper": {"params": {"hydra.launcher._target_": "os.system", "+hydra.launcher.command": COMMAND}}},
    {"sweeper": {"params": {"hydra/launcher": "basic"}}},
    {"launcher": {"_target_": "hydra._internal.core_plugins.basic_launcher.BasicLauncher"},
     "sweep": {"dir": "../outside", "subdir": MARK}},
    {"launcher": {"_target_": "hydra._internal.core_plugins.basic_launcher.BasicLauncher"},
     "job_logging": LOGGING[4]},
    {"run": {"dir": f"../outside/{MARK}"}},
    {"sweep": {"dir": f"../outside/{MARK}"}},
    {"sweep": {"subdir": f"../../outside/{MARK}"}},
    {"output_subdir": f"../../outside/{MARK}"},
    {"job": {"chdir": True}},
    {"job": {"env_set": {MARK: "1", "LD_PRELOAD": f"./{MARK}.so"}}},
    {"job": {"env_copy": ["HOME"]}},
    {"job": {"name": f"../../outside/{MARK}"}},
    {"job": {"config": {"override_dirname": {"kv_sep": f"/../../outside/{MARK}"}}}},
    {"mode": "MULTIRUN"},
    {"verbose": True},
    {"help": {"template": "${oc.env:HOME}"}},
    {"runtime": {"output_dir": f"../outside/{MARK}"}},
    {"searchpath": ["file://elsewhere"]},
    {"searchpath": [f"pkg://{MODULE}"]},
]  # fmt: skip
"""What a config could say under ``hydra``."""

EXPERIMENT = "# @package _global_\n"


def _experiment(body: Any) -> tuple[dict[str, str], list[str]]:
    return {"conf/experiment/x.yaml": EXPERIMENT + json.dumps(body)}, ["experiment=x"]


def _of_a_config_dir(body: Any) -> tuple[dict[str, str], list[str]]:
    return {"mine/experiment/x.yaml": EXPERIMENT + json.dumps(body)}, ["--config-dir", "mine", "experiment=x"]


def _through_another_group(body: Any) -> tuple[dict[str, str], list[str]]:
    more = "defaults: [stdlib_functions, /experiment/x@_global_]\n"
    return {"conf/experiment/x.yaml": json.dumps(body), "conf/data/y.yaml": more}, ["data=y"]


def _by_its_package(body: Any) -> tuple[dict[str, str], list[str]]:
    key, inner = next(iter(body.items()))
    if not isinstance(inner, dict) or len(body) > 1:
        return _of_a_config_dir(body)
    return {"conf/experiment/x.yaml": f"# @package {key}\n{json.dumps(inner)}"}, ["experiment=x"]


def _as_an_anchor(body: Any) -> tuple[dict[str, str], list[str]]:
    key, inner = next(iter(body.items()))
    if len(body) > 1 or not isinstance(inner, dict):
        return _experiment(body)
    text = f"{EXPERIMENT}{key}: &a {json.dumps(inner)}\n"
    return {"conf/experiment/x.yaml": text}, ["experiment=x"]


PLACES = [_experiment, _of_a_config_dir, _through_another_group, _by_its_package, _as_an_anchor]
WAYS: list[list[str]] = [[], ["-m", "seed=1,2"], ["-m"], ["command=predict", "inputs=x"]]
SHOWN = [["--cfg", "job"], ["--cfg", "hydra"], ["--cfg", "all"], ["--info", "all"], ["--info", "defaults-tree"],
         ["--info", "searchpath"], ["--hydra-help"], ["--help"], ["--cfg", "job", "--resolve"]]  # fmt: skip


def hydra() -> Iterator[Case]:
    """Hydra's own back doors, wherever a config may stand, in a run and in a sweep."""
    for number, body in enumerate(HYDRA):
        for place in PLACES:
            files, arguments = place({"hydra": body})
            for way in WAYS[:3]:
                name = f"{json.dumps(body)[:70]} {number} by {place.__name__} {' '.join(way)}"
                yield Case("hydra", name, [*arguments, *way], files)


def hydra_shown() -> Iterator[Case]:
    """The same where a config is but shown: it may be shown, and may be refused."""
    for number, body in enumerate(HYDRA):
        for place in PLACES[:3]:
            files, arguments = place({"hydra": body})
            for way in SHOWN:
                name = f"{json.dumps(body)[:70]} {number} by {place.__name__} {' '.join(way)}"
                yield Case("hydra shown", name, [*arguments, *way], files, refused=False)


def hydra_groups() -> Iterator[Case]:
    """Hydra's own groups, with files of the user's in them, chosen by a defaults list or on the command line."""
    groups = {"callbacks": {"x": TARGETS[0]}, "job_logging": LOGGING[0], "hydra_logging": LOGGING[0],
              "launcher": TARGETS[0], "sweeper": TARGETS[0], "env": {MARK: "1"}, "help": {"template": "x"},
              "output": {"dir": f"../outside/{MARK}"}}  # fmt: skip
    for group, body in groups.items():
        for folder, flags in (("conf", []), ("mine", ["--config-dir", "mine"])):
            for choice in ("evil", "default", "pool", "basic"):
                file = {f"{folder}/hydra/{group}/{choice}.yaml": json.dumps(body)}
                for way in WAYS[:2]:
                    name = f"{group}/{choice} in {folder} {' '.join(way)}"
                    for override in ("override ", ""):
                        listed = f"{EXPERIMENT}defaults: [{{{override}/hydra/{group}: {choice}}}]\n"
                        files = {f"{folder}/experiment/x.yaml": listed} | file
                        # Hydra's own file of this name is found first; xp's launcher and sweeper have the last word.
                        ours = override and group in ("launcher", "sweeper")
                        harmless = choice != "evil" or bool(ours)
                        yield Case("hydra groups", f"{override}{name}", [*flags, "experiment=x", *way], files,
                                   refused=not harmless)  # fmt: skip
                    if choice == "evil":
                        for sign in ("", "+", "++", "~"):
                            given = [f"{sign}hydra/{group}={choice}"]
                            yield Case("hydra groups", f"{sign}{name}", [*flags, *given, *way], file)


def hydra_overrides() -> Iterator[Case]:
    """What the command line itself may not say of Hydra: a line that was copied from a web page is data, too."""
    for key in ("hydra.run.dir", "hydra.sweep.dir", "hydra.sweep.subdir", "hydra.output_subdir", "hydra.job.chdir",
                "hydra.job.env_set.X", "hydra.callbacks.x._target_", "hydra.launcher._target_", "hydra.searchpath",
                "hydra.sweeper._target_", "hydra.job_logging.root.level", "hydra.launcher.slots._target_", "hydra",
                "hydra.help.template", "hydra.mode", "hydra.sweeper.params.imports", "hydra"):  # fmt: skip
        for sign in ("", "+", "++"):
            for way in ([], ["-m"]):
                yield Case("hydra overrides", f"{sign}{key} {way}", [f"{sign}{key}={MODULE}", *way], {})
    for flag in (["--config-path", "mine"], ["--config-name", "x"], ["--experimental-rerun", "evil.pkl"],
                 ["-cn", "x"], ["-cp", "mine"], ["--config-dir", "nowhere"]):  # fmt: skip
        yield Case("hydra overrides", " ".join(flag), flag, {"evil.pkl": b"", "mine/x.yaml": "{}"})


GROUPS = ["model", "data", "task", "backend", "peft", "generation", "training", "prediction", "tracking", "choices"]


def targets() -> Iterator[Case]:
    """``_target_`` in every group and at every depth: xp instantiates nothing, so it is an unknown key."""
    forms = cycle(TARGETS)
    for group in GROUPS:
        for depth, wrap in enumerate((lambda x: x, lambda x: {"x": x}, lambda x: {"config": x}, lambda x: [x])):
            for place in PLACES:
                files, arguments = place({group: wrap(next(forms))})
                yield Case("targets", f"{group} {depth} {place.__name__}", arguments, files)
    for key in ("seed", "command", "inputs", "runs_folder", "device", "precision", "cache", "examples", "imports"):
        for place in PLACES:
            files, arguments = place({key: next(forms)})
            yield Case("targets", f"{key} {place.__name__}", arguments, files)
    for key in ("model.path", "data.columns.text", "task.metrics", "training.optimizer_options", "model.config"):
        for form in TARGETS[:5]:
            inner: Any = form
            for part in reversed(key.split(".")):
                inner = {part: inner}
            for place in PLACES[:3]:
                files, arguments = place(inner)
                yield Case("targets", f"{key} {form['_target_']} {place.__name__}", arguments, files)


def imports() -> Iterator[Case]:
    """``imports`` and ``trust_remote_code`` in any file: only the command line can say them."""
    wishes: list[dict[str, Any]] = [
        {"imports": [MODULE]},
        {"imports": MODULE},
        {"imports": [f"hub:./{MODULE}"]},
        {"imports": f"${{oc.decode:'[{MODULE}]'}}"},
        {"imports": [f"${{oc.env:NOWHERE,{MODULE}}}"]},
        {"imports": f"${{oc.create:[{MODULE}]}}"},
        {"imports": {"x": MODULE}},
        {"imports": [MODULE], "choices": {"model": "x"}},
        {"model": {"trust_remote_code": True}},
        {"model": {"trust_remote_code": "true"}},
        {"model": {"trust_remote_code": "${oc.decode:true}"}},
        {"model": {"trust_remote_code": 1}},
    ]
    for body in wishes:
        for place in PLACES:
            for way in WAYS:
                files, arguments = place(body)
                yield Case("imports", f"{json.dumps(body)} {place.__name__} {' '.join(way)}",
                           [*arguments, *way], files)  # fmt: skip
    for group, choice in (("model", "bundled"), ("data", "stdlib_functions"), ("task", "text_classification"),
                          ("backend", "torch"), ("peft", "none"), ("generation", "greedy")):  # fmt: skip
        text = f"defaults: [{choice}, _self_]\nimports: [{MODULE}]\n"
        yield Case("imports", f"in {group}", [f"{group}=x"], {f"conf/{group}/x.yaml": text})


NAMES = ["../../outside/x", "../outside/x", "/tmp/x", "..", "../..", "a/../../../outside/x", "~root/x",
         "%2e%2e/outside/x", "..\\outside\\x", "x\x00y", "x\ny", "."]  # fmt: skip


def traversal() -> Iterator[Case]:
    """Names that lead out of the folder that they are put into."""
    for name in NAMES:
        for group in ("model", "data", "peft", "training", "experiment", "tracking"):
            for sign in ("", "+"):
                yield Case("traversal", f"{sign}{group}={name!r}", [f"{sign}{group}={name}"])
            if group == "experiment":  # The one that was chosen on the command line stays.
                continue
            listed = f"{EXPERIMENT}defaults: [{{override /{group}: {json.dumps(name)}}}]\n"
            yield Case("traversal", f"defaults {group}={name!r}", ["experiment=x"], {"conf/experiment/x.yaml": listed})
    # One that is there, by a way through other folders: its name would begin that of the run's folder.
    for choice in (
        "../model/bundled",
        "../../conf/model/bundled",
        "./bundled",
        "x/../bundled",
        "a/../../model/bundled",
    ):
        yield Case("traversal", f"model={choice}", [f"model={choice}"])
        body = f"{EXPERIMENT}defaults: [{{override /model: {json.dumps(choice)}}}]\n"
        yield Case("traversal", f"defaults model={choice}", ["experiment=x"], {"conf/experiment/x.yaml": body})
        for group, inner in (("peft", "none"), ("data", "stdlib_functions")):
            there = choice.replace("bundled", inner).replace("model", group)
            yield Case("traversal", f"{group}={there}", [f"{group}={there}"])


def bomb(levels: int) -> str:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, levels)]
    return "\n".join(lines)


def merges(levels: int) -> str:
    lines = ["a: &b0 {x: 1}"]
    lines += [f"c{n}: &b{n} {{<<: [{', '.join([f'*b{n - 1}'] * 9)}], y{n}: 1}}" for n in range(1, levels)]
    return "\n".join(lines)


def yamls() -> Iterator[Case]:
    """Yaml's own tricks: tags that make objects, anchors that multiply, depths, what is no text at all."""
    tags = [
        f"!!python/object/apply:os.system ['{COMMAND}']",
        f"!!python/object/new:os.system ['{COMMAND}']",
        f"!!python/object/apply:subprocess.check_output [[touch, ../outside/{MARK}]]",
        f"!!python/module:{MODULE}",
        f"!!python/name:{MODULE}.x",
        "!!python/tuple [1, 2]",
        f"!!python/object:{MODULE}.Payload {{}}",
        f"!<tag:yaml.org,2002:python/object/apply:os.system> ['{COMMAND}']",
        "!!binary aGVsbG8=",
        "!!set {a, b}",
        "!!omap [a: 1]",
        "!!timestamp 2001-12-14",
        "!include /etc/passwd",
        "!ENV HOME",
    ]
    for tag in tags:
        for key in ("seed", "inputs", "hydra", "model"):
            for place in ("conf", "mine"):
                flags = ["--config-dir", "mine"] if place == "mine" else []
                files = {f"{place}/experiment/x.yaml": f"{EXPERIMENT}{key}: {tag}\n"}
                yield Case("yaml", f"{tag} {key} {place}", [*flags, "experiment=x"], files)
    texts: dict[str, str | bytes] = {
        "laughs": EXPERIMENT + bomb(9),
        "many laughs": EXPERIMENT + bomb(30),
        "laughs in inputs": EXPERIMENT + "inputs:\n" + "\n".join("  " + line for line in bomb(9).splitlines()),
        "merged laughs": EXPERIMENT + merges(40),
        "itself": EXPERIMENT + "seed: &a [*a]\n",
        "deep list": EXPERIMENT + "seed: " + "[" * 20_000 + "]" * 20_000,
        "deep mapping": EXPERIMENT + "seed: " + "{a: " * 20_000 + "1" + "}" * 20_000,
        "deep lines": EXPERIMENT + "".join("  " * n + f"a{n}:\n" for n in range(3000)),
        "no text": b"\xff\xfe\x00\xd8seed: 1",
        "latin": EXPERIMENT.encode() + b"seed: \xe9",
        "zeros": b"\x00" * 100,
        "two documents": EXPERIMENT + "seed: 1\n---\nseed: 2\n",
        "a list": EXPERIMENT + "[1, 2]",
        "a number": EXPERIMENT + "1",
        "a text": EXPERIMENT + "hello",
        "a tab": EXPERIMENT + "seed:\t1\n\tx: 1",
        "keys that are lists": EXPERIMENT + "? [1, 2]\n: 3\n",
        "keys that are numbers": EXPERIMENT + "1: 3\n",
        "a key twice": EXPERIMENT + "seed: 1\nseed: 2\n",
        "long number": EXPERIMENT + "seed: " + "9" * 5000,
        "long text": EXPERIMENT + "seed: " + "x" * 1_000_000,
        "sexagesimal": EXPERIMENT + "seed: 190:20:30:15:190:20:30",
        "long line of merges": EXPERIMENT + "seed: {" + ", ".join(f"<<: {{a{n}: 1}}" for n in range(500)) + "}",
        "regular expression": EXPERIMENT + "seed: " + "1_" * 30_000 + "x",
    }  # fmt: skip
    for name, text in texts.items():
        yield Case("yaml", name, ["experiment=x"], {"conf/experiment/x.yaml": text})
        if isinstance(text, str):
            own = text.removeprefix(EXPERIMENT)
            yield Case("yaml", f"{name} in a group", ["training=x"], {"conf/training/x.yaml": own})
    loops = {
        "itself": {"conf/training/x.yaml": "defaults: [x]\n"},
        "each other": {"conf/training/x.yaml": "defaults: [y]\n", "conf/training/y.yaml": "defaults: [x]\n"},
        "through groups": {"conf/training/x.yaml": "defaults: [/model/y@_here_]\n",
                           "conf/model/y.yaml": "defaults: [/training/x@_here_]\n"},
        "of models": {"conf/model/x.yaml": "defaults: [y]\n", "conf/model/y.yaml": "defaults: [x]\n"},
        "twice": {"conf/training/x.yaml": "defaults: [default, default]\n"},
        "no list": {"conf/training/x.yaml": "defaults: {a: b}\n"},
        "a number": {"conf/training/x.yaml": "defaults: [1]\n"},
        "nothing": {"conf/training/x.yaml": "defaults: [nowhere]\n"},
        "many": {"conf/training/x.yaml": "defaults: [" + ", ".join(f"default@a{n}" for n in range(300)) + "]\n"},
    }  # fmt: skip
    for name, files in loops.items():
        group = "model" if name == "of models" else "training"
        yield Case("yaml", f"defaults: {name}", [f"{group}=x"], files, refused=name != "twice")


def interpolations() -> Iterator[Case]:
    """OmegaConf's resolvers: none of them runs code, and none may make much of little."""
    doubling = {f"a{n}": f"${{a{n - 1}}}" * 2 for n in range(1, 60)} | {"a0": "xxxxxxxxxx", "inputs": "${a59}"}
    nested = "${" * 500 + "seed" + "}" * 500
    values: dict[str, Any] = {
        "code in oc.env": f"${{oc.env:NOWHERE,{COMMAND}}}",
        "decode of code": f"${{oc.decode:\"__import__('{MODULE}')\"}}",
        "decode of an interpolation": "${oc.decode:'${oc.env:NOWHERE}'}",
        "create of a target": "${oc.create:{_target_:os.system}}",
        "no such resolver": f"${{eval:__import__('{MODULE}')}}",
        "a resolver by its module": f"${{{MODULE}:x}}",
        "python": "${python:1}",
        "hydra": "${hydra:runtime.cwd}",
        "now": "${now:%Y}",
        "select": "${oc.select:hydra.job.env_set}",
        "itself": "${seed}",
        "through another": "${examples}",
        "nested": nested,
        "a number of a list": "${imports.0}",
        "attributes": "${model.__class__.__init__.__globals__}",
        "dunder": "${__class__}",
        "relative": "${.......x}",
        "all": "${oc.dict.values:model}",
    }
    for name, value in values.items():
        body = {"seed": value} | ({"examples": "${seed}"} if name == "through another" else {})
        refused = name not in ("nested", "now")
        for place in PLACES[:3]:
            files, arguments = place(body)
            yield Case("interpolations", f"{name} {place.__name__}", arguments, files, refused=refused)
        if "examples" not in body:
            yield Case("interpolations", f"{name} typed", [f"seed={value}"], {}, refused=refused)
    for place in PLACES[:3]:
        files, arguments = place(doubling)
        yield Case("interpolations", f"doubling {place.__name__}", arguments, files)
        files, arguments = place({f"a{n}": [f"${{a{n - 1}}}"] * 9 for n in range(1, 30)} | {"a0": "x"})
        yield Case("interpolations", f"lists of lists {place.__name__}", arguments, files)


LIGHT = [hydra, hydra_shown, hydra_groups, hydra_overrides, targets, imports, traversal, yamls, interpolations]
"""Kinds of hostile inputs that a config alone can be: refused without any heavy library."""
