"""How fast, and in how much memory, are the sums of HSIC without a matrix of pairs?"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace

import numpy as np
import torch

from bench import hsic_gradients, limits
from bench.agreement import Within
from bench.command import best_device, is_quick
from bench.harness import TIMES, Contender, Question, answers, speeds
from bench.table import Table
from lamina_kernels import gram

REPETITIONS = 7
SHAPES = {
    "cpu": [(4096, 64), (4096, 768), (8192, 768), (16384, 64)],
    "cuda": [(16384, 64), (16384, 768), (65536, 64), (65536, 768)],
}
GRADIENT_SHAPES = {"cpu": [(4096, 64), (4096, 768)], "cuda": [(16384, 64), (16384, 768)]}
"""Torch keeps ten matrices for gradients, and both ways take seconds at twice as many rows on a CPU."""
KERNELS = ("linear", "rbf")
RULE = Within(1e-5)
# Those of squared distances in float32 cancel: torch's own are off by 2e-4 at d = 768.
GRADIENTS, GRADIENT_REPETITIONS = Within(1e-3), 3
SUMS = ("product", "sums_x", "sums_y", "square_x", "square_y")
MOST_DOUBLE = 4096
"""The form `reference` holds a dozen matrices in float64: it takes part up to here."""

Sums = Mapping[str, torch.Tensor]

# What the roofline says, written before the first full run, when the op gave product and sums without the squares; for
# a machine with twice as many operations a second in float32 as in float64 and an exponential for 60 of them.
EXPECTED = [
    "expected before the squares were added, linear: where n > 4 d, `blocked` needs 4 n d^2 operations in float64, "
    "dense torch 4 n^2 d in float32 and six passes over n^2 numbers: 2 to 3 times faster at (4096, 768), 6 at "
    "(8192, 768), hundreds at (16384, 64)",
    "expected, rbf: `blocked` needs 2 n^2 d operations and n^2 exponentials, in tiles that stay in the cache; dense "
    "torch needs twice that and a dozen passes over n^2 numbers: 6 to 10 times faster at d = 64, 3 times at d = 768",
    "expected, memory: dense torch adds 3 to 5 matrices of 4 n^2 bytes (3 to 5 GiB at n = 16384), `blocked` some MiB",
]


def main(argv: Sequence[str] | None = None) -> None:
    quick = is_quick(__doc__, argv)
    device = best_device()
    machine = machine_limits(device, quick)
    asked = questions(device, quick=quick)
    rows, samples = answers(asked, rule=RULE, limits=machine, device=device, peers=None, quick=quick)
    asked = gradient_questions(device, quick=quick)
    found, seconds = answers(asked, rule=GRADIENTS, limits=machine, device=device, peers=None, quick=quick)
    rows, samples = rows + found, samples | seconds
    Table(
        question="How fast are the sums of HSIC without a matrix of pairs?",
        columns=["kernel", "n", "d", "by", *TIMES, "peak, MiB"],
        rows=rows,
        notes=[
            f"float32; {REPETITIONS} interleaved repetitions after a comparison with the sums in float64: {RULE}",
            "gradients: HSIC, from these sums, and its gradients by both sets of rows; dense torch: autograd through "
            f"both matrices; {GRADIENT_REPETITIONS} repetitions after a comparison with the gradients in float64: "
            f"{GRADIENTS}; of fewer rows than sums, as torch keeps ten matrices. "
            "Their limit counts three products of each matrix, its own and those with the rows of both sides, or the "
            "half of them that symmetry leaves",
            "the limits count what each form cannot do without: both whole products of dense torch, the half that "
            "symmetry leaves of them or the moments that replace them, and the exponentials; `triton` multiplies "
            "float32 as six products of bfloat16",
            "peak: what the first call adds to a fresh process, by VmHWM (on a GPU: by torch's allocator)",
            f"`reference` sums in float64 and takes part up to n = {MOST_DOUBLE}",
            *EXPECTED,
            speeds(machine, samples.values()),
        ],
        packages=["lamina-kernels", "torch", "triton"],
        samples=samples,
    ).publish("hsic_sums", device=device, quick=quick)


def questions(device: str, *, quick: bool) -> Iterator[Question]:
    """Yield what is asked of each kernel and shape."""
    for kernel, (n, d) in itertools.product(KERNELS, [(200, 8)] if quick else SHAPES[device]):
        arrays = paired(n, d)
        expected = truth(arrays["x"], arrays["y"], kernel=kernel, device=device)
        cells = {"kernel": kernel, "n": n, "d": d}
        yield Question(cells, arrays, list(forms(kernel, n, d, device)), expected, 1 if quick else REPETITIONS)


def gradient_questions(device: str, *, quick: bool) -> Iterator[Question]:
    """Yield what is asked of gradients."""
    for kernel, (n, d) in itertools.product(KERNELS, [(200, 8)] if quick else GRADIENT_SHAPES[device]):
        arrays = paired(n, d)
        exps = {"exp fp32": 2.0 * n * n} if kernel == "rbf" and device == "cpu" else {}
        needs = {"GEMM fp32": 12.0 * n * n * d} | exps
        half = {name: work / 2 for name, work in needs.items()}
        ways = [Contender("dense torch", "bench.hsic_gradients:dense", {"kernel": kernel}, needs=needs)]
        for impl in ("blocked",) if device == "cpu" else ("blocked", "triton"):
            options = {"kernel": kernel, "impl": impl}
            ways.append(Contender(impl, "bench.hsic_gradients:op", options, needs=half))
        expected = hsic_gradients.truth(arrays["x"], arrays["y"], kernel=kernel, device=device)
        cells = {"kernel": f"{kernel}, gradients", "n": n, "d": d}
        yield Question(cells, arrays, ways, expected, 1 if quick else GRADIENT_REPETITIONS)


def machine_limits(device: str, quick: bool) -> list[limits.Limit]:
    """Return the limits that the contenders name, and the memory's."""
    size = 128 if quick else None
    kinds = ("fp32", "fp64") if device == "cpu" else ("fp32", "fp64", "bf16")
    found = [limits.gemm(kind, device, size) for kind in kinds]
    if device == "cpu":
        found.append(limits.exp())
    return [*found, limits.copy(device, 2**20 if quick else 2**28 if device == "cpu" else 2**32)]


def paired(n: int, d: int) -> dict[str, np.ndarray]:
    """Return rows x and y [n, d] in float32 that share half of their variance."""
    generator = np.random.default_rng(n + d)
    common, x, y = (generator.standard_normal((n, d), np.float32) for _ in range(3))
    return {"x": common + x, "y": common + y}


def forms(kernel: str, n: int, d: int, device: str) -> Iterator[Contender]:
    """List who takes part, and what each needs."""
    exps = {"exp fp32": 2.0 * n * n} if kernel == "rbf" and device == "cpu" else {}
    flop = 4.0 * n * n * d
    yield Contender("dense torch", "bench.hsic_sums:dense", {"kernel": kernel}, needs={"GEMM fp32": flop} | exps)
    here = Contender("blocked", "bench.hsic_sums:op", {"kernel": kernel, "impl": "blocked"})
    if n <= MOST_DOUBLE:
        options = {"kernel": kernel, "impl": "reference"}
        yield replace(here, name="reference", options=options, needs={"GEMM fp32": flop} | exps)
    half = {"GEMM fp32": flop / 2} | {name: work / 2 for name, work in exps.items()}
    moments = kernel == "linear" and 12 * d < n
    yield replace(here, needs={"GEMM fp64": 12.0 * n * d * d} if moments else half)
    if device != "cpu":
        options = {"kernel": kernel, "impl": "triton"}
        yield replace(here, name="triton", options=options, needs={"GEMM bf16": 6 * flop / 2})


def op(x: np.ndarray, y: np.ndarray, *, device: str, kernel: str, impl: hsic_gradients.Form) -> Callable[[], Sums]:
    """`lamina_kernels.gram.hsic_sums` in one of its forms."""
    k = hsic_gradients.kernel_of(kernel, x.shape[1])
    a, b = torch.from_numpy(x).to(device), torch.from_numpy(y).to(device)

    def run() -> Sums:
        sums = gram.hsic_sums(a, b, kernel_x=k, kernel_y=k, impl=impl)
        assert sums.impl == impl
        return {name: getattr(sums, name) for name in SUMS}

    return run


def dense(x: np.ndarray, y: np.ndarray, *, device: str, kernel: str) -> Callable[[], Sums]:
    """What one writes in torch: two matrices in float32."""
    a, b = torch.from_numpy(x).to(device), torch.from_numpy(y).to(device)

    def run() -> Sums:
        K, L = (scores(rows, rows, kernel).fill_diagonal_(0) for rows in (a, b))
        return _sums(K, L)

    return run


def truth(x: np.ndarray, y: np.ndarray, *, kernel: str, device: str, tile: int = 1024) -> Sums:
    """The sums in float64, some rows at a time."""
    a, b = torch.from_numpy(x).to(device, torch.float64), torch.from_numpy(y).to(device, torch.float64)
    sums = {name: torch.zeros(len(a), dtype=torch.float64, device=device) for name in SUMS}
    for start in range(0, len(a), tile):
        rows = slice(start, start + tile)
        K, L = (scores(whole[rows], whole, kernel) for whole in (a, b))
        for matrix in (K, L):
            matrix.diagonal(start).zero_()
        for name, value in _sums(K, L).items():
            sums[name][rows] = value
    return sums


def _sums(K: torch.Tensor, L: torch.Tensor) -> dict[str, torch.Tensor]:
    matrices = (K * L, K, L, K * K, L * L)
    return {name: matrix.sum(1) for name, matrix in zip(SUMS, matrices, strict=True)}


def scores(x: torch.Tensor, y: torch.Tensor, kernel: str) -> torch.Tensor:
    """Return k(x_i, y_j) for all pairs."""
    if kernel == "linear":
        return x @ y.T
    return torch.cdist(x, y).square_().mul_(-0.5 / hsic_gradients.bandwidth(x.shape[1]) ** 2).exp_()


if __name__ == "__main__":
    main()
