"""How fast is the mutual information of two clouds by nearest neighbors, beside the trees alone and scikit-learn?"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np
import torch

from bench import limits
from bench.agreement import Within
from bench.command import is_quick
from bench.harness import TIMES, Contender, Question, answers, speeds
from bench.table import Table
from lamina import information

K, BY = 3, 0.6
SIZES = {(100_000, 1): 3, (100_000, 2): 3, (20_000, 4): 3}
"""Rows, and features of x and of y: how many repetitions."""
RULE = Within(0.01)

# What the arithmetic says, written before the first full run.
EXPECTED = [
    "expected: a sort reads every number once for each bit of n, which takes 0.01 s; neighbors by a tree some 10 "
    "microseconds each. Counting dominates where x or y has few features: up to a thousand rows of 100,000 lie in a "
    "strip, whose edge a tree walks; by sorting a strip costs 17 steps whatever it holds. So lamina is ahead of the "
    "trees alone up to 2 + 2 features, and beyond it needs their time and that of its error",
]


def main(argv: Sequence[str] | None = None) -> None:
    quick = is_quick(__doc__, argv)
    machine = [limits.copy("cpu", 2**20 if quick else 2**28)]
    asked = questions(machine[0].name, quick=quick)
    rows, samples = answers(asked, rule=RULE, limits=machine, device="cpu", peers=None, quick=quick)
    Table(
        question="How fast is the mutual information of two clouds by nearest neighbors?",
        columns=["n", "features", "by", *TIMES, "peak, MiB"],
        rows=rows,
        notes=[
            f"float64 rows of normal features that correlate by {BY} one by one, k = {K}, every row a group of its "
            f"own; 3 interleaved repetitions after a comparison with the estimate by scipy's trees: {RULE}",
            "lamina returns an error too; the trees alone are the neighbors in (x, y) and the counts in x and in y, "
            "with as many threads as lamina; scikit-learn's mutual_info_regression takes one feature against one, its "
            "trees (one thread) any number",
            "the limit: a sort reads each number once for each bit of n",
            "peak: what the first call adds to a fresh process that holds the rows, by VmHWM",
            *EXPECTED,
            speeds(machine, samples.values()),
        ],
        packages=["lamina", "scipy", "scikit-learn", "torch", "numpy"],
        samples=samples,
    ).publish("ksg", quick=quick)


def questions(copy: str, *, quick: bool) -> Iterator[Question]:
    """Yield what is asked of each number of rows and features; `copy` is the name of the limit."""
    for (n, d), repetitions in ({(300, 1): 1, (300, 2): 1, (300, 4): 1} if quick else SIZES).items():
        arrays = related(n, d)
        needs = {copy: 8.0 * n * 2 * d * math.ceil(math.log2(n))}
        contenders = [
            Contender("lamina", "bench.ksg:through_lamina", needs=needs),
            Contender("scipy's trees alone", "bench.ksg:by_trees", needs=needs),
        ]
        if d == 1:
            contenders.append(Contender("scikit-learn", "bench.ksg:by_scikit_learn", needs=needs))
        else:
            contenders.append(Contender("scikit-learn's trees alone", "bench.ksg:by_its_trees", needs=needs))
        cells = {"n": n, "features": f"{d} + {d}"}
        yield Question(cells, arrays, contenders, by_trees(**arrays, device="cpu")(), repetitions)


def related(n: int, d: int) -> dict[str, np.ndarray]:
    """Return x and y [n, d]; normal, so of one spread but for chance."""
    generator = np.random.default_rng(n + d)
    x, noise = generator.standard_normal((2, n, d))
    y = BY * x + math.sqrt(1 - BY**2) * noise
    return {"x": x / x.std(), "y": y / y.std()}


def through_lamina(x: np.ndarray, y: np.ndarray, *, device: str) -> Callable[[], Mapping[str, float]]:
    a, b = torch.from_numpy(x).to(device), torch.from_numpy(y).to(device)
    return lambda: {"information": information.ksg(a, b, k=K).value}


def by_trees(x: np.ndarray, y: np.ndarray, *, device: str) -> Callable[[], Mapping[str, float]]:
    """The definition by scipy's trees."""
    from scipy.spatial import KDTree

    workers = torch.get_num_threads()

    def count(side: np.ndarray, radii: np.ndarray) -> np.ndarray:
        return KDTree(side).query_ball_point(side, radii, p=np.inf, return_length=True, workers=workers)

    def run() -> Mapping[str, float]:
        both = np.concatenate([x, y], 1)
        distances, _ = KDTree(both).query(both, K + 1, p=np.inf, workers=workers)
        return estimate([count(side, np.nextafter(distances[:, -1], 0)) for side in (x, y)])

    return run


def by_its_trees(x: np.ndarray, y: np.ndarray, *, device: str) -> Callable[[], Mapping[str, float]]:
    """The definition by scikit-learn's trees, as its mutual_info_regression has it for one feature."""
    from sklearn.neighbors import KDTree

    def run() -> Mapping[str, float]:
        both = np.concatenate([x, y], 1)
        distances, _ = KDTree(both, metric="chebyshev").query(both, K + 1)
        radii = np.nextafter(distances[:, -1], 0)
        trees = (KDTree(side, metric="chebyshev") for side in (x, y))
        return estimate([tree.query_radius(tree.data, radii, count_only=True) for tree in trees])

    return run


def by_scikit_learn(x: np.ndarray, y: np.ndarray, *, device: str) -> Callable[[], Mapping[str, float]]:
    from sklearn.feature_selection import mutual_info_regression

    return lambda: {"information": float(mutual_info_regression(x, y[:, 0], n_neighbors=K, random_state=0)[0])}


def estimate(counts: Sequence[np.ndarray]) -> dict[str, float]:
    """Return KSG 1 of how many rows, with the row itself, are nearer in x and in y."""
    from scipy.special import digamma

    x, y = counts
    return {"information": float(digamma(K) + digamma(len(x)) - np.mean(digamma(x) + digamma(y)))}


if __name__ == "__main__":
    main()
