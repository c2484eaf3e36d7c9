"""What the sets of cases between them hold, computed from the sets."""

from __future__ import annotations

from itertools import combinations, product
from typing import Any

import pytest
import torch

from tests.kernels import attention_backward, attention_forward, attention_mass
from tests.kernels.covering import pairwise

SETS = {
    "forward": (attention_forward.FACTORS, attention_forward.CASES),
    "backward": (attention_backward.FACTORS, attention_backward.CASES),
    "mass": (attention_mass.FACTORS, attention_mass.CASES),
}
# What every kernel has to be shown with, whatever else.
ALWAYS: dict[str, set[Any]] = {
    "width": {16, 64, 80, 128, 256},
    "queries": {1, 17, 127, 129},
    "keys": {1, 17, 127, 129},
    "window": {"all", "causal", "left", "both", "top-left"},
    "places": {"plain", "blocks", "packed"},
    "group": {1, 2},
    "sigmoid": {False, True},
    "dtype": {torch.float32, torch.float16},
    "score": {"plain", "factors", "terms", "capped", "slopes"},
}
OF_ONE = {
    "forward": {"tier": {0, 1, 2, 3}, "topk": {0, 3}, "value_width": {"same", 16, 40}, "score": {"table"}},
    "backward": {"gradients": {"out", "all", "statistics"}, "value_width": {"same", 16, 40}},
    "mass": {"wanted": {"received", "blocks", "share", "all"}},
}


def missing(factors: dict[str, list[Any]], cases: list[dict[str, Any]]) -> set[Any]:
    """Return the pairs of values of two factors that no case has."""
    held = {pair for case in cases for pair in combinations(sorted(case.items()), 2)}
    wanted = {((a, x), (b, y)) for a, b in combinations(sorted(factors), 2) for x, y in product(factors[a], factors[b])}
    return wanted - held


@pytest.mark.parametrize("name", SETS)
def test_every_pair_of_values_occurs(name):
    assert missing(*SETS[name]) == set()


@pytest.mark.parametrize("name", SETS)
def test_values_are_those_that_kernels_have_to_be_shown_with(name):
    factors, _ = SETS[name]
    for asked in (ALWAYS, OF_ONE[name]):
        for factor, values in asked.items():
            assert values <= set(factors[factor]), factor


def test_a_pair_that_is_left_out_is_missing():
    factors: dict[str, list[Any]] = {"a": [0, 1, 2], "b": "xy", "c": [True, False]}  # pyright: ignore
    cases = pairwise(factors)
    assert missing(factors, cases) == set()
    assert len(cases) < 12
    assert missing(factors, cases[1:])
