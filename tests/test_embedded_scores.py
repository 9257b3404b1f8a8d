"""What a person gets who types the README's commands: on every embedded data set, a model that has learned."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from conftest import ROOT, command

EMBEDDED = sorted(file.stem for file in (ROOT / "conf" / "data").glob("*.yaml")
                  if file.stem.startswith("stdlib_") or file.stem in ("digits", "tones"))  # fmt: skip
LINES = re.findall(r"^python -m xp (data=(\w+)[^#\n]*)", (ROOT / "README.md").read_text("utf-8"), re.MULTILINE)


def overrides(data: str) -> list[str]:
    """The README's command for a data set, or the plain one where it has none."""
    return next((line.split() for line, name in LINES if name == data), [f"data={data}"])


def test_the_commands_are_found() -> None:
    assert len(EMBEDDED) == 15
    assert {name for _, name in LINES} & set(EMBEDDED) >= {"stdlib_code", "stdlib_chat", "digits", "tones"}


@pytest.mark.slow
@pytest.mark.parametrize("data", EMBEDDED)
def test_a_trained_model_leaves_the_baseline_behind(data: str, tmp_path: Path) -> None:
    """With the default recipe, in the deciding metric.

    A correlation, which a constant does not have, is above 0.5; a language model, beyond which there is no answer
    that ignores the input, is better than it was before.
    """
    ended = command(*overrides(data), "tracking.log_model=false", folder=tmp_path)
    assert ended.returncode == 0, ended.stderr
    (file,) = tmp_path.glob("runs/*/result.json")
    result = json.loads(file.read_text())
    metric, sign = result["metric"], 1 if result["goal"] == "max" else -1
    score, baseline = result["metrics"][metric], result["baseline"].get(metric)
    if metric in ("eval/pearson", "eval/spearman"):
        assert score > 0.5
        return
    if baseline is None:
        ended = command(f"data={data}", "command=evaluate", "runs_folder=before", folder=tmp_path)
        assert ended.returncode == 0, ended.stderr
        (file,) = tmp_path.glob("before/*/result.json")
        baseline = json.loads(file.read_text())["metrics"][metric]
    assert sign * score > sign * baseline, f"{data}: {metric} {score}, baseline {baseline}"
