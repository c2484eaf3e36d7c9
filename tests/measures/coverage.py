"""How often intervals cover, and how biased each measure is: simulations with a known truth.

    python -m tests.measures.coverage          # into tests/measures/coverage.md

`make test-slow` simulates the same draws: `tests/measures/test_coverage.py` holds the intervals at the smallest size to
90 to 99 %, and the page to what comes out.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from lamina.measures.registry import measures
from lamina.progress import track
from tests.measures.cases import CASES, CORRELATED, classes, correlated, documents, normal, torus, unrelated

PAGE = Path(__file__).with_suffix(".md")
DRAWS, FEW, INTERVALS = 2000, 200, 200
Draw = Callable[..., dict[str, Any]]


def independent(seed: int, times: int = 1) -> dict[str, Any]:
    """Two independent representations of 60 rows that are independent of each other."""
    n = 60 * times
    return {"x": normal(2 * seed, n, 6), "y": normal(2 * seed + 1, n, 6), "groups": np.arange(n)}


def related(seed: int, times: int = 1) -> dict[str, Any]:
    """Two representations of 30 documents with 8 tokens each that share 10 / 11 of their variance each."""
    n = 30 * times
    of_rows = np.repeat(np.arange(n), 8)
    shared = normal(3 * seed, 8 * n, 6) + 3 * normal(10**6 + seed, n, 6)[of_rows]
    x, y = (shared + normal(3 * seed + i, 8 * n, 6) for i in (1, 2))
    return {"x": x, "y": y, "groups": of_rows}


def with_rbf(draw: Draw) -> Draw:
    """The same rows, for RBF kernels."""
    return lambda seed, times=1: draw(seed, times) | {"kernel": "rbf"}


def lines_of_normal_numbers(seed: int, times: int = 1) -> dict[str, Any]:
    """100 rows of one normal number each, which correlate by 0.8."""
    n = 100 * times
    x = normal(2 * seed, n, 1)
    return {"x": x, "y": 0.8 * x + 0.6 * normal(2 * seed + 1, n, 1), "groups": np.arange(n)}


def distance_correlation_of_normal_numbers(rho: float) -> float:
    """The squared distance correlation of two normal numbers (Székely, Rizzo, Bakirov 2007, theorem 7)."""
    above = rho * np.arcsin(rho) + np.sqrt(1 - rho**2) - rho * np.arcsin(rho / 2) - np.sqrt(4 - rho**2) + 1
    return float(above / (1 + np.pi / 3 - np.sqrt(3)))


def cloud(seed: int, times: int = 1) -> dict[str, Any]:
    """A normal cloud of six dimensions, whose edge is near everywhere; pairs of rows are groups."""
    n = 300 * times
    return {"x": normal(seed, n, 6), "groups": np.arange(n) // 2}


def predicted(seed: int, times: int = 1) -> dict[str, Any]:
    """48 documents with 6 tokens each, of which x tells 2 / 3.49 of the variance of y."""
    n = 48 * times
    of_rows = np.repeat(np.arange(n), 6)
    x = normal(seed, 6 * n, 3) + normal(5 * 10**6 + seed, n, 3)[of_rows]
    noise = normal(10**6 + seed, 6 * n, 2) + 0.7 * normal(2 * 10**6 + seed, n, 2)[of_rows]
    return {"x": x, "y": x[:, :2] + noise, "groups": of_rows}


@dataclass(frozen=True)
class Situation:
    """Attributes.

    measure: Its name in the register.
    what: What the rows are.
    draw: The measure's arguments from a seed and how many times as many groups as the least.
    truth: What the value would be for infinitely many groups.
    unbiased: Whether intervals must cover the truth too.
    """

    measure: str
    what: str
    draw: Draw
    truth: Any
    unbiased: bool


SITUATIONS = {
    "cka of independent documents": Situation("similarity.cka", "independent, strong effects", documents, 0.0, True),
    "cka of independent rows": Situation("similarity.cka", "independent rows", independent, 0.0, True),
    "cka of related documents": Situation("similarity.cka", "related", related, 100 / 121, False),
    "cka with rbf of independent documents": Situation(
        "similarity.cka", "RBF; independent, strong effects", with_rbf(documents), 0.0, True
    ),
    "cka with rbf of independent rows": Situation(
        "similarity.cka", "RBF; independent rows", with_rbf(independent), 0.0, True
    ),
    "hsic of independent documents": Situation("similarity.hsic", "independent, strong effects", documents, 0.0, True),
    "hsic of related documents": Situation("similarity.hsic", "related", related, 600.0, True),
    "distance_correlation of independent documents": Situation(
        "similarity.distance_correlation", "independent, strong effects", documents, 0.0, True
    ),
    "distance_correlation of independent rows": Situation(
        "similarity.distance_correlation", "independent rows", independent, 0.0, True
    ),
    "distance_correlation of normal numbers": Situation(
        "similarity.distance_correlation",
        "normal, correlation 0.8",
        lines_of_normal_numbers,
        distance_correlation_of_normal_numbers(0.8),
        False,
    ),
    "twonn of a torus": Situation("geometry.twonn", "a torus of 2 dimensions", torus, 2.0, True),
    "twonn of a cloud": Situation("geometry.twonn", "a normal cloud of 6", cloud, 6.0, False),
    "neural_collapse of three classes": Situation(
        "geometry.neural_collapse", "three classes", classes, CASES["geometry.neural_collapse"].truth, False
    ),
    "ksg of normal numbers": Situation(
        "information.ksg", "normal, correlation 0.8", correlated, float(CORRELATED), False
    ),
    "linear_regression of what is unrelated": Situation(
        "similarity.linear_regression", "30 features of nothing", unrelated, 0.0, False
    ),
    "linear_regression of documents": Situation(
        "similarity.linear_regression", "3 features of 2", predicted, 2 / 3.49, False
    ),
}


@dataclass(frozen=True)
class Coverage:
    """Attributes, of shape [parts].

    mean: The mean of the draws.
    error: Its standard error.
    covered: The part of the intervals that cover the mean.
    covered_truth: The part of the intervals that cover the truth.
    ratio: The mean standard error over the draws' standard deviation.
    n: Rows, and groups.
    parts: What the numbers are called.
    """

    mean: np.ndarray
    error: np.ndarray
    covered: np.ndarray
    covered_truth: np.ndarray
    ratio: np.ndarray
    n: tuple[int, int]
    parts: list[str]


def simulate(situation: Situation, *, times: int = 1, draws: int = DRAWS, intervals: int = INTERVALS) -> Coverage:
    """Draw, and see how often the interval of 95 % covers."""
    function: Any = measures()[situation.measure].function
    found = [function(**situation.draw(10 + seed, times)) for seed in track(range(draws), situation.measure)]
    values = np.array([np.atleast_1d(each.value) for each in found])
    errors = np.array([np.atleast_1d(each.stderr) for each in found])
    ends = np.array([np.atleast_2d(np.transpose(each.interval(0.95))) for each in found[:intervals]])
    mean, spread = values.mean(0), values.std(0)

    def covers(what: Any) -> np.ndarray:
        return np.mean((ends[:, :, 0] < what) & (what < ends[:, :, 1]), axis=0)

    return Coverage(
        mean=mean,
        error=spread / np.sqrt(draws),
        covered=covers(mean),
        covered_truth=covers(np.asarray(situation.truth)),
        ratio=errors.mean(0) / spread,
        n=(found[0].n, found[0].n_groups),
        parts=[part for axis in found[0].axes.values() for part in axis] or ["value"],
    )


HEAD = """# How often intervals cover, and how biased each measure is

`python -m tests.measures.coverage`: {draws} draws of each line ({few} of those with more rows), {intervals} of which
have an interval of 95 %. An interval should cover the estimator's own mean at that n in 90 to 99 % of them. What is
biased need not cover the truth; the bias is the mean of the draws minus the truth. In the last column stands the mean
standard error over the draws' standard deviation.

| measure | rows | n | groups | part | truth | bias | covers its mean, % | covers the truth, % | error / spread |
|---|---|---|---|---|---|---|---|---|---|
"""


def lines(name: str, draws: int = DRAWS, few: int = FEW, intervals: int = INTERVALS) -> tuple[Coverage, str]:
    """Return what comes out for the fewest groups, and the table's lines for one, two and four times as many."""
    situation, text = SITUATIONS[name], ""
    truths = np.atleast_1d(situation.truth)
    every = [
        simulate(situation, times=times, draws=draws if times == 1 else few, intervals=intervals) for times in (1, 2, 4)
    ]
    for found in every:
        for at, part in enumerate(found.parts):
            bias = f"{found.mean[at] - truths[at]:+.4f} ± {found.error[at]:.4f}"
            cells = [f"`{situation.measure}`", situation.what, *map(str, found.n), part, f"{truths[at]:.4g}", bias]
            cells += [f"{100 * found.covered[at]:.1f}", f"{100 * found.covered_truth[at]:.1f}"]
            text += f"| {' | '.join([*cells, f'{found.ratio[at]:.2f}'])} |\n"
    return every[0], text


def main(argv: list[str] | None = None) -> None:
    """Write the page."""
    quick = "--quick" in (sys.argv[1:] if argv is None else argv)
    torch.set_num_threads(1)
    draws, few, intervals = (20, 20, 10) if quick else (DRAWS, FEW, INTERVALS)
    page = HEAD.format(draws=draws, few=few, intervals=intervals)
    for name in SITUATIONS:
        _, text = lines(name, draws, few, intervals)
        sys.stdout.write(text)
        sys.stdout.flush()
        page += text
    if not quick:
        PAGE.write_text(page)


if __name__ == "__main__":
    main()
