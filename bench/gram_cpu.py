"""How fast is a product with an RBF kernel's matrix on a CPU, and in how much memory, beside KeOps and scikit-learn?

`--rows` sets the most rows; in full it takes about half an hour, most of it the peers'.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np
import torch

from bench import limits
from bench.agreement import Within
from bench.command import parser
from bench.harness import TIMES, Contender, Question, answers, peers_of, speeds
from bench.table import Table
from lamina_kernels import gram

D, ROWS = 64, 100_000
REPETITIONS = {True: 1, False: 3}
"""By whether it is the largest size."""
CHECKED = 1000
"""Rows of the result that are compared."""
RULE = Within(1e-5)

# What the roofline says, written before the first full run.
EXPECTED = [
    "expected: n^2 d operations as a matrix product and n^2 / 2 exponentials, in tiles that stay in the cache; KeOps "
    "takes all pairs, and no matrix product, a sixth as fast at d = 64; scikit-learn multiplies parts in "
    "float64 and passes over each block of values several times: 6 to 10 times slower",
    "expected, memory: tiles of 1 MiB, whatever n; scikit-learn a block of 256 MiB, and copies in float64",
]

Ready = Callable[[], Mapping[str, torch.Tensor | np.ndarray]]


def main(argv: Sequence[str] | None = None) -> None:
    options = parser(__doc__)
    options.add_argument("--rows", type=int, default=ROWS, help="the most rows")
    given = options.parse_args(argv)
    quick, most = given.quick, given.rows
    size = 128 if quick else None
    machine = [limits.gemm("fp32", "cpu", size), limits.gemm("fp64", "cpu", size), limits.exp()]
    with peers_of(quick) as peers:
        asked = questions([300] if quick else [most // 5, most], with_peers=peers is not None, quick=quick)
        rows, samples = answers(asked, rule=RULE, limits=machine, device="cpu", peers=peers, quick=quick)
        versions = {} if peers is None else peers.ask("versions", packages=["pykeops"])
    Table(
        question="How fast is a product with an RBF kernel's matrix on a CPU, and in how much memory?",
        columns=["n", "by", *TIMES, "peak, MiB"],
        rows=rows,
        notes=[
            f"float32 rows of d = {D}, one column of values; {REPETITIONS[False]} interleaved repetitions "
            f"({REPETITIONS[True]} at the largest n) after a comparison of {CHECKED} rows with float64: {RULE}",
            "KeOps was compiled, and what torch loads for its first operator was there, before anything was measured; "
            "scikit-learn: `rbf_kernel` of a block of rows against all, "
            "times the values",
            "the limits count a matrix product in float32 and an exponential a pair, whatever a contender does "
            "instead; half of the pairs for `blocked`, which takes a tile for its mirror image too",
            "peak: what the first call adds to a fresh process that holds the rows, by VmHWM",
            *EXPECTED,
            speeds(machine, samples.values()),
        ],
        packages=["lamina-kernels", "torch", "scikit-learn", "numpy"],
        versions=versions,
        samples=samples,
    ).publish("gram_cpu", quick=quick)


def questions(sizes: Sequence[int], *, with_peers: bool, quick: bool) -> Iterator[Question]:
    """Yield what is asked of each size; the largest comes last."""
    for n in sizes:
        arrays = drawn(n)
        needs = {"GEMM fp32": 2.0 * n * n * D, "exp fp32": 1.0 * n * n}
        contenders = [
            Contender("scikit-learn, in blocks", "bench.gram_cpu:by_sklearn", needs=needs),
            Contender("blocked", "bench.gram_cpu:blocked", needs={name: each / 2 for name, each in needs.items()}),
        ]
        if with_peers:
            call = "bench.peer_calls.keops:product"
            contenders.insert(0, Contender("KeOps", call, {"checked": CHECKED}, peer=True, needs=needs))
        repetitions = 1 if quick else REPETITIONS[n == sizes[-1]]
        yield Question({"n": n}, arrays, contenders, {"out": truth(**arrays)}, repetitions)


def drawn(n: int) -> dict[str, np.ndarray]:
    """Return rows [n, D] and values [n, 1], float32."""
    generator = np.random.default_rng(n)
    return {"x": generator.standard_normal((n, D), np.float32), "v": generator.random((n, 1), np.float32)}


def checked(n: int) -> slice:
    """Return which rows of a result are compared."""
    return slice(None, None, max(1, n // CHECKED))


def truth(x: np.ndarray, v: np.ndarray) -> torch.Tensor:
    """Return some rows of the product in float64."""
    rows, values = torch.from_numpy(x).double(), torch.from_numpy(v).double()
    parts = [
        torch.cdist(some, rows).square_().mul_(-0.5 / D).exp_() @ values for some in rows[checked(len(x))].split(100)
    ]
    return torch.cat(parts)


def blocked(x: np.ndarray, v: np.ndarray, *, device: str) -> Ready:
    """`lamina_kernels.gram.product`."""
    rows, values = torch.from_numpy(x).to(device), torch.from_numpy(v).to(device)
    kernel = gram.RBF(D**0.5)

    def times(some: torch.Tensor, of_some: torch.Tensor) -> torch.Tensor:
        return gram.product(some, None, of_some, kernel=kernel, impl="blocked")

    # The first call of an operator loads 160 MiB of torch.
    times(rows[:10], values[:10])
    return lambda: {"out": times(rows, values)[checked(len(x))]}


def by_sklearn(x: np.ndarray, v: np.ndarray, *, device: str, block: int = 2**26) -> Ready:
    """scikit-learn's kernel, some rows at a time."""
    from sklearn.metrics.pairwise import rbf_kernel

    step = max(1, block // len(x))

    def run() -> Mapping[str, np.ndarray]:
        parts = [rbf_kernel(x[start : start + step], x, gamma=0.5 / D) @ v for start in range(0, len(x), step)]
        return {"out": np.concatenate(parts)[checked(len(x))]}

    return run


if __name__ == "__main__":
    main()
