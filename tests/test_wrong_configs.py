"""Two thousand wrong configs: each ends in one line with the key and the nearest valid word, without torch."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import wrong
from children import STARTED, Children, children
from wrong import Mutant

ALL = 2000
SOME = 144
"""Wrong configs that are tried in every run of the tests, as many of each kind."""


@pytest.fixture(scope="module")
def light() -> Iterator[Children]:
    with children(heavy=False) as made:
        yield made


def faults(mutant: Mutant, folder: Path, asked: Children) -> list[str]:
    """What is wrong with how xp takes a wrong config."""
    folder.mkdir()
    wrong.put(folder, mutant)
    before = sorted(str(file) for file in folder.rglob("*"))
    ended = asked.do(mutant.arguments, folder, stop=True, seconds=60)
    found = []
    line = ended.err.rstrip("\n")
    if ended.code in (STARTED, 0):
        return [f"{mutant}\n    silently accepted"]
    if ended.code != 2 or "\n" in line or not line.startswith("xp: "):
        found.append(f"no line of its own, but code {ended.code}: {ended.err[-400:]}")
    elif not any(name in line for name in mutant.names):
        found.append(f"does not name {' or '.join(mutant.names)}: {line[:400]}")
    elif mutant.near and mutant.near not in line:
        found.append(f"does not say {mutant.near}: {line[:400]}")
    if ended.heavy:
        found.append(f"has imported {', '.join(ended.heavy)}")
    if sorted(str(file) for file in folder.rglob("*")) != before:
        found.append("has written a file")
    return [f"{mutant}\n    {each}" for each in found]


def check(mutants: list[Mutant], root: Path, asked: Children) -> None:
    found = [each for number, mutant in enumerate(mutants) for each in faults(mutant, root / str(number), asked)]
    assert not found, f"{len(found)} of {len(mutants)}:\n" + "\n".join(found)


def test_a_wrong_config_is_told_in_one_line(tmp_path: Path, light: Children) -> None:
    check(wrong.mutants(SOME), tmp_path, light)


@pytest.mark.slow
@pytest.mark.parametrize("part", range(10))
def test_two_thousand_wrong_configs_are_told_in_one_line(part: int, tmp_path: Path, light: Children) -> None:
    check(wrong.mutants(ALL)[part::10], tmp_path, light)


def test_the_right_configs_are_right(tmp_path: Path, light: Children) -> None:
    """Else a mutant could be refused for what it was made from."""
    given = sorted({spot.arguments for spot in wrong.spots()})
    for number, arguments in enumerate(given[:: len(given) // 12]):
        (folder := tmp_path / str(number)).mkdir()
        ended = light.do(list(arguments), folder, stop=True)
        assert ended.code == STARTED, f"{arguments}: {ended.err}"


def test_the_oracle_knows_types() -> None:
    """It is no pydantic, but must agree with it, on every setting and every value."""
    from pydantic import ConfigDict, TypeAdapter, ValidationError

    for spot in wrong.spots():
        adapter = TypeAdapter(spot.annotation, config=ConfigDict(strict=True, allow_inf_nan=False))
        for value in wrong.VALUES:
            try:
                adapter.validate_python(value)
                right = True
            except ValidationError:
                right = False
            verdict = wrong.accepts(spot.annotation, value)
            assert verdict in (None, right), (spot.key, value, verdict, right)
