"""How fast are the k largest pre-activations of each row found on a GPU, beside products that store all of them?

Without a GPU, what counted instructions predict is printed instead (`sparse_predicted`); nothing is measured then.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np
import torch

from bench import limits, sparse_predicted
from bench.agreement import Within
from bench.command import best_device, is_quick
from bench.harness import TIMES, Contender, Question, answers, speeds
from bench.table import Table
from lamina_kernels.sparse import TopK, encode

ROWS, UNITS, KEPT = 8192, 131_072, 32
WIDTHS = (1024, 2048, 4096)
CUT = 8192
"""Units of a chunk whose pre-activations the split path stores, in a buffer that is used again."""
REPETITIONS = 7
FIRST = 256
"""Rows of a result that are compared."""
RULE = Within(2e-2)

Ready = Callable[[], Mapping[str, torch.Tensor]]

GOALS = [
    "goals on an H100: 90 % of the own product, 80 % of cuBLAS, which is the limit of this table, and ahead of the "
    "split paths",
]


def main(argv: Sequence[str] | None = None) -> None:
    quick, device = is_quick(__doc__, argv), best_device()
    if device == "cpu" and not quick:
        print("no GPU here: nothing is measured, what follows is predicted", file=sys.stderr)
        sparse_predicted.main([])
        return
    machine = [limits.gemm("fp32" if quick else "bf16", device, 128 if quick else None)]
    asked = questions(machine[0].name, quick=quick)
    rows, samples = answers(asked, rule=RULE, limits=machine, device=device, peers=None, quick=quick)
    Table(
        question="How fast are the k largest pre-activations of each row found on a GPU?",
        columns=["what", "by", *TIMES, "peak, MiB"],
        rows=rows,
        notes=[
            f"bfloat16 rows and weights, normal; interleaved repetitions after a comparison of the sums of {FIRST} "
            f"rows' values with float64: {RULE}",
            f"split, topk: cuBLAS over chunks of {CUT:,} units into one buffer, topk of each and of these; split, "
            "threshold: the form 'blocked', cuBLAS over tiles, and what is above the limit of its row; topk: the "
            "product, stored, and topk of it",
            "the product alone, stored: by a Triton kernel of our own, which walks as the encoder does, and by cuBLAS",
            "% of the limit: of the product alone",
            "peak: what the first call adds to a fresh process, by torch's allocator",
            *GOALS,
            speeds(machine, samples.values()),
        ],
        packages=["lamina-kernels", "torch"],
        samples=samples,
    ).publish("sparse_encode", device=device, quick=quick)


def questions(limit: str, *, quick: bool) -> Iterator[Question]:
    """Yield what is asked; the true answer is the sum of the largest of the first rows."""
    for d in (16,) if quick else WIDTHS:
        n, m, k = (64, 256, 4) if quick else (ROWS, UNITS, KEPT)
        random = np.random.default_rng(d)
        arrays = {
            "x": random.standard_normal((n, d), np.float32),
            "weight": random.standard_normal((m, d), np.float32) / np.float32(d**0.5),
        }
        needs = {limit: 2.0 * n * m * d}
        contenders = [Contender(way, "bench.sparse_encode:run", {"way": way, "k": k}, needs=needs) for way in WAYS]
        x, weight = (torch.from_numpy(each).bfloat16().double() for each in (arrays["x"][:FIRST], arrays["weight"]))
        expected = (x @ weight.T).topk(k, dim=1).values.sum()
        what = {"what": f"k = {k}, n = {n}, M = {m}, d = {d}"}
        repetitions = 1 if quick else REPETITIONS
        yield Question(what, arrays, contenders, {"sum": expected}, repetitions)
        # Without a GPU there is no kernel to run.
        owns = [True, False] if torch.cuda.is_available() else [False]
        contenders = [
            Contender("own kernel" if own else "cuBLAS", "bench.sparse_encode:stored", {"own": own}, needs=needs)
            for own in owns
        ]
        what = {"what": f"the product alone, stored, n = {n}, M = {m}, d = {d}"}
        yield Question(what, arrays, contenders, {"first": x @ weight[:FIRST].T}, repetitions)


def stored(x: np.ndarray, weight: np.ndarray, *, device: str, own: bool) -> Ready:
    """Multiply by the kernel that stores its products, or by the library."""
    rows, units = (torch.from_numpy(each).to(device).bfloat16() for each in (x, weight))
    multiply = _own if own else torch.mm
    return lambda: {"first": multiply(rows, units if own else units.T)[:FIRST, :FIRST].float()}


def _own(x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    from bench.stored_product import product

    return product(x, weight)


def run(x: np.ndarray, weight: np.ndarray, *, device: str, way: str, k: int) -> Ready:
    """Encode in one of the ways, and add up what is kept of the first rows."""
    rows, units = (torch.from_numpy(each).to(device).bfloat16() for each in (x, weight))
    return lambda: {"sum": WAYS[way](rows, units, k)[:FIRST].double().sum()}


def through_lamina(x: torch.Tensor, weight: torch.Tensor, k: int) -> torch.Tensor:
    return encode(x, weight, select=TopK(k, relu=False)).codes.values


def through_blocked(x: torch.Tensor, weight: torch.Tensor, k: int) -> torch.Tensor:
    return encode(x, weight, select=TopK(k, relu=False), impl="blocked").codes.values


def split(x: torch.Tensor, weight: torch.Tensor, k: int) -> torch.Tensor:
    """What is found without a kernel of one's own: a chunk of units after the other, and the largest so far."""
    room = x.new_empty(len(x), min(CUT, len(weight)))
    best, ids = x.new_full((len(x), k), -torch.inf), x.new_zeros(len(x), k, dtype=torch.int64)
    for first in range(0, len(weight), CUT):
        some = weight[first : first + CUT]
        chunk = torch.mm(x, some.T, out=room[:, : len(some)]) if len(some) == room.shape[1] else x @ some.T
        values, places = chunk.topk(min(k, len(some)), dim=1, sorted=False)
        best, chosen = torch.cat([best, values], 1).topk(k, dim=1, sorted=False)
        ids = torch.cat([ids, places + first], 1).gather(1, chosen)
    return best


def by_topk(x: torch.Tensor, weight: torch.Tensor, k: int) -> torch.Tensor:
    return (x @ weight.T).topk(k, dim=1, sorted=False).values


WAYS = {"lamina": through_lamina, "split, topk": split, "split, threshold": through_blocked, "topk": by_topk}


if __name__ == "__main__":
    main()
