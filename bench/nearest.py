"""How fast, and in how much memory, are the nearest rows of all rows, and the nearest of many codes?"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import nullcontext

import numpy as np
import torch

from bench import limits
from bench.agreement import Within
from bench.command import best_device, is_quick
from bench.harness import TIMES, Contender, Question, answers, peers_of, speeds
from bench.table import Table
from lamina_kernels import gram

K = 16
NEAREST = {"cpu": [(20_000, 64), (100_000, 64)], "cuda": [(100_000, 64), (1_000_000, 128)]}
"""Rows and their width."""
CODES = {"cpu": [(20_000, 1024, 64)], "cuda": [(131_072, 131_072, 512)]}
"""Rows, codes and their width."""
REPETITIONS = {"cpu": 3, "cuda": 5}
FIRST = 256
"""Rows whose result is compared with the truth."""
RULE = Within(1e-5)
TILE = 2**28
"""Distances that torch on a GPU holds at a time."""

Result = Mapping[str, torch.Tensor | np.ndarray]

# What the roofline says, written before the first full run.
EXPECTED = [
    "expected, CPU: 2 n^2 d operations in float32, which all need, and one look at each of the n^2 products, in the "
    "cache: two thirds of GEMM's speed; scikit-learn and FAISS keep a heap a row, whose every look costs as much "
    "again: half of GEMM's speed",
    "expected, GPU: torch writes every distance to memory and reads it for topk, 12 bytes of traffic and a sort by "
    "radix each, so that it takes 10 to 20 times the product's time",
]


def main(argv: Sequence[str] | None = None) -> None:
    quick = is_quick(__doc__, argv)
    device = best_device()
    size = 128 if quick else None
    machine = [limits.gemm("fp32", device, size), *([limits.gemm("bf16", device, size)] if device == "cuda" else [])]
    with peers_of(quick) if device == "cpu" else nullcontext() as peers:
        asked = questions(device, quick=quick, with_peers=peers is not None)
        rows, samples = answers(asked, rule=RULE, limits=machine, device=device, peers=peers, quick=quick)
        versions = {} if peers is None else peers.ask("versions", packages=["faiss-cpu"])
    Table(
        question="How fast are the nearest rows, and in how much memory?",
        columns=["what", "by", *TIMES, "peak, MiB"],
        rows=rows,
        notes=[
            f"float32 rows of normal numbers; the {K} nearest others of every row, or the nearest code; interleaved "
            f"repetitions after a comparison of {FIRST} rows with distances from differences in float64: {RULE}",
            "lamina's neighbors are exact: distances from differences in float64 decide; the others' are those of "
            "products in float32",
            "FAISS runs in the same run and on the same rows, in a process of its own environment",
            "peak: what the first call adds to a fresh process that holds the rows, by VmHWM (on a GPU: by torch's "
            "allocator)",
            *EXPECTED,
            speeds(machine, samples.values()),
        ],
        packages=["lamina-kernels", "torch", "scikit-learn", "numpy"],
        versions=versions,
        samples=samples,
    ).publish("nearest", device=device, quick=quick)


def questions(device: str, *, quick: bool, with_peers: bool) -> Iterator[Question]:
    """Yield what is asked; the true answer is that of the first rows."""
    repetitions = 1 if quick else REPETITIONS[device]
    for n, d in [(400, 8)] if quick else NEAREST[device]:
        arrays = {"x": normal(n, d, seed=n)}
        options, needs = {"k": K, "first": FIRST}, {"GEMM fp32": 2.0 * n * n * d}
        contenders = [Contender("lamina", "bench.nearest:through_lamina", options, needs=needs)]
        if device == "cpu":
            contenders.append(Contender("scikit-learn", "bench.nearest:by_scikit_learn", options, needs=needs))
        else:
            contenders.append(Contender("torch in blocks", "bench.nearest:by_topk", options, needs=needs))
        if with_peers:
            call = "bench.peer_calls.faiss_flat:nearest"
            contenders.append(Contender("FAISS flat", call, options, peer=True, needs=needs))
        far = differences(arrays["x"][:FIRST], arrays["x"])
        expected = np.sort(far, axis=1)[:, 1 : K + 1]
        what = {"what": f"k = {K}, n = {n}, d = {d}"}
        yield Question(what, arrays, contenders, {"distances": expected}, repetitions)
    for n, m, d in [(400, 30, 8)] if quick else CODES[device]:
        arrays = {"x": normal(n, d, seed=n), "codes": normal(m, d, seed=m + 1)}
        options, needs = {"first": FIRST}, {"GEMM fp32": 2.0 * n * m * d}
        contenders = [
            Contender("lamina", "bench.nearest:codes_through_lamina", options, needs=needs),
            Contender("torch in blocks", "bench.nearest:codes_by_argmin", options, needs=needs),
        ]
        expected = differences(arrays["x"][:FIRST], arrays["codes"]).min(1)
        what = {"what": f"argmin, n = {n}, {m} codes, d = {d}"}
        yield Question(what, arrays, contenders, {"distances": expected}, repetitions)


def normal(n: int, d: int, *, seed: int) -> np.ndarray:
    """Return rows [n, d] in float32."""
    return np.random.default_rng(seed).standard_normal((n, d), np.float32)


def differences(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Return squared distances from differences in float64."""
    a, b = torch.from_numpy(x).double(), torch.from_numpy(y).double()
    return torch.cdist(a, b, compute_mode="donot_use_mm_for_euclid_dist").square().numpy()


def through_lamina(x: np.ndarray, *, device: str, k: int, first: int) -> Callable[[], Result]:
    rows = torch.from_numpy(x).to(device)
    return lambda: {"distances": gram.nearest(rows, None, k, exclude="self").distances[:first]}


def by_scikit_learn(x: np.ndarray, *, device: str, k: int, first: int) -> Callable[[], Result]:
    """Its brute force, a product and a heap a row; each row's own is the nearest."""
    from sklearn.neighbors import NearestNeighbors

    model = NearestNeighbors(n_neighbors=k + 1, algorithm="brute").fit(x)
    return lambda: {"distances": np.square(model.kneighbors(x)[0][:first, 1:])}


def by_topk(x: np.ndarray, *, device: str, k: int, first: int) -> Callable[[], Result]:
    """What one writes in torch: distances of a block of rows to all, and the smallest of each."""
    rows = torch.from_numpy(x).to(device)

    def run() -> Result:
        norms, found = rows.square().sum(1), []
        for block in rows.split(max(1, TILE // len(rows))):
            far = torch.addmm(norms, block, rows.T, alpha=-2).topk(k + 1, largest=False).values
            found.append(far + block.square().sum(1, keepdim=True))
        return {"distances": torch.cat(found)[:first, 1:]}

    return run


def codes_through_lamina(x: np.ndarray, codes: np.ndarray, *, device: str, first: int) -> Callable[[], Result]:
    rows, others = torch.from_numpy(x).to(device), torch.from_numpy(codes).to(device)
    return lambda: {"distances": gram.argmin(rows, others).distances[:first]}


def codes_by_argmin(x: np.ndarray, codes: np.ndarray, *, device: str, first: int) -> Callable[[], Result]:
    """What one writes in torch, with counts and sums of the rows of each code."""
    rows, others = torch.from_numpy(x).to(device), torch.from_numpy(codes).to(device)

    def run() -> Result:
        norms, found = others.square().sum(1), []
        sums, counts = torch.zeros_like(others), torch.zeros(len(others), device=device)
        for block in rows.split(max(1, TILE // len(others) // 8)):
            far, at = torch.addmm(norms, block, others.T, alpha=-2).min(1)
            found.append(far + block.square().sum(1))
            sums.index_add_(0, at, block)
            counts += at.bincount(minlength=len(others))
        return {"distances": torch.cat(found)[:first]}

    return run


if __name__ == "__main__":
    main()
