"""Which subjects are compared with which, by hand on a small grid."""

from __future__ import annotations

from itertools import product
from typing import Any

import pytest

from lamina.errors import NotFoundError, SchemaError
from lamina.sweeps.pairs import paired
from lamina.sweeps.subjects import Subject

NAMES = [(run, site, step) for run, site, step in product("ab", "xyz", (0, 5))]
GRID = [Subject(*name, b"", None) for name in NAMES]  # type: ignore[arg-type]


def found(pairs: Any, *, symmetric: bool = True, subjects: list[Subject] = GRID) -> set[tuple[Any, Any]]:
    numbers = paired(subjects, pairs, symmetric=symmetric)
    assert len(set(numbers)) == len(numbers)
    assert numbers == sorted(numbers)
    return {(NAMES[a], NAMES[b]) for a, b in numbers}


def expected(is_pair: Any) -> set[tuple[Any, Any]]:
    return {(p, q) for i, p in enumerate(NAMES) for q in NAMES[i + 1 :] if is_pair(p, q)}


RULES = {
    "all": lambda p, q: True,
    "same-step": lambda p, q: (p[0], p[2]) == (q[0], q[2]),
    "same-site": lambda p, q: p[:2] == q[:2],
    "same-site-across-runs": lambda p, q: p[1:] == q[1:] and p[0] != q[0],
}


@pytest.mark.parametrize("rule", RULES)
def test_rules(rule: str) -> None:
    once = expected(RULES[rule])
    assert found(rule) == once
    assert found(rule, symmetric=False) == once | {(q, p) for p, q in once}


def test_a_function_chooses_and_says_which_comes_first() -> None:
    to_the_end = found(lambda a, b: a.run == b.run and a.site == b.site and b.step == 5)
    assert to_the_end == expected(RULES["same-site"])
    backwards = found(lambda a, b: a.run == "b" and b.run == "a" and a.site == b.site and a.step == b.step)
    assert backwards == {(q, p) for p, q in expected(RULES["same-site-across-runs"])}
    both = found(lambda a, b: a.site == b.site, symmetric=False)
    assert len(both) == 3 * 4 * 3


def test_nothing_to_compare() -> None:
    with pytest.raises(NotFoundError, match="leaves none of 1 subjects"):
        found("all", subjects=GRID[:1])
    with pytest.raises(NotFoundError):
        found(lambda a, b: False)
    with pytest.raises(SchemaError, match="pairs='layers'"):
        found("layers")
