"""The hash of a function changes when it, or what it calls, does something else."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from lamina import similarity
from lamina.sweeps import code
from lamina.sweeps.code import fingerprint

PROGRAM = """
import math
import numpy as np
import helpers
from dataclasses import dataclass

SCALE = 2.0
TABLE = np.arange(3)

def inner(x):
    return helpers.outer(x) * SCALE

class Sum:
    def __init__(self):
        self.total = 0
    def add(self, x):
        self.total += x + TABLE[0]
    @property
    def double(self):
        return 2 * self.total
    @staticmethod
    def half(x):
        return x / 2

def measure(x, *, power=2):
    from lamina.rows.aligned import align
    sums = Sum()
    for each in [inner(value) for value in x]:
        sums.add(each ** power)
    return {"a", "b", "c"} and math.sqrt(sums.double)
"""
HELPERS = """
def outer(x):
    return x + 1

def unused(x):
    return x
"""


def of(program: str = PROGRAM, helpers: str = HELPERS) -> bytes:
    module = type(sys)("helpers")
    exec(helpers, vars(module))
    names: dict[str, Any] = {"__name__": "own"}
    sys.modules["helpers"] = module
    try:
        exec(program, names)
    finally:
        del sys.modules["helpers"]
    return fingerprint(names["measure"])


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("SCALE = 2.0", "SCALE = 2.5"),
        ("* SCALE", "/ SCALE"),
        ("power=2", "power=3"),
        ("np.arange(3)", "np.arange(3.0)"),
        ("+= x", "-= x"),
        ("2 * self.total", "3 * self.total"),
        ("self.total = 0", "self.total = 1"),
        ("x / 2", "x / 3"),
        ("math.sqrt", "math.exp"),
        ("for value in x]", "for value in x[1:]]"),
    ],
)
def test_what_changes_it(old: str, new: str) -> None:
    assert of(PROGRAM.replace(old, new)) != of()


def test_what_does_not() -> None:
    assert of() == of()
    assert of("# a remark\n\n" + PROGRAM.replace("    sums = Sum()", "    # here\n    sums = Sum()")) == of()
    assert of(PROGRAM + "\ndef another(): ...\n") == of()
    assert of(helpers=HELPERS.replace("x\n", "x  # as it is\n")) == of()


def test_helpers_in_other_files() -> None:
    assert of(helpers=HELPERS.replace("x + 1", "x + 2")) != of()
    assert of(helpers=HELPERS.replace("return x\n", "return -x\n")) == of()


def test_what_a_closure_holds() -> None:
    def scaled(factor: float) -> Any:
        def measure(x: Any) -> Any:
            return factor * x

        return measure

    assert fingerprint(scaled(1.0)) == fingerprint(scaled(1.0)) != fingerprint(scaled(2.0))


def test_two_functions_of_one_name() -> None:
    def scaled(factor: float) -> Any:
        def inner(x: Any) -> Any:
            return factor * x

        return inner

    def of_two(one: Any, other: Any) -> bytes:
        def measure(x: Any) -> Any:
            return one(x) + other(x)

        return fingerprint(measure)

    assert of_two(scaled(1.0), scaled(2.0)) != of_two(scaled(1.0), scaled(3.0))


def test_what_calls_itself() -> None:
    def measure(x: Any) -> Any:
        return measure(x)

    assert fingerprint(measure)


def test_an_edited_room_of_lamina(monkeypatch: pytest.MonkeyPatch) -> None:
    before = fingerprint(similarity.cka), of()
    room = code._room

    def edited(name: str) -> bytes:
        return room(name) + (b"edited" if name == "lamina.similarity" else b"")

    monkeypatch.setattr(code, "_room", edited)
    assert fingerprint(similarity.cka) != before[0]
    assert of() == before[1]
    monkeypatch.setattr(code, "_room", lambda name: room(name) + (b"edited" if name == "lamina.rows" else b""))
    assert fingerprint(similarity.cka) != before[0]
    assert of() != before[1]


def test_every_process_finds_the_same(tmp_path: Path) -> None:
    (tmp_path / "helpers.py").write_text(HELPERS)
    (tmp_path / "own.py").write_text(PROGRAM)
    script = "from own import measure; from lamina.sweeps.code import fingerprint; print(fingerprint(measure).hex())"
    found = set()
    for seed in ("1", "2"):
        places = os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])
        environment = {**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": places}
        command = [sys.executable, "-c", script]
        found.add(subprocess.run(command, check=True, env=environment, capture_output=True, text=True).stdout)
    assert len(found) == 1
