"""Imports: a user's own components come in by the command line, and by nothing else."""

from __future__ import annotations

from pathlib import Path

import pytest
from conftest import SMALL, command

from xp.config import compose
from xp.error import UserError
from xp.run import Run

HALF = """
from xp.training.recipe import Training
from xp.peft import Peft


class Biases(Peft, name="biases"):
    \"\"\"Train the biases and norms alone.\"\"\"

    def apply(self, network, purpose):
        for name, parameter in network.named_parameters():
            parameter.requires_grad_(parameter.ndim == 1 or name in purpose.new)
        return network
"""


@pytest.fixture
def own(corpus: Path) -> Path:
    (corpus / "biases.py").write_text(HALF)
    (corpus / "broken.py").write_text("x = 1\nraise KeyError('no')\n")
    (corpus / "twice.py").write_text(HALF.replace("biases", "lora") + "\n")
    (corpus / "second.py").write_text(
        "from xp.task import Trainable\n\nclass Second(Trainable, name='masked_lm'):\n    pass\n"
    )
    (corpus / "needy.py").write_text("import not_installed_anywhere\n")
    (corpus / "conf" / "peft").mkdir(parents=True)
    (corpus / "conf" / "peft" / "biases.yaml").write_text("name: biases\n")
    (corpus / "conf" / "experiment").mkdir()
    (corpus / "conf" / "experiment" / "sly.yaml").write_text("# @package _global_\nimports: [biases]\n")
    return corpus


def test_an_own_component_trains_in_every_process(own: Path) -> None:
    ended = command(*SMALL, "imports=[biases]", "peft=biases", "backend=accelerate", "backend.processes=2", folder=own)
    assert ended.returncode == 0, ended.stderr
    assert "160 of 28,288 weights train" in ended.stdout or "weights train (0." in ended.stdout


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["peft=biases"], "there is no such peft"),
        (["experiment=sly"], "imports: a config file cannot have code run"),
        (["imports=[biasses]"], "imports=biasses: there is no such module here or installed. Did you mean 'biases'?"),
        (["imports=[broken]"], "imports=broken: it fails to import: KeyError: 'no' (broken.py, line 2)"),
        (["imports=[twice]"], "imports=twice: it fails to import: TypeError: 'lora' is Lora already"),
        (["imports=[second]"], "imports=second: it fails to import: TypeError: 'masked_lm' is MaskedLM already"),
        (["imports=[needy]"], "imports=needy: it needs the module not_installed_anywhere"),
        (["imports=biases"], "imports"),
    ],
)
def test_wrong_imports_are_one_line(
    overrides: list[str], message: str, own: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(own)
    compose.initialize(None)
    with pytest.raises(UserError) as caught:
        Run.parse(compose.values([*SMALL, *overrides]))
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
