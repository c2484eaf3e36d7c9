"""How fast are sums over pairs of rows on a GPU, beside a product and a reduction of it?

Without a GPU, what counted instructions predict is printed instead (`gram_predicted`); nothing is measured then.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from typing import Any

import numpy as np
import torch

from bench import gram_predicted, limits, paths
from bench.agreement import Within
from bench.command import best_device, is_quick
from bench.harness import TIMES, Contender, Question, answers, peers_of, speeds
from bench.nearest import differences, normal
from bench.table import Table
from lamina_kernels import gram

ROWS = {64: 131_072, 128: 131_072, 512: 65_536, 1024: 32_768, 2048: 32_768, 4096: 16_384}
"""Rows of an RBF product, by their width."""
VALUES = 16
CODES = (131_072, 131_072, 512)
"""Rows, codes and their width."""
L1 = (65_536, 64)
REPETITIONS = 7
FIRST = 256
"""Rows of a result that are compared."""
TILE = 2**28
"""Values that a product of torch holds at a time."""
RULES = {"bfloat16": Within(2e-2), "float32": Within(1e-4)}

Ready = Callable[[], Mapping[str, torch.Tensor]]

GOALS = [
    "goals on an H100: an RBF product of at most 16 columns at 40 % of one exponential a pair (3870 G pairs/s) at "
    "d = 64, 33 % at d = 128; beside KeOps, in bfloat16 and within 1e-4, 3 times as fast at d = 64, 10 times from "
    "d = 256 on; 65 % of bfloat16's products from d = 512 to 4096; argmin of 131,072 codes of 512 at 450 TFLOP/s, or "
    "439 G pairs/s; L1 at 70 % of two additions a pair and dimension (15.5e12 a second), or 170 G pairs/s at d = 64",
    "expected: a product that is written and read again moves 8 bytes a pair and more, 0.4 T pairs/s at 3.35 TB/s, so "
    "that one pass is ahead where its own products take less: below d = 1000 or so",
]


def main(argv: Sequence[str] | None = None) -> None:
    quick, device = is_quick(__doc__, argv), best_device()
    if device == "cpu" and not quick:
        print("no GPU here: nothing is measured, what follows is predicted", file=sys.stderr)
        gram_predicted.main([])
        return
    size = 128 if quick else None
    machine = [limits.gemm(kind, device, size) for kind in ("fp32", "bf16")]
    # Nothing is asked of KeOps where it is not installed.
    rows, samples, versions = [], {}, {}
    with peers_of(quick) if paths.PEERS.exists() else nullcontext() as peers:
        for dtype, rule in RULES.items():
            asked = questions(dtype, device, quick=quick, with_peers=peers is not None)
            found, seconds = answers(asked, rule=rule, limits=machine, device=device, peers=peers, quick=quick)
            rows, samples = rows + found, samples | seconds
        if peers is not None:
            versions = peers.ask("versions", packages=["pykeops"])
    for row in rows:
        row["G pairs/s"] = row["n"] * row["m"] / row["median, ms"] / 1e6
    Table(
        question="How fast are sums over pairs of rows on a GPU, beside a product and a reduction of it?",
        columns=["what", "n", "m", "d", "by", "G pairs/s", *TIMES, "peak, MiB"],
        rows=rows,
        notes=[
            f"rows of normal numbers; an RBF kernel of bandwidth sqrt(d), {VALUES} columns of values; interleaved "
            f"repetitions after a comparison of {FIRST} rows with float64: in bfloat16 {RULES['bfloat16']}; in float32 "
            f"{RULES['float32']}",
            "by products: torch multiplies a block of rows with all others and reduces what it wrote; KeOps runs in "
            "float32 in a process of its own environment, in the same turns",
            "% of the limit: of the products alone, those of rows and those with the values",
            "peak: what the first call adds to a fresh process, by torch's allocator",
            *GOALS,
            speeds(machine, samples.values()),
        ],
        packages=["lamina-kernels", "torch", "triton"],
        versions=versions,
        samples=samples,
    ).publish("gram_sums", device=device, quick=quick)


def questions(dtype: str, device: str, *, quick: bool, with_peers: bool) -> Iterator[Question]:
    """Yield what is asked of rows of a dtype."""
    repetitions, half = 1 if quick else REPETITIONS, dtype == "bfloat16"
    options, limit = {"dtype": dtype}, "GEMM bf16" if half else "GEMM fp32"
    for d, n in {8: 300}.items() if quick else ROWS.items():
        arrays = {"x": normal(n, d, seed=n), "v": normal(n, VALUES, seed=n + 1)}
        needs = {limit: 2.0 * n * n * (d + VALUES)}
        ways = {"": None} if half else {", bf16x6": "bf16x6", ", bf16x3": "bf16x3"}
        contenders = [
            Contender(f"lamina{way}", "bench.gram_sums:fused", options | {"precision": precision}, needs=needs)
            for way, precision in ways.items()
        ]
        contenders.append(Contender("by products", "bench.gram_sums:by_products", options, needs=needs))
        if with_peers:
            keops = {"checked": FIRST}
            contenders.append(Contender("KeOps", "bench.peer_calls.keops:product", keops, peer=True, needs=needs))
        cells = {"what": f"RBF product, {dtype}", "n": n, "m": n, "d": d}
        expected = dense(*(rounded(arrays[each], dtype, device) for each in "xv"))
        yield Question(cells, arrays, contenders, {"out": expected}, repetitions)
    if half:
        n, m, d = (300, 30, 8) if quick else CODES
        arrays = {"x": normal(n, d, seed=n), "codes": normal(m, d, seed=m + 1)}
        needs = {limit: 2.0 * n * m * d}
        contenders = [
            Contender("lamina", "bench.gram_sums:codes", options, needs=needs),
            Contender("by products", "bench.gram_sums:codes_by_products", options, needs=needs),
        ]
        x, others = (rounded(arrays[each], dtype, device) for each in ("x", "codes"))
        expected = differences(x[:FIRST].numpy(force=True), others.numpy(force=True)).min(1)
        cells = {"what": f"argmin, {dtype}", "n": n, "m": m, "d": d}
        yield Question(cells, arrays, contenders, {"distances": expected}, repetitions)
    else:
        n, d = (300, 8) if quick else L1
        arrays = {"x": normal(n, d, seed=n)}
        contenders = [
            Contender("lamina", "bench.gram_sums:row_sums"),
            Contender("by distances", "bench.gram_sums:row_sums_by_distances"),
        ]
        x = rounded(arrays["x"], dtype, device)
        expected = torch.cdist(x[some(n)], x, p=1).div_(-d).exp_().sum(1)
        cells = {"what": "row sums of a Laplace kernel of L1", "n": n, "m": n, "d": d}
        yield Question(cells, arrays, contenders, {"sums": expected}, repetitions)


def some(n: int) -> slice:
    """Return which rows of a result are compared."""
    return slice(None, None, max(1, n // FIRST))


def rounded(array: np.ndarray, dtype: str, device: str) -> torch.Tensor:
    """Return numbers in float64 as they are in a dtype."""
    return torch.from_numpy(array).to(device).to(getattr(torch, dtype)).double()


def dense(x: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
    """Return some rows of an RBF product in float64."""
    parts = x[some(len(x))].split(64)
    return torch.cat([torch.cdist(part, x).square_().mul_(-0.5 / x.shape[1]).exp_() @ v for part in parts])


def rows_of(*arrays: np.ndarray, dtype: str, device: str) -> list[torch.Tensor]:
    """Return what a contender computes with."""
    return [torch.from_numpy(array).to(device, getattr(torch, dtype)) for array in arrays]


def fused(x: np.ndarray, v: np.ndarray, *, device: str, dtype: str, precision: Any) -> Ready:
    """`lamina_kernels.gram.product`."""
    rows, values = rows_of(x, v, dtype=dtype, device=device)
    kernel = gram.RBF(x.shape[1] ** 0.5)
    return lambda: {"out": gram.product(rows, None, values, kernel=kernel, precision=precision)[some(len(x))].float()}


def by_products(x: np.ndarray, v: np.ndarray, *, device: str, dtype: str) -> Ready:
    """What one writes in torch: a product of a block of rows with all, its exponential, a product with the values."""
    rows, values = rows_of(x, v, dtype=dtype, device=device)
    d = x.shape[1]

    def run() -> Mapping[str, torch.Tensor]:
        halves, parts = rows.float().square().sum(1) / (2 * d), []
        for block, own in zip(*(each.split(max(1, TILE // len(rows))) for each in (rows, halves)), strict=True):
            exponents = (block @ rows.T).float().div_(d).sub_(halves).sub_(own[:, None])
            parts.append(exponents.clamp_(max=0).exp_().to(values.dtype) @ values)
        return {"out": torch.cat(parts)[some(len(x))].float()}

    return run


def codes(x: np.ndarray, codes: np.ndarray, *, device: str, dtype: str) -> Ready:
    """`lamina_kernels.gram.argmin`."""
    rows, others = rows_of(x, codes, dtype=dtype, device=device)
    return lambda: {"distances": gram.argmin(rows, others).distances[:FIRST]}


def codes_by_products(x: np.ndarray, codes: np.ndarray, *, device: str, dtype: str) -> Ready:
    """What one writes in torch, with counts and sums of the rows of each code."""
    rows, others = rows_of(x, codes, dtype=dtype, device=device)

    def run() -> Mapping[str, torch.Tensor]:
        norms, found = others.float().square().sum(1), []
        sums, counts = torch.zeros(others.shape, device=device), torch.zeros(len(others), device=device)
        for block in rows.split(max(1, TILE // len(others))):
            far, at = (block @ others.T).float().mul_(-2).add_(norms).min(1)
            found.append(far + block.float().square().sum(1))
            sums.index_add_(0, at, block.float())
            counts += at.bincount(minlength=len(others))
        return {"distances": torch.cat(found)[:FIRST]}

    return run


def row_sums(x: np.ndarray, *, device: str) -> Ready:
    """`lamina_kernels.gram.row_sums` of a Laplace kernel of L1."""
    (rows,) = rows_of(x, dtype="float32", device=device)
    kernel = gram.Laplace(float(x.shape[1]), norm=1)
    return lambda: {"sums": gram.row_sums(rows, kernel=kernel)[some(len(x))]}


def row_sums_by_distances(x: np.ndarray, *, device: str) -> Ready:
    """What one writes in torch."""
    (rows,) = rows_of(x, dtype="float32", device=device)

    def run() -> Mapping[str, torch.Tensor]:
        parts = rows.split(max(1, TILE // len(rows)))
        sums = [torch.cdist(part, rows, p=1).div_(-x.shape[1]).exp_().sum(1) for part in parts]
        return {"sums": torch.cat(sums)[some(len(x))]}

    return run


if __name__ == "__main__":
    main()
