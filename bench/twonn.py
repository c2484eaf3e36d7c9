"""How fast, and in how much memory, is the intrinsic dimension of a cloud by its two nearest neighbors?"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np
import torch

from bench import limits
from bench.agreement import Within
from bench.command import is_quick
from bench.harness import TIMES, Contender, Question, answers, speeds
from bench.table import Table
from lamina import geometry

D, PLANTED = 64, 4
SIZES = {20_000: (20_000, 3), 1_000_000: (20_000, 1)}
"""Rows: how many queries, and how many repetitions."""
MOST_ROWS = 20_000
"""Above these all distances by cdist take longer than anybody waits."""
RULE = Within(0.05)

# What the roofline says, written before the first full run.
EXPECTED = [
    "expected: 2 q n d operations in float32, as a matrix product, and one look at each of the q n distances, which "
    "costs about as much again: half of GEMM's speed; cdist in float64 four times slower; under 5 minutes at 1,000,000",
    "expected, memory: blocks of 1,024 x 8,192 distances (32 MiB, a few times), whatever n; cdist 4 KiB for each row",
]


def main(argv: Sequence[str] | None = None) -> None:
    quick = is_quick(__doc__, argv)
    machine = [limits.gemm("fp32", "cpu", 128 if quick else None), limits.gemm("fp64", "cpu", 128 if quick else None)]
    rows, samples = answers(questions(quick=quick), rule=RULE, limits=machine, device="cpu", peers=None, quick=quick)
    Table(
        question="How fast is the dimension of a cloud by its two nearest neighbors, and in how much memory?",
        columns=["n", "queries", "by", *TIMES, "peak, MiB"],
        rows=rows,
        notes=[
            f"float32 rows of {D} features spread evenly over a flat torus of {PLANTED} dimensions, each a group of "
            "its own; 3 interleaved repetitions (1 for a million rows) after a comparison with the planted dimension: "
            f"{RULE}",
            "lamina's neighbors are exact (distances of candidates are taken again in float64), and it gives an error",
            "peak: what the first call adds to a fresh process that holds the rows, by VmHWM",
            *EXPECTED,
            speeds(machine, samples.values()),
        ],
        packages=["lamina", "torch", "numpy"],
        samples=samples,
    ).publish("twonn", quick=quick)


def questions(*, quick: bool) -> Iterator[Question]:
    """Yield what is asked of each number of rows."""
    for n, (queries, repetitions) in ({400: (400, 1)} if quick else SIZES).items():
        arrays, options = {"x": torus(n)}, {"queries": queries}
        operations = 2.0 * queries * n * D
        contenders = [Contender("lamina", "bench.twonn:through_lamina", options, needs={"GEMM fp32": operations})]
        if n <= MOST_ROWS:
            needs = {"GEMM fp64": operations}
            contenders.append(Contender("cdist in blocks", "bench.twonn:by_cdist", options, needs=needs))
        expected = {"dimension": float(PLANTED)} if not quick else by_cdist(**arrays, device="cpu", queries=n)()
        yield Question({"n": n, "queries": queries}, arrays, contenders, expected, repetitions)


def torus(n: int) -> np.ndarray:
    """Return rows [n, D] in float32: a flat torus of `PLANTED` dimensions, turned."""
    generator = np.random.default_rng(n)
    angles = generator.random((n, PLANTED), np.float32) * np.float32(2 * np.pi)
    turn = np.linalg.qr(generator.standard_normal((D, 2 * PLANTED)))[0].astype(np.float32)
    return np.concatenate([np.cos(angles), np.sin(angles)], 1) @ turn.T


def through_lamina(x: np.ndarray, *, device: str, queries: int) -> Callable[[], Mapping[str, float]]:
    rows = torch.from_numpy(x).to(device)
    return lambda: {"dimension": geometry.twonn(rows, queries=queries).value}


def by_cdist(x: np.ndarray, *, device: str, queries: int) -> Callable[[], Mapping[str, float]]:
    """What one writes in torch: distances of a block of queries to all rows, and the smallest of each."""
    rows = torch.from_numpy(x).to(device).double()

    def run() -> Mapping[str, float]:
        total = 0.0
        for block in rows[:queries].split(512):
            first, second = torch.cdist(block, rows).topk(3, largest=False).values[:, 1:].T
            total += float((second / first).log().sum())
        return {"dimension": (queries - 1) / total}

    return run


if __name__ == "__main__":
    main()
