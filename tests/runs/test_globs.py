"""`*` is within one component, `**` any number of components."""

from __future__ import annotations

import pytest

from lamina.errors import NotFoundError
from lamina.runs.globs import matches, select

NAMES = ["output", "a.output", "a.0.output", "a.0.b.output", "a.10.output", "a.0.input", "loss"]


@pytest.mark.parametrize(
    ("pattern", "found"),
    [
        ("output", ["output"]),
        ("*", ["output", "loss"]),
        ("a.*.output", ["a.0.output", "a.10.output"]),
        ("a.1*.output", ["a.10.output"]),
        ("**.output", ["output", "a.output", "a.0.output", "a.0.b.output", "a.10.output"]),
        ("a.**.output", ["a.output", "a.0.output", "a.0.b.output", "a.10.output"]),
        ("a.**", ["a.output", "a.0.output", "a.0.b.output", "a.10.output", "a.0.input"]),
        ("**", NAMES),
        (["loss", "a.output"], ["a.output", "loss"]),
    ],
)
def test_patterns(pattern: str | list[str], found: list[str]) -> None:
    assert select(pattern, NAMES) == found


def test_a_dot_is_a_dot_and_a_bracket_a_bracket() -> None:
    assert not matches("a.0", "ax0")
    assert matches("a.output[0]", "a.output[0]")
    assert not matches("a.output[0]", "a.output0")


def test_what_matches_nothing_raises_with_the_nearest() -> None:
    with pytest.raises(NotFoundError, match=r"a.0.outptu"):
        select("a.0.outptu", NAMES)
