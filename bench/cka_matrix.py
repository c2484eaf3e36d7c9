"""What does CKA of many layers cost, beside the passes over pairs, or the matrix products, that it cannot do without?

`--layers`, `--rows` and `--linear-rows` set the sizes; without a GPU it takes about ten minutes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise

import numpy as np
import torch

from bench import clock, limits
from bench.agreement import Within
from bench.command import best_device, parser
from bench.dense_cka import ratio, truth
from bench.harness import Case, Contender, as_case, interleave, peaks, speeds
from bench.table import Table, spread
from lamina_kernels import gram

LAYERS, D, LINEAR_D = 32, 64, 768
ROWS = {"cpu": 8192, "cuda": 65536}
LINEAR_ROWS = 1_000_000
REPETITIONS = 3
RULE = Within(1e-4)
CHECKED = 3
"""Layers whose values are compared with float64."""

# What the roofline says, written before the first full run.
EXPECTED = [
    "expected, RBF: row_sums and cka_matrix both make half of the n^2 values a layer, at 2 d operations and an "
    "exponential each; the products of tiles add 2 L operations a value, which are half as many at L = 32, d = 64, and "
    "centering and weighing two looks at each: 1.4 to 1.7 times the passes",
    "expected, linear: centering the rows and their norms are 3 passes over memory beside 3 products of 2 d operations "
    "a number: 1.1 times the products",
]

Ready = Callable[[], Mapping[str, torch.Tensor]]


def main(argv: Sequence[str] | None = None) -> None:
    device = best_device()
    options = parser(__doc__)
    options.add_argument("--layers", type=int, default=LAYERS, help="layers of RBF kernels")
    options.add_argument("--rows", type=int, default=ROWS[device], help="their rows")
    options.add_argument("--linear-rows", type=int, default=LINEAR_ROWS, help="rows of the linear CKA")
    given = options.parse_args(argv)
    quick, layers, n, linear_n, d = given.quick, given.layers, given.rows, given.linear_rows, LINEAR_D
    if quick:
        layers, n, linear_n, d = 4, 200, 400, 16
    machine = [limits.gemm("fp32", device, 128 if quick else None)]
    rows, samples = [], {}

    x = stacked(layers, n, D)
    whole = many(x, device=device)()["cka"].cpu()
    expected = [[truth(a, b, dict.fromkeys(BANDWIDTHS, bandwidth(D))) for b in x[:CHECKED]] for a in x[:CHECKED]]
    RULE.check("cka_matrix", {"cka": whole[:CHECKED, :CHECKED]}, {"cka": torch.tensor(expected)})
    contenders = {f"{layers} passes of row_sums": passes, "cka_matrix": many}
    what = f"RBF, {layers} layers, n = {n:,}, d = {D}"
    timed = measured(what, {name: call(x, device=device) for name, call in contenders.items()}, machine, device, quick)
    samples[what] = timed
    here = [Contender(name, f"bench.cka_matrix:{call.__name__}") for name, call in contenders.items()]
    added = {} if quick else peaks(here, {"x": x}, device=device, description=what)
    rows += table_rows(what, timed, list(contenders), added)

    x = stacked(2, linear_n, d)
    RULE.check("cka_matrix", linear(x, device=device)(), {"cka": linear_truth(x, device)})
    contenders = {"its 3 matrix products": products, "cka_matrix": linear}
    what = f"linear, 2 layers, n = {linear_n:,}, d = {d}"
    timed = measured(what, {name: call(x, device=device) for name, call in contenders.items()}, machine, device, quick)
    samples[what] = timed
    rows += table_rows(what, timed, list(contenders), {})

    Table(
        question="What does CKA of many layers cost, beside what it cannot do without?",
        columns=list(rows[0]),
        rows=rows,
        notes=[
            f"float32, unbiased, every row a group of its own; {REPETITIONS} interleaved repetitions after a "
            f"comparison of {CHECKED} layers with each other, and of the linear one, with float64: {RULE}",
            "row_sums: `gram.row_sums` of the same kernels, one layer after the other; the products: X^T X, Y^T Y and "
            "X^T Y of the rows as they are",
            "peak: what the first call adds to a fresh process that holds the rows, by VmHWM (on a GPU: by torch's "
            "allocator)",
            *EXPECTED,
            speeds(machine, samples.values()),
        ],
        packages=["lamina-kernels", "torch", "triton"],
        samples=samples,
    ).publish("cka_matrix", device=device, quick=quick)


BANDWIDTHS = ("bandwidth_x", "bandwidth_y")


def measured(
    what: str, ready: Mapping[str, Ready], machine: Sequence[limits.Limit], device: str, quick: bool
) -> dict[str, list[float]]:
    """Time all in turns."""
    cases: dict[str, Case] = {limit.name: as_case(limit.run) for limit in machine}
    cases |= {name: as_case(clock.timed(function, device)) for name, function in ready.items()}
    return {name: phases["time"] for name, phases in interleave(cases, 1 if quick else REPETITIONS, what).items()}


def table_rows(
    what: str, timed: Mapping[str, Sequence[float]], names: Sequence[str], added: Mapping[str, int]
) -> list[dict[str, object]]:
    """Return a row for each, beside the first."""
    first = spread(timed[names[0]]).median
    found = []
    for name in names:
        took = spread(timed[name])
        found.append(
            {
                "what": what,
                "by": name,
                "median, s": took.median,
                "min, s": took.least,
                "quartiles, s": f"{took.lower:.3g} to {took.upper:.3g}",
                "times the first": f"{took.median / first:.2f}",
                "peak, MiB": added[name] / 2**20 if name in added else None,
            }
        )
    return found


def stacked(layers: int, n: int, d: int) -> np.ndarray:
    """Return rows [layers, n, d] in float32, each layer a part of the one before."""
    generator = np.random.default_rng(n)
    x = generator.standard_normal((layers, n, d), np.float32)
    for before, layer in pairwise(x):
        layer += before
        layer *= np.float32(0.5**0.5)
    return x


def bandwidth(d: int) -> float:
    """Return a bandwidth at which the kernel of two rows of `stacked` is about exp(-1)."""
    return d**0.5


def many(x: np.ndarray, *, device: str) -> Ready:
    layers = list(torch.from_numpy(x).to(device))
    # The first call of an operator loads 160 MiB of torch.
    gram.cka_matrix([layers[0][:10]], kernel=gram.RBF(1.0))
    return lambda: {"cka": gram.cka_matrix(layers, kernel=gram.RBF(bandwidth(x.shape[2]))).value}


def passes(x: np.ndarray, *, device: str) -> Ready:
    layers, kernel = list(torch.from_numpy(x).to(device)), gram.RBF(bandwidth(x.shape[2]))
    gram.row_sums(layers[0][:10], kernel=kernel)
    return lambda: {"sums": torch.stack([gram.row_sums(layer, kernel=kernel) for layer in layers])}


def linear(x: np.ndarray, *, device: str) -> Ready:
    layers = list(torch.from_numpy(x).to(device))
    return lambda: {"cka": gram.cka_matrix(layers, kernel=gram.Linear()).value[0, 1]}


def products(x: np.ndarray, *, device: str) -> Ready:
    a, b = torch.from_numpy(x).to(device)
    return lambda: {"products": torch.stack([a.T @ a, b.T @ b, a.T @ b])}


def linear_truth(x: np.ndarray, device: str, block: int = 50_000) -> torch.Tensor:
    """Return the linear value in float64, some rows at a time."""
    layers = list(torch.from_numpy(x).to(device))
    means = [layer.mean(0, dtype=torch.float64) for layer in layers]
    pairs, sums = ((0, 0), (1, 1), (0, 1)), []
    crossed = [torch.zeros(x.shape[2], x.shape[2], dtype=torch.float64, device=device) for _ in pairs]
    for start in range(0, x.shape[1], block):
        rows = [layer[start : start + block].double() - mean for layer, mean in zip(layers, means, strict=True)]
        for (a, b), into in zip(pairs, crossed, strict=True):
            into += rows[a].T @ rows[b]
        # The row sums of a centered matrix are 0: without its diagonal they are minus that.
        sums.append(torch.stack([-part.square().sum(1) for part in rows]))
    r, s = torch.cat(sums, 1)
    inner = [c.square().sum() - p @ q for c, (p, q) in zip(crossed, ((r, r), (s, s), (r, s)), strict=True)]
    return ratio(inner, r, s)


if __name__ == "__main__":
    main()
