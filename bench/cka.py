"""How fast, and in how much memory, is a debiased CKA, beside Gram matrices and beside peers?"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Literal

import numpy as np
import torch

from bench import limits
from bench.agreement import Within
from bench.command import is_quick
from bench.dense_cka import truth
from bench.harness import TIMES, Contender, Question, answers, peers_of, speeds
from bench.table import Table
from lamina import similarity

REPETITIONS = 5
D = 384
SIZES = {"linear": (1000, 4000, 16000, 64000, 256000), "rbf": (1000, 4000, 16000)}
RULE = Within(1e-4)
MOST_ROWS = {"dense float64": 16000, "pytorch-cka": 16000, "ckatorch": 8000}
"""Above these a contender's matrices leave no room on a machine with 24 GiB, and it takes no part."""

Value = Mapping[str, float | torch.Tensor]
Kernel = Literal["linear", "rbf"]

# What the roofline says, written before the first full run.
EXPECTED = [
    "expected, linear: a Gram matrix costs 2 n^2 d operations in float64, and Lamina's moments 6 n d^2 in float32 for "
    "all three products: n / (1.5 d) times fewer and each twice as fast, so that dense is ahead below n = 300, and "
    "Lamina about 50 times faster at n = 16000; the jackknife's error, which nobody else returns, takes a part of that",
    "expected, rbf: both need all pairs; Lamina one half of them and in float32: 3 to 6 times faster",
    "expected, memory: dense adds 3 to 4 matrices of 8 n^2 bytes (6 to 8 GiB at n = 16000); Lamina's moments of 32 "
    "buckets of groups take 0.3 GiB at d = 384, whatever n",
]


def main(argv: Sequence[str] | None = None) -> None:
    quick = is_quick(__doc__, argv)
    d, size = (8, 128) if quick else (D, None)
    machine = [limits.gemm("fp32", "cpu", size), limits.gemm("fp64", "cpu", size), limits.exp()]
    machine.append(limits.copy("cpu", 2**20 if quick else 2**28))
    with peers_of(quick) as peers:
        asked = questions(d, quick=quick, with_peers=peers is not None)
        rows, samples = answers(asked, rule=RULE, limits=machine, device="cpu", peers=peers, quick=quick)
        versions = {} if peers is None else peers.ask("versions", packages=["pytorch-cka", "ckatorch"])
    Table(
        question="How fast is a debiased CKA, and in how much memory?",
        columns=["kernel", "n", "by", *TIMES, "peak, MiB"],
        rows=rows,
        notes=[
            f"d = {d}, float32 rows that lie in memory, every row a group of its own; {REPETITIONS} interleaved "
            f"repetitions after a comparison with the value in float64: {RULE}",
            "lamina returns a jackknife error too; dense and the peers return the value alone",
            "the peers run in the same run and on the same rows, in a process of their own environment; pytorch-cka is "
            "given float64, since in float32 it breaks the rule from n = 4000 on; not all take part at every n: "
            + ", ".join(f"{name} up to {most}" for name, most in MOST_ROWS.items()),
            "the limits count what each cannot do without: two Gram matrices in float64; for lamina three products "
            "d x n x d (linear), or half of all pairs and their exponentials (rbf), in float32",
            "peak: what the first call adds to a fresh process that holds the rows, by VmHWM",
            *EXPECTED,
            speeds(machine, samples.values()),
        ],
        packages=["lamina", "lamina-kernels", "torch", "numpy"],
        versions=versions,
        samples=samples,
    ).publish("cka", quick=quick)


def questions(d: int, *, quick: bool, with_peers: bool) -> Iterator[Question]:
    """Yield what is asked of each kernel and number of rows."""
    for kernel, sizes in SIZES.items():
        for n in (200,) if quick else sizes:
            arrays = related(n, d)
            options = {} if kernel == "linear" else bandwidths(**arrays)
            contenders = list(takers(kernel, n, d, options, with_peers=with_peers))
            expected = {"cka": truth(**arrays, bandwidths=options or None)}
            yield Question({"kernel": kernel, "n": n}, arrays, contenders, expected, 1 if quick else REPETITIONS)


def related(n: int, d: int) -> dict[str, np.ndarray]:
    """Return rows x and y [n, d] in float32 that share a part of d / 8 dimensions."""
    generator = np.random.default_rng(n)
    common = generator.standard_normal((n, d // 8), np.float32)
    mixed = (common @ generator.standard_normal((d // 8, d), np.float32) for _ in "xy")
    x, y = (part + generator.standard_normal((n, d), np.float32) for part in mixed)
    return {"x": x, "y": y}


def takers(kernel: str, n: int, d: int, options: Mapping[str, float], *, with_peers: bool) -> Iterator[Contender]:
    """List who takes part, and what each needs."""
    grams = {"GEMM fp64": 4.0 * n * n * d}
    if n <= MOST_ROWS["dense float64"]:
        yield Contender("dense float64", "bench.dense_cka:dense", options, needs=grams)
    if kernel == "linear" and with_peers:
        for name, call in (("pytorch-cka", "from_features"), ("ckatorch", "ckatorch")):
            if n <= MOST_ROWS[name]:
                yield Contender(name, f"bench.peer_calls.cka_peers:{call}", peer=True, needs=grams)
    needs = {"GEMM fp32": 6.0 * n * d * d} if kernel == "linear" else {"GEMM fp32": 2.0 * n * n * d, "exp fp32": n * n}
    yield Contender("lamina", "bench.cka:through_lamina", {"kernel": kernel}, needs=needs)


def through_lamina(x: np.ndarray, y: np.ndarray, *, device: str, kernel: Kernel) -> Callable[[], Value]:
    a, b = torch.from_numpy(x).to(device), torch.from_numpy(y).to(device)
    return lambda: {"cka": similarity.cka(a, b, kernel=kernel).value}


def bandwidths(x: np.ndarray, y: np.ndarray) -> dict[str, float]:
    """Return the bandwidths that Lamina chooses, in the features' units, for the others to take them too."""
    parts = similarity.cka(torch.from_numpy(x), torch.from_numpy(y), kernel="rbf").parts
    return {"bandwidth_x": parts["bandwidth_x"], "bandwidth_y": parts["bandwidth_y"]}


if __name__ == "__main__":
    main()
