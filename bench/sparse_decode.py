"""How fast are rows decoded from sparse codes, and the gradients of that, beside dense products?"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from bench import limits
from bench.agreement import Within
from bench.command import best_device, is_quick
from bench.harness import TIMES, Contender, cells, compare, peaks, speeds
from bench.table import Table
from lamina_kernels.sparse import Codes, decode

SIZES = {"cpu": [(4096, 65_536, 768, 32)], "cuda": [(8192, 131_072, 2048, 32)]}
"""Rows, units, width, entries of a row."""
REPETITIONS = {"cpu": 15, "cuda": 9}
"""Of the others; of dense products, which take some hundred times as long, one on a CPU."""
FIRST = 256
"""Rows of results that are compared with the truth: of a gradient by the dictionary, units."""
RULE = Within(2e-5)

# What the roofline says, written before the first full run.
EXPECTED = [
    "expected, CPU: n k d numbers are gathered once for the rows and once for each gradient, by the speed of a copy; "
    "the dense product takes M / k times as many operations: a hundred times as long at k = 32 of M = 65,536; the "
    "gradient of the dictionary writes M d numbers to fresh pages, which takes longer than what is gathered for it",
    "expected, GPU: as on a CPU, by the bandwidth of its memory",
]

Result = Mapping[str, Tensor]
Step = Callable[[Tensor, Tensor, Tensor], Tensor]


def main(argv: Sequence[str] | None = None) -> None:
    quick = is_quick(__doc__, argv)
    device = best_device()
    machine = [limits.copy(device, 2**20 if quick else 2**28), limits.gemm("fp32", device, 128 if quick else None)]
    rows, samples = [], {}
    for what, arrays, contenders, expected in questions(device, quick=quick):
        for kind in ("sparse", "dense"):
            asked = [contender for contender in contenders if (contender.name == "dense") == (kind == "dense")]
            seconds = compare(
                asked,
                arrays,
                expected,
                rule=RULE,
                limits=machine,
                repetitions=1 if quick or (kind == "dense" and device == "cpu") else REPETITIONS[device],
                device=device,
                peers=None,
                description=f"{what}, {kind}",
            )
            samples[f"{what}, {kind}"] = seconds
            added = {} if quick else peaks(asked, arrays, device=device, description=what)
            for contender in asked:
                row = {"what": what, "by": contender.name} | cells(contender, machine, seconds)
                row["peak, MiB"] = added[contender.name] / 2**20 if added else None
                rows.append(row)
    Table(
        question="How fast are rows decoded from sparse codes, and the gradients of that?",
        columns=["what", "by", *TIMES, "peak, MiB"],
        rows=rows,
        notes=[
            f"float32; ids at random, values normal; interleaved repetitions (on a CPU {REPETITIONS['cpu']}, of dense "
            f"products one) after a comparison of {FIRST} rows (of a gradient: of {FIRST} units) with gathered atoms "
            f"in float64: {RULE}",
            "dense: the codes as a matrix, times the dictionary; embedding_bag: with weights, as torch has it; CSR: "
            "torch.sparse_csr_tensor times the dictionary (its gradient fails in torch where a row names a unit twice)",
            "gather, scatter: an own transcription of how EleutherAI's sparsify decodes: a bag; backward the products "
            "of all entries and rows are held, and added by index",
            "lamina sums in one order, whatever the number of threads",
            "peak: what the first call adds to a fresh process that holds the arrays, by VmHWM (on a GPU: by torch's "
            "allocator)",
            *EXPECTED,
            speeds(machine, samples.values()),
        ],
        packages=["lamina-kernels", "torch", "numpy"],
        samples=samples,
    ).publish("sparse_decode", device=device, quick=quick)


def questions(device: str, *, quick: bool) -> Iterator[tuple[str, dict[str, np.ndarray], list[Contender], Result]]:
    """Yield what is asked, of what arrays, of whom, and the true answer for the first rows."""
    copy = "device copy" if device == "cuda" else "memcpy"
    for n, units, d, k in [(64, 200, 16, 4)] if quick else SIZES[device]:
        random = np.random.default_rng(n)
        arrays = {
            "values": random.standard_normal((n, k), np.float32),
            "ids": random.integers(0, units, (n, k), np.int32),
            "dictionary": random.standard_normal((units, d), np.float32),
            "g": random.standard_normal((n, d), np.float32),
        }
        for backward in (False, True):
            gathered = 4.0 * n * k * d
            needs = {copy: 3 * gathered + 4.0 * units * d if backward else gathered}
            dense = {"GEMM fp32": 2.0 * n * units * d * (3 if backward else 1)}
            contenders = [
                Contender(name, "bench.sparse_decode:run", {"way": name, "backward": backward}, needs=own)
                for name, own in (
                    ("lamina", needs),
                    ("embedding_bag", needs),
                    ("CSR", needs),
                    ("gather, scatter", needs),
                    ("dense", dense),
                )
                if not (backward and name == "CSR")
            ]
            yield (
                f"decode{' and its gradients' if backward else ''}, n = {n}, k = {k} of M = {units}, d = {d}",
                arrays,
                contenders,
                truth(**arrays, backward=backward),
            )


def truth(values: np.ndarray, ids: np.ndarray, dictionary: np.ndarray, g: np.ndarray, *, backward: bool) -> Result:
    """Return the first rows, and the gradients of the first values and units, in float64."""
    v, w, h = (torch.from_numpy(each).double() for each in (values, dictionary, g))
    at = torch.from_numpy(ids).long()
    found = {"rows": (v[:FIRST, :, None] * w[at[:FIRST]]).sum(1)}
    if backward:
        found["of values"] = (h[:FIRST, None] * w[at[:FIRST]]).sum(2)
        row, place = (at < FIRST).nonzero().unbind(1)
        of_units = torch.zeros(min(FIRST, len(w)), w.shape[1]).double()
        found["of atoms"] = of_units.index_add(0, at[row, place], v[row, place, None] * h[row])
    return found


def run(
    values: np.ndarray, ids: np.ndarray, dictionary: np.ndarray, g: np.ndarray, *, device: str, way: str, backward: bool
) -> Callable[[], Result]:
    """Decode in one of the ways, and differentiate."""
    v, w = (torch.from_numpy(each).to(device).requires_grad_(backward) for each in (values, dictionary))
    at, h = torch.from_numpy(ids).to(device), torch.from_numpy(g).to(device)

    def step() -> Result:
        out = WAYS[way](v, at, w)
        if not backward:
            return {"rows": out[:FIRST]}
        of_values, of_atoms = torch.autograd.grad(out, (v, w), h)
        return {"rows": out[:FIRST], "of values": of_values[:FIRST], "of atoms": of_atoms[:FIRST]}

    return step


def through_lamina(values: Tensor, ids: Tensor, dictionary: Tensor) -> Tensor:
    return decode(Codes(values, ids, len(dictionary), check=False), dictionary)


def by_embedding_bag(values: Tensor, ids: Tensor, dictionary: Tensor) -> Tensor:
    return torch.nn.functional.embedding_bag(ids, dictionary, per_sample_weights=values, mode="sum")


def by_csr(values: Tensor, ids: Tensor, dictionary: Tensor) -> Tensor:
    n, k = ids.shape
    offsets = torch.arange(n + 1, device=ids.device, dtype=ids.dtype) * k
    # Ids must ascend within a row.
    ids, order = ids.sort(dim=1)
    parts = offsets, ids.flatten(), values.gather(1, order).flatten()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Sparse CSR tensor support is in beta")
        matrix = torch.sparse_csr_tensor(*parts, (n, len(dictionary)), check_invariants=False)
    return matrix @ dictionary


class _GatherScatter(torch.autograd.Function):
    """Forward a bag; backward the products of all entries and rows at once, added by index."""

    @staticmethod
    def forward(ctx: Any, values: Tensor, ids: Tensor, dictionary: Tensor) -> Tensor:
        ctx.save_for_backward(values, ids, dictionary)
        return by_embedding_bag(values, ids, dictionary)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        values, ids, dictionary = ctx.saved_tensors
        (g,) = gradients
        of_values = torch.bmm(dictionary[ids.long()], g[:, :, None])[:, :, 0]
        products = (values[:, :, None] * g[:, None]).flatten(0, 1)
        return of_values, None, torch.zeros_like(dictionary).index_add_(0, ids.flatten(), products)


def by_gather_and_scatter(values: Tensor, ids: Tensor, dictionary: Tensor) -> Tensor:
    return _GatherScatter.apply(values, ids, dictionary)  # pyright: ignore[reportReturnType]


def by_dense(values: Tensor, ids: Tensor, dictionary: Tensor) -> Tensor:
    matrix = values.new_zeros(len(values), len(dictionary)).scatter_add(1, ids.long(), values)
    return matrix @ dictionary


WAYS: dict[str, Step] = {
    "lamina": through_lamina,
    "embedding_bag": by_embedding_bag,
    "CSR": by_csr,
    "gather, scatter": by_gather_and_scatter,
    "dense": by_dense,
}


if __name__ == "__main__":
    main()
