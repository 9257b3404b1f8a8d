"""What a run can be told to do: a file for each command, read from top to bottom."""

from xp.commands.chat import chat
from xp.commands.evaluate import evaluate
from xp.commands.generate import generate
from xp.commands.merge import merge
from xp.commands.predict import predict
from xp.commands.show import show
from xp.commands.train import train

__all__ = ["chat", "evaluate", "generate", "merge", "predict", "show", "train"]
