"""Which subjects are compared with which."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Sequence
from itertools import combinations, product
from typing import Literal, get_args

from lamina.errors import NotFoundError, SchemaError
from lamina.sweeps.subjects import Subject

Rule = Literal["all", "same-step", "same-site", "same-site-across-runs"]
Pairs = Rule | Callable[[Subject, Subject], bool]


def paired(subjects: Sequence[Subject], pairs: Pairs, *, symmetric: bool) -> list[tuple[int, int]]:
    """Return pairs of subjects by number; of a symmetric measure each once, else in both directions.

    Args:
        subjects: The subjects.
        pairs: `"all"`; `"same-step"`: of one run and step; `"same-site"`: of one run and site, at different steps;
            `"same-site-across-runs"`: of one site and step, of different runs; or a function of two subjects, which
            says whether they are a pair.
        symmetric: Whether the order in a pair does not matter.

    Raises:
        SchemaError: There is no such rule.
        NotFoundError: No pair is left.
    """
    if callable(pairs):
        found = _asked(subjects, pairs, symmetric)
    else:
        if pairs not in get_args(Rule):
            raise SchemaError(f"pairs={pairs!r}", hint=f"it is one of {', '.join(get_args(Rule))}, or a function")
        found = [
            (a, b)
            for together in _divided(subjects, pairs)
            for a, b in combinations(together, 2)
            if pairs != "same-site-across-runs" or subjects[a].run != subjects[b].run
        ]
        if not symmetric:
            found += [(b, a) for a, b in found]
    if not found:
        raise NotFoundError(
            f"pairs={pairs!r} leaves none of {len(subjects)} subjects to compare", hint="are there more sites or steps?"
        )
    return sorted(found)


def _divided(subjects: Sequence[Subject], rule: Rule) -> Iterable[list[int]]:
    keys: dict[Rule, Callable[[Subject], Hashable]] = {
        "all": lambda subject: None,
        "same-step": lambda subject: (subject.run, subject.step),
        "same-site": lambda subject: (subject.run, subject.site),
        "same-site-across-runs": lambda subject: (subject.site, subject.step),
    }
    together: dict[Hashable, list[int]] = defaultdict(list)
    for number, subject in enumerate(subjects):
        together[keys[rule](subject)].append(number)
    return together.values()


def _asked(
    subjects: Sequence[Subject], is_pair: Callable[[Subject, Subject], bool], symmetric: bool
) -> list[tuple[int, int]]:
    found = {(a, b) for a, b in product(range(len(subjects)), repeat=2) if a != b and is_pair(subjects[a], subjects[b])}
    return [(a, b) for a, b in found if not (symmetric and a > b and (b, a) in found)]
