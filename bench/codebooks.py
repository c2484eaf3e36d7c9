"""How fast do codebooks quantise rows, and follow them by moving averages?"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import nullcontext

import numpy as np
import torch

from bench import limits, paths
from bench.agreement import Within
from bench.command import best_device, is_quick
from bench.harness import TIMES, Contender, Question, answers, peers_of, speeds
from bench.nearest import differences, normal
from bench.table import Table
from lamina_kernels.sparse import Codebook, quantize

SIZES = {"cpu": [(16_384, 1024, 64), (16_384, 8192, 256)], "cuda": [(131_072, 8192, 256)]}
"""Rows, codes and their width."""
REPETITIONS = 5
FIRST = 256
"""Rows whose result is compared with the truth."""
RULE = Within(1e-4)

Ready = Callable[[], Mapping[str, torch.Tensor]]

EXPECTED = [
    "expected, CPU: all need 2 n M d operations for the nearest codes; who writes the n x M distances moves 12 bytes "
    "for each, a third of the product's time at d = 64 and a tenth at d = 256; a step adds passes over n d numbers",
]


def main(argv: Sequence[str] | None = None) -> None:
    quick = is_quick(__doc__, argv)
    device = best_device()
    machine = [limits.gemm("fp32", device, 128 if quick else None)]
    versions = {}
    with peers_of(quick) if paths.PEERS.exists() else nullcontext() as peers:
        asked = questions(device, quick=quick, with_peers=peers is not None)
        rows, samples = answers(asked, rule=RULE, limits=machine, device=device, peers=peers, quick=quick)
        if peers is not None:
            versions = peers.ask("versions", packages=["vector-quantize-pytorch"])
    Table(
        question="How fast do codebooks quantise rows, and follow them by moving averages?",
        columns=["what", "by", *TIMES, "peak, MiB"],
        rows=rows,
        notes=[
            "float32 rows and codes of normal numbers; interleaved repetitions after a comparison of the squared "
            f"distances of {FIRST} rows from their codes with differences in float64: {RULE}",
            "nearest: the nearest code of each row, without gradients; a step: also moving averages of the codes, and "
            "a gradient by the rows that goes straight through",
            "vector-quantize-pytorch runs in the same turns, in a process of its own environment; torch: cdist, argmin "
            "and index_add",
            "lamina's codes are exact: distances from differences in float64 decide",
            "peak: what the first call adds to a fresh process that holds rows and codes, by VmHWM (on a GPU: by "
            "torch's allocator)",
            *EXPECTED,
            speeds(machine, samples.values()),
        ],
        packages=["lamina-kernels", "torch"],
        versions=versions,
        samples=samples,
    ).publish("codebooks", device=device, quick=quick)


def questions(device: str, *, quick: bool, with_peers: bool) -> Iterator[Question]:
    """Yield what is asked; the true answer is that of the first rows."""
    for n, m, d in [(300, 20, 8)] if quick else SIZES[device]:
        arrays = {"x": normal(n, d, seed=n), "codes": normal(m, d, seed=m)}
        expected = {"distances": differences(arrays["x"][:FIRST], arrays["codes"]).min(1)}
        for kind in ("nearest", "step"):
            needs = {"GEMM fp32": 2.0 * n * m * d}
            calls = {"lamina": f"bench.codebooks:lamina_{kind}", "torch": f"bench.codebooks:torch_{kind}"}
            contenders = [Contender(name, call, {"first": FIRST}, needs=needs) for name, call in calls.items()]
            if with_peers:
                call = f"bench.peer_calls.vector_quantize:{kind}"
                contenders.append(Contender("vector-quantize-pytorch", call, {"first": FIRST}, peer=True, needs=needs))
            what = {"what": f"{'a step' if kind == 'step' else kind}, n = {n}, {m} codes, d = {d}"}
            yield Question(what, arrays, contenders, expected, 1 if quick else REPETITIONS)


def ready(x: np.ndarray, codes: np.ndarray, device: str) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.from_numpy(x).to(device), torch.from_numpy(codes).to(device)


def lamina_nearest(x: np.ndarray, codes: np.ndarray, *, device: str, first: int) -> Ready:
    rows, book = ready(x, codes, device)
    return lambda: {"distances": quantize(rows, book).distances[:first, 0]}


def lamina_step(x: np.ndarray, codes: np.ndarray, *, device: str, first: int) -> Ready:
    rows, book = ready(x, codes, device)
    rows.requires_grad_()
    state = Codebook.starting(book)

    def run() -> Mapping[str, torch.Tensor]:
        found = quantize(rows, state.codes)
        torch.autograd.grad(found.output.square().sum(), rows)
        state.updated(rows, found.codes, decay=0.99)
        return {"distances": found.distances[:first, 0].detach()}

    return run


def torch_nearest(x: np.ndarray, codes: np.ndarray, *, device: str, first: int) -> Ready:
    rows, book = ready(x, codes, device)
    return lambda: {"distances": torch.cdist(rows, book).min(1).values[:first].square()}


def torch_step(x: np.ndarray, codes: np.ndarray, *, device: str, first: int) -> Ready:
    rows, book = ready(x, codes, device)
    rows.requires_grad_()
    counts, sums = torch.ones(len(book), device=device), book.clone()

    def run() -> Mapping[str, torch.Tensor]:
        least, ids = torch.cdist(rows.detach(), book).min(1)
        output = rows + (book[ids] - rows).detach()
        torch.autograd.grad(output.square().sum(), rows)
        seen = torch.zeros_like(counts).index_add(0, ids, torch.ones_like(least))
        moved = torch.zeros_like(sums).index_add(0, ids, rows.detach())
        _ = (0.99 * sums + 0.01 * moved) / (0.99 * counts + 0.01 * seen)[:, None]
        return {"distances": least[:first].square()}

    return run


if __name__ == "__main__":
    main()
