"""Sets of cases in which every pair of values occurs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations, product
from typing import Any


def pairwise(factors: Mapping[str, Sequence[Any]]) -> list[dict[str, Any]]:
    """Return cases, each with one value a factor, that between them hold every pair of values of two factors.

    Greedy: a case begins with a pair that is missing, and takes of each other factor the value that adds most.
    """
    names = list(factors)
    missing = {
        ((a, i), (b, j))
        for a, b in combinations(names, 2)
        for i, j in product(range(len(factors[a])), range(len(factors[b])))
    }
    cases: list[dict[str, Any]] = []
    while missing:
        case = dict(min(missing))
        for name in sorted((n for n in names if n not in case), key=lambda n: -len(factors[n])):
            values = range(len(factors[name]))
            gains = [sum(_pair(name, v, *chosen, names) in missing for chosen in case.items()) for v in values]
            # Of equal ones, another value each time.
            case[name] = max(values, key=lambda v: (gains[v], -((v - len(cases)) % len(values))))
        missing -= {_pair(a, case[a], b, case[b], names) for a, b in combinations(names, 2)}
        cases.append({name: factors[name][case[name]] for name in names})
    return cases


def _pair(a: str, i: int, b: str, j: int, names: Sequence[str]) -> tuple[tuple[str, int], tuple[str, int]]:
    return ((a, i), (b, j)) if names.index(a) < names.index(b) else ((b, j), (a, i))
