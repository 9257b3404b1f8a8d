"""Wrong configs, made by mutating right ones: keys, values, files and the command line's own grammar.

What is there to be mutated is read from ``conf/`` and from the classes: nothing here names a key or a choice.
"""

from __future__ import annotations

import json
import math
import random
import re
import types
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import yaml
from annotated_types import Ge, Gt, Interval, Le, Lt, MaxLen, MinLen, MultipleOf
from conftest import ROOT
from pydantic import BeforeValidator

from xp.component import Component, Settings
from xp.config.naming import LITERAL
from xp.run import Run

CONF = ROOT / "conf"


@dataclass(frozen=True)
class Mutant:
    """A wrong config, and what the one line about it has to say."""

    kind: str
    arguments: list[str]
    names: tuple[str, ...]
    """One of these words must be there: the wrong key, or the file that it is in."""

    near: str = ""
    """The nearest valid word."""

    files: dict[str, str | bytes] = field(default_factory=dict)

    def __str__(self) -> str:
        return f"{self.kind}: {' '.join(self.arguments)[:200]} {sorted(self.files)}"


@dataclass(frozen=True)
class Spot:
    """A setting: where it is said, which choice brings it, its type and its right value."""

    group: str
    choice: str
    path: tuple[str, ...]
    """Of the key within the run."""

    annotation: Any
    value: Any
    arguments: tuple[str, ...]
    """What chooses the choice, and gives the values that its yaml lacks."""

    @property
    def key(self) -> str:
        return ".".join(self.path)


def kinds() -> dict[str, type[Settings]]:
    """The groups of a run, by name."""
    return {
        name: info.annotation
        for name, info in Run.model_fields.items()
        if isinstance(info.annotation, type) and issubclass(info.annotation, Settings)
    }


@cache
def stated(group: str, choice: str) -> dict[str, Any]:
    """What a yaml and those of its group that it is based on state."""
    found: dict[str, Any] = {}
    text = (CONF / group / f"{choice}.yaml").read_text()
    own = yaml.safe_load(text) or {}
    for base in own.get("defaults", []):
        name = base.partition("@")[0] if isinstance(base, str) else "_self_"
        if name != "_self_":
            found |= stated(group, name)
    if "@package _global_" in text:  # It says more than its own group.
        own = own.get(group, {})
    return found | {key: value for key, value in own.items() if key != "defaults"}


def choices(group: str) -> list[str]:
    return sorted(file.stem for file in (CONF / group).glob("*.yaml"))


@cache
def spots() -> list[Spot]:
    """Every setting of every choice of every group, and those of the root."""
    found = []
    root = yaml.safe_load((CONF / "config.yaml").read_text())
    for name, info in Run.model_fields.items():
        if name in root and name not in kinds():
            annotation = Annotated[info.annotation, *info.metadata] if info.metadata else info.annotation
            found.append(Spot("", "", (name,), annotation, root[name], ()))
    for group, kind in kinds().items():
        if group in root and not (CONF / group).is_dir():
            found += _fields(kind, group, "", root[group], ())
    for group, kind in kinds().items():
        for choice in choices(group) if (CONF / group).is_dir() else ():
            values = stated(group, choice)
            made = kind.find(values["name"]) if issubclass(kind, Component) else kind
            found += _fields(made, group, choice, values, _needed(group, choice, values))
    return found


def _needed(group: str, choice: str, values: dict[str, Any]) -> tuple[str, ...]:
    """What makes a choice a right config: its values that are missing, and a command that its task is for."""
    given = [f"{group}={choice}"]
    for key, value in values.items():
        if value == "???":
            given.append(f"{group}.{key}={'sqlite:///runs/x.db' if key == 'uri' else 'x/y'}")
        for name in [name for name, each in value.items() if each == "???"] if isinstance(value, dict) else ():
            given.append(f"{group}.{key}.{name}=[3]")
    if group == "task":
        given += ["command=predict", "inputs=https://x/y.png"]
    return tuple(given)


def _fields(kind: type[Settings], group: str, choice: str, values: dict[str, Any], given: tuple[str, ...],
            path: tuple[str, ...] = ()) -> list[Spot]:  # fmt: skip
    found = []
    for name, info in kind.model_fields.items():
        if name not in values or (name == "name" and not path):
            continue
        inner = next((each for each in (info.annotation, *get_args(info.annotation))
                      if isinstance(each, type) and issubclass(each, Settings)), None)  # fmt: skip
        place = (group, *path, name)
        if inner is not None and isinstance(values[name], dict) and not issubclass(inner, Component):
            found += _fields(inner, group, choice, values[name], given, (*path, name))
        elif inner is None:
            annotation = Annotated[info.annotation, *info.metadata] if info.metadata else info.annotation
            found.append(Spot(group, choice, place, annotation, values[name], given))
    return found


def accepts(annotation: Any, value: Any) -> bool | None:  # noqa: PLR0911 - a line for each form of a type
    """Whether a type takes a value, worked out without pydantic; None where that cannot be told from the type."""
    origin = get_origin(annotation)
    if origin is Annotated:
        inner, *marks = get_args(annotation)
        if any(isinstance(mark, BeforeValidator) for mark in marks):
            return None
        verdicts = [accepts(inner, value), *(_within(mark, value) for mark in marks)]
        return False if False in verdicts else None if None in verdicts else True
    if origin in (Union, types.UnionType):
        verdicts = [accepts(each, value) for each in get_args(annotation)]
        return True if True in verdicts else None if None in verdicts else False
    if annotation is Any:
        return None
    if origin is Literal:
        return any(value == each and type(value) is type(each) for each in get_args(annotation))
    if origin is list:
        each = [accepts(get_args(annotation)[0], item) for item in value] if isinstance(value, list) else [False]
        return False if False in each else None if None in each else True
    if origin is dict:
        if not isinstance(value, dict):
            return False
        each = [
            accepts(kind, item) for pair in value.items() for kind, item in zip(get_args(annotation), pair, strict=True)
        ]
        return False if False in each else None if None in each else True
    if annotation in (None, type(None)):
        return value is None
    if annotation is int:
        return isinstance(value, int) and not isinstance(value, bool)
    if annotation is float:
        return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
    if annotation in (str, bool):
        return isinstance(value, annotation)
    return None


def _within(mark: Any, value: Any) -> bool | None:  # noqa: PLR0911 - a line for each kind of bound
    if not isinstance(value, (int, float)) or isinstance(value, bool):
        return True if isinstance(mark, (Gt, Ge, Lt, Le, Interval, MultipleOf)) else None
    if isinstance(mark, Gt):
        return bool(value > mark.gt)
    if isinstance(mark, Ge):
        return bool(value >= mark.ge)
    if isinstance(mark, Lt):
        return bool(value < mark.lt)
    if isinstance(mark, Le):
        return bool(value <= mark.le)
    if isinstance(mark, (MinLen, MaxLen)):
        return None
    if hasattr(mark, "metadata"):  # pydantic's Field
        verdicts = [_within(each, value) for each in mark.metadata]
        return False if False in verdicts else None if None in verdicts else True
    return None


def marks(annotation: Any) -> Iterator[Any]:
    """The bounds in a type, however deep."""
    if get_origin(annotation) is Annotated:
        inner, *own = get_args(annotation)
        yield from marks(inner)
        for mark in own:
            yield from getattr(mark, "metadata", [mark])
    else:
        for each in get_args(annotation):
            if not isinstance(each, str):
                yield from marks(each)


def words(annotation: Any) -> list[str]:
    """The words that a type allows; none where it allows any."""
    if get_origin(annotation) is Literal:
        return [each for each in get_args(annotation) if isinstance(each, str)]
    if get_origin(annotation) in (Union, types.UnionType, Annotated):
        inner = get_args(annotation)[:1] if get_origin(annotation) is Annotated else get_args(annotation)
        found = [words(each) for each in inner if each is not type(None)]
        return found[0] if len(found) == 1 else []
    return []


def typos(word: str, chance: random.Random) -> list[str]:
    """Ways to mistype a word."""
    at = chance.randrange(len(word))
    made = [word[:at] + word[at + 1 :], word[:at] + word[at] * 2 + word[at + 1 :], word + "s"]
    if len(word) > 1:
        at = chance.randrange(len(word) - 1)
        made.append(word[:at] + word[at + 1] + word[at] + word[at + 2 :])
    made.append(word[:at] + chance.choice("abcdefghijklmnopqrstuvwxyz") + word[at + 1 :])
    return [each for each in made if each not in (word, "") and not each.startswith("_")]


def _near(word: str, other: str) -> bool:
    """Whether one letter too many, too few, or another one makes the difference."""
    same = 0
    while same < min(len(word), len(other)) and word[same] == other[same]:
        same += 1
    rest = [word[same:], other[same:]]
    return any(rest[0][first:] == rest[1][second:] for first, second in ((1, 0), (0, 1), (1, 1)))


def shown(value: Any) -> str:
    """A value as the command line takes it."""
    if isinstance(value, str):
        return "'" + value.replace("\\", "\\\\").replace("'", "\\'") + "'"
    if isinstance(value, dict):
        return "{" + ",".join(f"{key}:{shown(each)}" for key, each in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ",".join(shown(each) for each in value) + "]"
    return json.dumps(value)


VALUES: list[Any] = ["many", 1.5, -1.5, 0, -1, 10**30, True, False, None, [1], ["x"], [], {"a": 1}, {}, "", math.inf,
                     math.nan, [[1]], [None], {"a": {"b": 1}}, "1", "true", "null", 1e-300]  # fmt: skip


def said(spot: Spot, value: Any) -> str:
    text = {math.inf: "inf"}.get(value, shown(value)) if not isinstance(value, (list, dict)) else shown(value)
    return f"{spot.key}={'nan' if isinstance(value, float) and math.isnan(value) else text}"


OPEN = "typed by the user"


def is_open(annotation: Any) -> bool:
    """Whether it is a mapping that takes keys of the user's own."""
    return any(get_origin(each) is dict for each in (annotation, *get_args(annotation)))


Maker = Callable[[random.Random], Iterator[Mutant]]


def in_place(spot: Spot, given: list[str], key: str, value: Any, kind: str, near: str, how: int) -> Mutant:
    """A wrong setting on the command line, with a plus before it, in a yaml of one's own, or in an experiment."""
    name = key.rpartition(".")[2]
    dotted = [each.partition("=")[0] for each in given if "." in each.partition("=")[0]]
    # The command line has the last word.
    said = any(f"{key}.".startswith(f"{each}.") or f"{each}.".startswith(f"{key}.") for each in dotted)
    if how == 0 or (how > 1 and (said or not spot.group)):
        return Mutant(kind, [*given, f"{key}={shown(value)}"], (name,), near)
    if how == 1:
        return Mutant(kind, [*given, f"+{key}={shown(value)}"], (name,), near)
    inner: Any = value
    for part in reversed(key.split(".")[1 if how == 2 and spot.choice else 0 :]):
        inner = {part: inner}
    if how == 2 and spot.choice:
        rest = [each for each in given if not each.startswith(f"{spot.group}=")]
        file = f"conf/{spot.group}/own.yaml"
        text = f"defaults:\n  - {spot.choice}\n  - _self_\n" + yaml.safe_dump(inner)
        return Mutant(kind, [f"{spot.group}=own", *rest], (name, file), near, {file: text})
    text = "# @package _global_\n" + yaml.safe_dump(inner)
    return Mutant(kind, [*given, "experiment=own"], (name,), near, {"conf/experiment/own.yaml": text})


def keys(chance: random.Random) -> Iterator[Mutant]:
    """A letter too many, too few, or wrong, in a key at any depth."""
    known = {}
    for spot in spots():
        known.setdefault((spot.choice, spot.path[:-1]), set()).add(spot.path[-1])
    for number, spot in enumerate(spots()):
        beside = known[spot.choice, spot.path[:-1]]
        wrong = [each for each in typos(spot.path[-1], chance) if each not in beside and each not in Run.model_fields
                 and not any(_near(each, other) for other in beside - {spot.path[-1]})]  # fmt: skip
        if wrong and (spot.path[:-1] or chance.random() < 1):
            key = ".".join((*spot.path[:-1], chance.choice(wrong)))
            yield in_place(spot, list(spot.arguments), key, spot.value, "keys", spot.path[-1], number % 4)


def groups(chance: random.Random) -> Iterator[Mutant]:
    """A typo in the name of a group, or of a choice."""
    for group in [*kinds(), "experiment"]:
        for choice in choices(group) if (CONF / group).is_dir() else ():
            for wrong in typos(choice, chance):
                if wrong not in choices(group):
                    yield Mutant("choices", [f"{group}={wrong}"], (wrong,), group if len(choices(group)) == 1 else "")
                    text = f"# @package _global_\ndefaults:\n  - override /{group}: {json.dumps(wrong)}\n"
                    if group != "experiment":
                        yield Mutant("choices", ["experiment=own"], (wrong,), "", {"conf/experiment/own.yaml": text})
        for wrong in typos(group, chance):
            if wrong not in Run.model_fields and (CONF / group).is_dir():
                yield Mutant("groups", [f"{wrong}={choices(group)[0]}"], (wrong,), group)


def enums(chance: random.Random) -> Iterator[Mutant]:
    """A typo in a word of a few."""
    for number, spot in enumerate(spots()):
        for word in words(spot.annotation):
            for wrong in typos(word, chance)[:2]:
                if accepts(spot.annotation, wrong) is False:
                    mutant = in_place(
                        spot, list(spot.arguments), spot.key, wrong, "words", word, number % 4 if number % 4 != 1 else 0
                    )
                    yield mutant


def values(chance: random.Random) -> Iterator[Mutant]:
    """A value of a wrong type, or null where there must be one."""
    for number, spot in enumerate(spots()):
        for value in chance.sample(VALUES, 6):
            finite = not (isinstance(value, float) and not math.isfinite(value))
            if accepts(spot.annotation, value) is False and not (is_open(spot.annotation) and isinstance(value, dict)):
                how = 0 if not finite else (0, 2, 3)[number % 3]
                kind = "null" if value is None else "types"
                if how == 0 and spot.key in LITERAL:
                    continue  # A text, whatever it is.
                if how == 0:
                    yield Mutant(kind, [*spot.arguments, said(spot, value)], (spot.path[-1],))
                else:
                    yield in_place(spot, list(spot.arguments), spot.key, value, kind, "", how)


def ranges(chance: random.Random) -> Iterator[Mutant]:
    """A value at, or beyond, the bound of each setting that has one."""
    for number, spot in enumerate(spots()):
        for mark in marks(spot.annotation):
            for name, step in (("gt", 0), ("ge", -1), ("lt", 0), ("le", 1)):
                bound = getattr(mark, name, None)
                for value in () if bound is None else (bound + step, bound + (10 if step > 0 or name == "lt" else -10)):
                    if accepts(spot.annotation, value) is False:
                        yield in_place(spot, list(spot.arguments), spot.key, value, "ranges", "", (0, 2, 3)[number % 3])


def missing(chance: random.Random) -> Iterator[Mutant]:
    """A setting that is taken away, left without a value, or never given."""
    for spot in spots():
        if not spot.group:
            yield Mutant("missing", [f"~{spot.key}"], (spot.key,))
        elif spot.choice:
            file = f"conf/{spot.group}/own.yaml"
            rest = [each for each in spot.arguments if not each.startswith(f"{spot.group}=")]
            whole = stated(spot.group, spot.choice)
            if any(part not in whole for part in spot.path[1:2]):
                continue
            less = json.loads(json.dumps(whole))
            there = less
            for part in spot.path[1:-1]:
                there = there[part]
            del there[spot.path[-1]]
            if not any(f"{each.partition('=')[0]}.".startswith(f"{spot.key}.") for each in rest):
                yield Mutant(
                    "missing", [f"{spot.group}=own", *rest], (spot.path[-1],), "", {file: yaml.safe_dump(less)}
                )
            yield Mutant("missing", [*spot.arguments, f"~{spot.key}"], (spot.path[-1],))
    for group in kinds():
        for choice in choices(group) if (CONF / group).is_dir() else ():
            lacking = [key for key, value in stated(group, choice).items() if value == "???"]
            if lacking:
                yield Mutant("missing", [f"{group}={choice}"], tuple(lacking))


BROKEN = ["epochs: [1", "a: {b", "a: 'x", 'a: "x', "a: b: c", "\tx: 1", "a: *nowhere", "a: &x &y 1", "- a\nb: 1", "a: !!int x",
          "? a\n?", "a: |\nb", "%YAML 9", "a: @x", "a: `x`", "a:\n  - b\n c", "{a: 1", "a: 1\na: 2", "[1, 2]", "just words",
          "a: !nothing x", "a: [1,, 2]", "'a': 1 'b'", "a: ${", "\u0000"]  # fmt: skip


def syntax(chance: random.Random) -> Iterator[Mutant]:
    """A yaml of one's own that does not parse."""
    for group in kinds():
        for choice in choices(group) if (CONF / group).is_dir() else ():
            right = yaml.safe_dump(stated(group, choice)).splitlines(keepends=True)
            for broken in chance.sample(BROKEN, 3):
                at = chance.randrange(len(right) + 1)
                text = "".join([*right[:at], broken, "\n", *right[at:]])
                folder, flags = chance.choice([("conf", []), ("mine", ["--config-dir", "mine"])])
                file = f"{folder}/{group}/own.yaml"
                added = _added(text, right)
                if added != []:
                    rest = _needed(group, choice, stated(group, choice))[1:]
                    names = (file, "own", *(added or []))
                    yield Mutant("syntax", [*flags, f"{group}=own", *rest], names, "", {file: text})


def _added(text: str, right: list[str]) -> list[str] | None:
    """The keys that a text has beyond the right ones, where it parses all the same; None where it does not."""
    try:
        found = yaml.safe_load(text)
    except (yaml.YAMLError, ValueError):
        return None
    if not isinstance(found, dict):
        return None
    return [f".{key}:" for key in found if key not in yaml.safe_load("".join(right))]


def interpolations(chance: random.Random) -> Iterator[Mutant]:
    """A value that refers to itself, to nothing, or to no resolver."""
    for spot in spots():
        for text, name in ((f"${{{spot.key}}}", spot.path[-1]), ("${nowhere.at_all}", "nowhere"), ("${oc.env:XP_NOWHERE}", "XP_NOWHERE"),
                           ("${nobody:x}", "nobody"), ("${", spot.path[-1])):  # fmt: skip
            if chance.random() < 0.25 and not (name == "XP_NOWHERE" and spot.value is None):
                how = chance.choice([0, 2, 3])
                if spot.key in LITERAL and how == 0:
                    continue  # A text is taken as it is typed.
                yield in_place(spot, list(spot.arguments), spot.key, text, "interpolations", "", how) if how else Mutant(
                    "interpolations", [*spot.arguments, f"{spot.key}={text}"], (name, spot.path[-1]))  # fmt: skip


def grammar(chance: random.Random) -> Iterator[Mutant]:
    """Overrides that Hydra's grammar does not take, or that say one thing twice."""
    for spot in spots():
        for text in chance.sample(["=", "=[1", "={a", "='x", '="x', "=[1,,2]", "={a:}", "=(", "=a b: c", "=]", "=}", "=1,2", "=,", "=a=b",
                                   "=x:y:", "=${", "= "], 2):  # fmt: skip
            wrong = f"{spot.key}{text}" if text != "=" else f"{spot.key}"
            if spot.key in LITERAL or accepts(spot.annotation, text[1:].strip()) is not False:
                continue
            yield Mutant("grammar", [*spot.arguments, wrong], (spot.path[-1],))
    for group in kinds():
        if (CONF / group).is_dir():
            some = choices(group)
            yield Mutant("grammar", [f"{group}={some[0]}", f"{group}={some[-1]}"], (group,))
            yield Mutant("grammar", [f"{group}="], (group,))
            yield Mutant("grammar", [f"{group}={some[0]},{some[-1]}"], (group,))
            yield Mutant("grammar", [f"+{group}={some[0]}"], (group,))
            yield Mutant("grammar", [f"{group}/{some[0]}"], (group,))
            yield Mutant("grammar", [f"{group}.{some[0]}"], (group,))
            yield Mutant("grammar", [f"~{group}={some[0]}x"], (group,))
            yield Mutant("grammar", [f"{group}@x={some[0]}"], (group, "x"))


def signs(chance: random.Random) -> Iterator[Mutant]:
    """Letters of other scripts, invisible ones, and very long words."""
    odd = ["é", "\u200b", "\u202e", "１", "Ａ", "\U0001f600", "\u0430", "ß", "\ufeff"]
    for spot in spots():
        at = chance.randrange(len(spot.path[-1]) + 1)
        name = spot.path[-1][:at] + chance.choice(odd) + spot.path[-1][at:]
        key = ".".join((*spot.path[:-1], name))
        yield Mutant(
            "signs",
            [*spot.arguments, f"{key}={shown(spot.value)}"],
            (name, key.rpartition(".")[0] or "=", "parse", "no such key"),
        )
        if accepts(spot.annotation, "x") is False:
            yield Mutant(
                "signs", [*spot.arguments, f"{spot.key}={'x' * chance.choice([300, 5000, 60_000])}"], (spot.path[-1],)
            )
            yield Mutant("signs", [*spot.arguments, f"{spot.key}='{chance.choice(odd)}'"], (spot.path[-1],))


def places(chance: random.Random) -> Iterator[Mutant]:
    """Files and folders that are not there."""
    for key, ending in (("data.train", "csv"), ("data.eval", "jsonl"), ("data.train", "parquet"), ("data.eval", "tsv")):
        for name in ("nope", "./nope", "/nope/at/all", "~/nope", "a/b/nope"):
            other = "data.eval" if key == "data.train" else "data.train"
            yield Mutant("places", ["data=files", f"{other}=rows.jsonl", f"{key}={name}.{ending}"], (key,), "",
                         {"rows.jsonl": '{"text": "a", "label": "x"}\n'})  # fmt: skip
    for path in ("./nope", "/nope", "runs/nope/model", "../nope", "mlflow:../x", "mlflow:"):
        yield Mutant("places", ["model=pretrained", f"model.path={path}"], ("model.path",))
        yield Mutant("places", ["command=evaluate", "model=pretrained", f"model.path={path}"], ("model.path",))
    yield Mutant("places", ["data=saved", "data.path=nope"], ("data.path",))
    yield Mutant("places", ["data=hub", "data.path=./nope"], ("data.path",))
    yield Mutant("places", ["data=hub", "data.path=pandas"], ("data.path",))
    yield Mutant("places", ["data=stdlib_chat", "task.template=nope.jinja"], ("task.template",))
    yield Mutant("places", ["data=stdlib_chat", "task.template=lama3"], ("task.template",), "llama3")
    yield Mutant("places", ["command=predict", "inputs=nope.txt"], ("inputs",))
    yield Mutant("places", ["command=predict", "inputs=nope/*.png"], ("inputs",))
    for asked in (
        "resume=nope",
        "resume=runs/nope",
        "resume=last",
        "resume=",
        "rerun=nope",
        "rerun=",
        "resume=a rerun=b",
    ):
        yield Mutant("places", asked.split(), (asked.partition("=")[0],))
    yield Mutant("places", ["--config-dir", "nope"], ("config-dir",))
    yield Mutant("places", ["--config-dir", "file", "seed=1"], ("config-dir",), "", {"file": ""})
    yield Mutant("places", ["runs_folder=file"], ("runs_folder",), "", {"file": ""})
    for name, other in (("config_path", "config-path"), ("config_name", "config-name")):
        yield Mutant("places", [f"--{other}", "x"], (other, name))


def lists(chance: random.Random) -> Iterator[Mutant]:
    """Words of lists whose words are known, and columns."""
    from xp import metric
    from xp.task import Task

    for choice in choices("task"):
        if stated("task", choice).get("metrics"):
            for word in typos(stated("task", choice)["metrics"][0], chance)[:3]:
                if word not in metric.METRICS:
                    near = stated("task", choice)["metrics"][0]
                    yield Mutant("lists", [f"task={choice}", f"task.metrics=[{word}]"], (word,), near)
    known = {
        column for each in Task.all().values() for column in each.known_columns()
    }  # A data set may be for another.
    for column in ("text", "label", "tokens", "messages", "question"):
        for word in set(typos(column, chance)) - known:
            yield Mutant("lists", [f"data.columns.{word}=x"], (f"data.columns.{word}", word), column)


CLASHES: list[tuple[str, tuple[str, ...]]] = [
    # What clashes, and one of the words that the line has to have.
    ("training.epochs=2 training.max_steps=5", ("max_steps", "epochs")),
    ("training.epochs=null training.max_steps=null", ("max_steps", "epochs")),
    ("backend.processes=2 backend=torch", ("backend",)),
    ("backend=accelerate backend.processes=2 command=evaluate", ("backend.processes",)),
    ("backend=hf backend.processes=2 command=show", ("backend.processes",)),
    ("data.streaming=true", ("streaming",)),
    ("data=imdb data.streaming=true data.deduplicate=true", ("deduplicate",)),
    ("data=imdb data.streaming=true data.eval_share=0.1", ("eval_share",)),
    ("data=imdb data.eval_share=0.1", ("eval_share",)),
    ("data=files data.train=x.csv data.eval=y.csv data.eval_share=0.5", ("eval_share",)),
    ("data=imdb data.streaming=true training.epochs=null training.max_steps=3 training.workers=2", ("workers",)),
    ("training.batching=packed", ("packed",)),
    ("training.batching=packed task=token_classification data=stdlib_tokens", ("packed",)),
    ("model.quantization=nf4", ("quantization",)),
    ("model.quantization=int8 peft=lora training.save_dtype=bfloat16", ("save_dtype",)),
    ("model.quantization_options={bnb_4bit_use_double_quant:true}", ("quantization_options",)),
    ("model.device_map=auto", ("device_map",)),
    ("model.max_memory={cpu:1GiB}", ("max_memory",)),
    ("model.offload_folder=x command=evaluate", ("offload_folder",)),
    ("inputs=x", ("inputs",)),
    ("inputs=x command=evaluate", ("inputs",)),
    ("command=predict", ("inputs",)),
    ("command=generate", ("inputs",)),
    ("command=generate inputs=x task=summarization", ("task",)),
    ("command=chat task=text_classification", ("task",)),
    ("command=diff", ("runs",)),
    ("command=diff runs=[a]", ("runs",)),
    ("runs=[a,b]", ("runs",)),
    ("prediction.continuous_batching=true", ("continuous_batching",)),
    (
        "task=summarization command=predict inputs=x generation.num_return_sequences=2 generation=sample",
        ("num_return_sequences",),
    ),
    ("generation.temperature=0.5", ("temperature",)),
    ("generation.top_k=5", ("top_k",)),
    ("generation.top_p=0.5", ("top_p",)),
    ("generation.typical_p=0.5", ("typical_p",)),
    ("generation.num_beams=4", ("num_beams",)),
    ("generation.length_penalty=2.0", ("length_penalty",)),
    ("generation.min_new_tokens=500 generation.max_new_tokens=10", ("new_tokens",)),
    (
        "generation=beam generation.num_beams=2 generation.num_return_sequences=3 command=generate inputs=x",
        ("num_return_sequences",),
    ),
    ("generation.num_return_sequences=2 command=generate inputs=x", ("num_return_sequences",)),
    ("generation=beam generation.num_beam_groups=3 generation.num_beams=4", ("num_beam_groups",)),
    ("training.metric=loss2", ("training.metric",)),
    ("task.metrics=[exact_match]", ("metrics",)),
    ("training.warmup_steps=5 training.warmup_ratio=0.1", ("warmup",)),
    ("training.early_stopping=3 training.evaluate_every=null", ("early_stopping", "evaluate_every")),
    ("task=zero_shot_classification", ("task",)),
    ("peft.active=a", ("active",)),
    ("peft.trained=a", ("trained",)),
    ("peft.adapters={a:runs/x}", ("trained",)),
    ("peft.adapters={a:runs/x} peft.active=b", ("active",)),
    ("peft.adapters={a:runs/x,b:runs/y} peft.trained=a peft.active=b", ("trained",)),
    ("peft.adapters={a:runs/x} peft.trained=a command=evaluate", ("trained",)),
    ("peft.adapters={a:runs/x} peft.trained=a model=scratch", ("adapters",)),
    ("peft=any peft.type=IA3 peft.options={r:8}", ("options.r",)),
    ("peft=lora peft.options={r:8}", ("options.r",)),
    ("peft=lora peft.options={init_lora_weights:pissa2}", ("init_lora_weights",)),
    ("data=mixture", ("sources",)),
    ("data=stdlib_chat task=causal_lm data.columns={text:x,texts:y}", ("texts",)),
    ("-m command=tasks seed=1,2", ("command",)),
    ("-m command=chat seed=1,2", ("command",)),
    ("-m resume=last seed=1,2", ("resume",)),
    ("resume=a rerun=b", ("resume", "rerun")),
    ("choices.model=x", ("choices",)),
]


def conflicts(chance: random.Random) -> Iterator[Mutant]:
    """Settings that are right each, and wrong together; also said by an experiment."""
    for text, names in CLASHES:
        said = text.split(" ")
        yield Mutant("conflicts", said, names)
        keys = [each for each in said if re.fullmatch(r"[a-z]+\.\w+=.*", each)]
        rest = [each for each in said if each not in keys]
        if keys and "choices" not in text and "sources" not in names:
            body: dict[str, Any] = {}
            for each in keys:
                (group, name), value = each.partition("=")[0].split("."), each.partition("=")[2]
                body.setdefault(group, {})[name] = yaml.safe_load(value.replace(":", ": "))
            file = "# @package _global_\n" + yaml.safe_dump(body)
            yield Mutant("conflicts", [*rest, "experiment=own"], names, "", {"conf/experiment/own.yaml": file})


MAKERS: list[Maker] = [
    keys,
    groups,
    enums,
    values,
    ranges,
    missing,
    syntax,
    interpolations,
    grammar,
    signs,
    places,
    lists,
    conflicts,
]


def mutants(number: int, seed: int = 0) -> list[Mutant]:
    """So many wrong configs, as equally of all kinds as there are enough."""
    made = []
    for maker in MAKERS:
        chance = random.Random(f"{seed} {maker.__name__}")
        each = list(maker(chance))
        chance.shuffle(each)
        made.append(each)
    picked: list[Mutant] = []
    at = 0
    while len(picked) < number and any(at < len(each) for each in made):
        picked += [each[at] for each in made if at < len(each)]
        at += 1
    return picked[:number]


def put(folder: Path, mutant: Mutant) -> None:
    for name, content in mutant.files.items():
        file = folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content if isinstance(content, bytes) else content.encode())
