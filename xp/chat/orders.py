"""Orders: what begins with a slash and is not said to the model."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from xp import adapter
from xp.chat.speaker import Speaker, file_kind
from xp.chat.talk import Talk
from xp.chat.terminal import BLOCK
from xp.error import UserError, nearest
from xp.fault import explain
from xp.generation import Generation
from xp.task.messages import MEDIA

ORDERS = {
    "/help": "what can be ordered",
    "/system": "show the system message; /system <text> sets it, /system none takes it away",
    "/clear": "begin anew, with the same system message",
    "/retry": "answer the last message again",
    "/undo": "take back the last message and its answer",
    "/save": "/save <file.json> writes the conversation",
    "/load": "/load <file.json> goes on with another conversation",
    "/attach": "/attach <file> sends an image or a sound along with the next message",
    "/adapter": "show the adapters; /adapter <name> answers with it, none without; <name>=<folder> adds one",
    "/set": "show the settings of generation; /set <key>=<value> changes one",
    "/stats": "turns, tokens, speed, and how full the context is",
    "/exit": "end the chat, as Ctrl-D does",
}


ALONE = ("/help", "/clear", "/retry", "/undo", "/stats", "/exit")
"""Orders that take nothing after them."""


@dataclass
class Desk:
    """Where orders are carried out; those that need an answer of the model give True."""

    talk: Talk
    speaker: Speaker
    say: Callable[[str], None]

    locate: Callable[[str], str] = str
    """Turns ``mlflow:<run id>`` into a folder."""

    def order(self, line: str) -> bool:
        """Carry out an order; True where an answer is due now.

        Raises:
            UserError: there is no such order, or it cannot be done; nothing has changed then.
            EOFError: the chat is to end.
        """
        word, _, rest = line.strip().partition(" ")
        if word not in ORDERS:
            raise UserError(f"{word}: there is no such order.{nearest(word, ORDERS)} /help lists them all")
        if word in ALONE and rest.strip():
            raise UserError(f"{word}: nothing comes after it; what is said and begins with a slash stands in {BLOCK}")
        return bool(getattr(self, f"_{word.removeprefix('/')}")(rest.strip()))

    def _help(self, rest: str) -> None:
        for word, meaning in ORDERS.items():
            self.say(f"  {word:<9} {meaning}")
        self.say('  A message of several lines stands between """ and """, or its lines end with \\')
        self.say("  Ctrl-C stops an answer")

    def _system(self, rest: str) -> None:
        if rest:
            self.talk.system = None if rest == "none" else rest
        self.say(f"system: {self.talk.system or 'none'}")

    def _clear(self, rest: str) -> None:
        self.talk.clear()
        self.say("a new conversation")

    def _retry(self, rest: str) -> bool:
        if not self.talk.forget_answer():
            raise UserError("/retry: nothing was asked yet")
        return True

    def _undo(self, rest: str) -> None:
        if not self.talk.undo():
            raise UserError("/undo: nothing was asked yet")
        self.say(f"taken back; turns that are left: {self.talk.turns}")

    def _save(self, rest: str) -> None:
        if not rest:
            raise UserError("/save: give a file, as /save talk.json")
        there = Path(rest).expanduser().is_file()
        self.talk.save(Path(rest).expanduser())
        self.say(f"saved to {rest}, in the place of what was there" if there else f"saved to {rest}")

    def _load(self, rest: str) -> bool:
        if not rest:
            raise UserError("/load: give a file, as /load talk.json")
        self.talk.load(Path(rest))
        self.say(f"{counted(self.talk.turns, 'turn')} of {rest}")
        return self.talk.waits

    def _attach(self, rest: str) -> None:
        if not self.speaker.multimodal:
            raise UserError("/attach: this model reads text alone")
        if rest == "none":
            self.talk.attached = []
            self.say("nothing goes along with the next message")
            return
        if not rest:
            raise UserError("/attach: give a file, as /attach photo.png; /attach none takes back what was attached")
        kind = file_kind(rest)
        if kind is None:
            raise UserError(f"/attach: {rest!r} is by its name no {' and no '.join(MEDIA)}")
        if not Path(rest).expanduser().is_file():
            raise UserError(f"/attach: there is no file {rest}")
        part = {"type": kind, "path": str(Path(rest).expanduser())}
        self.speaker.attachable(part)
        self.talk.attached.append(part)
        self.say(f"{kind} {rest} goes along with the next message")

    def _set(self, rest: str) -> None:
        settings = self.speaker.generation.model_dump()
        keys = [each for each in settings if each != "name"]
        if not rest:
            self.say("  ".join(f"{key}={settings[key]}" for key in keys))
            return
        key, equals, text = rest.partition("=")
        key = key.strip().removeprefix("generation.")
        if not equals:
            raise UserError(f"/set: give <key>=<value>, as /set max_new_tokens=200. Keys: {', '.join(keys)}")
        if key not in keys:
            how = settings["name"]
            raise UserError(f"/set {key}: generation={how} has no such setting.{nearest(key, keys)}")
        if key == "assistant_model":
            raise UserError("/set assistant_model: it is loaded at the start; start with generation.assistant_model")
        try:
            value = parsed(text)
            made = Generation.choose(settings | {key: value})
            self.speaker.check(made)
        except (yaml.YAMLError, TypeError, RecursionError) as error:
            raise UserError(f"/set {key}: {text!r} does not parse") from error
        except ValidationError as error:
            said = explain(error, settings | {key: value}, type(self.speaker.generation))
            raise UserError(f"/set {said}") from error
        except UserError as error:
            raise UserError(str(error).replace("generation.", "/set ", 1)) from error
        self.speaker.generation = made
        self.say(f"{key}={value}")

    def _adapter(self, rest: str) -> None:
        name, equals, path = rest.partition("=")
        if equals:
            self._add_adapter(name.strip(), path.strip())
        network = self.speaker.network
        names = list(getattr(network, "peft_config", {}))
        if not names:
            raise UserError(
                "/adapter: this model has none; /adapter <name>=<folder> adds one, or start with peft.adapters={...}"
            )
        if rest and not equals:
            adapter.activate(network, [] if rest == "none" else [*dict.fromkeys(rest.split())], f"/adapter {rest}")
        taking_part = " and ".join(adapter.active(network)) or "none"
        self.say(f"adapters: {', '.join(names)}; answering with {taking_part}")

    def _add_adapter(self, name: str, path: str) -> None:
        """Put one more adapter on the network, and answer with it."""
        key, speaker = f"/adapter {name}={path}", self.speaker
        adapter.check_name(name, key)
        if name in getattr(speaker.network, "peft_config", {}):
            raise UserError(f"{key}: there is an adapter of this name; give another one")
        if not path:
            raise UserError(f"{key}: give its folder, or mlflow:<run id>")
        folder = adapter.read(adapter.located(path, f"/adapter {name}", self.locate), key)
        kind = "SEQ_2_SEQ_LM" if speaker.network.config.is_encoder_decoder else "CAUSAL_LM"
        folder.check_task(kind, "a chat")
        notes: list[str] = []
        if hasattr(speaker.network, "peft_config"):
            adapter.put_on_another(speaker.network, folder, name, notes)
        else:
            speaker.network = adapter.put_on(speaker.network, folder, False, notes, name)
        adapter.activate(speaker.network, [name], key)
        speaker.network.eval()
        for line in notes + folder.half:
            self.say(line)

    def _stats(self, rest: str) -> None:
        said = [message["about"] for message in self.talk.messages if "about" in message]
        tokens, seconds = (sum(each[name] for each in said) for name in ("tokens", "seconds"))
        speed = f", {tokens / seconds:.1f} tokens a second" if seconds else ""
        turns, answers = counted(self.talk.turns, "turn"), counted(len(said), "answer")
        self.say(f"{turns}, {answers} of {counted(tokens, 'token')} in {seconds:.1f} s{speed}")
        if said:
            bound = f" of {self.speaker.context:,}" if self.speaker.context else ""
            self.say(f"context: {said[-1]['prompt_tokens'] + said[-1]['tokens']:,}{bound} tokens at the last answer")

    def _exit(self, rest: str) -> None:
        raise EOFError


def counted(number: int, what: str) -> str:
    """``1 turn``, ``2 turns``."""
    return f"{number:,} {what}{'s' * (number != 1)}"


def parsed(text: str) -> Any:
    """A value as the command line reads it: what looks like a number is one, what stands in quotes is text.

    YAML's own rules would make 90 of ``1:30``, 8 of ``010``, a text of ``1e-1``.

    Raises:
        yaml.YAMLError: it does not parse.
    """
    return _plain(yaml.compose(text, Loader=yaml.SafeLoader))


def _plain(node: Any) -> Any:
    if node is None:
        return None
    if isinstance(node, yaml.MappingNode):
        return {_plain(key): _plain(value) for key, value in node.value}
    if isinstance(node, yaml.SequenceNode):
        return [_plain(each) for each in node.value]
    words = {"null": None, "true": True, "false": False}
    if node.style in ("'", '"') or node.value.lower() in words:
        return node.value if node.style else words[node.value.lower()]
    for kind in (int, float):
        with suppress(ValueError):
            return kind(node.value)
    return node.value
