"""How fast is a training step of a TopK autoencoder, and in how much memory, beside torch's topk and dense products?"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch

from bench import limits
from bench.agreement import Within
from bench.command import best_device, is_quick
from bench.harness import TIMES, Contender, cells, compare, peaks, speeds
from bench.table import Table
from lamina_kernels.sparse import TopK, decode, encode

SIZES = {"cpu": (4096, 384, 8192, 32), "cuda": (8192, 1024, 131_072, 32)}
"""Rows, their width, units, and how many of these are kept."""
REPETITIONS = 5
RULE = Within(1e-4)

Result = Mapping[str, torch.Tensor | np.ndarray]

# What the roofline says, written before the first full run.
EXPECTED = [
    "expected, CPU: dense, five products of 2 n d M operations (encoding, decoding, and the gradients of codes, "
    "dictionary and weight); sparse, one of them, a third of its time for the selection, and four passes over n k "
    "rows: 3 to 4 times faster",
    "expected, memory: dense, the pre-activations, the codes and the gradients of both, n M numbers each; sparse, "
    "the gradients of the two matrices, which both have, and a tile",
]


def main(argv: Sequence[str] | None = None) -> None:
    quick = is_quick(__doc__, argv)
    device = best_device()
    n, d, m, k = (64, 8, 256, 4) if quick else SIZES[device]
    machine = [limits.gemm("fp32", device, 128 if quick else None)]
    arrays = drawn(n, d, m)
    options = {"k": k}
    product = 2.0 * n * d * m
    contenders = [
        Contender("lamina", "bench.sparse_step:sparse", options, needs={"GEMM fp32": product}),
        Contender("torch topk + dense", "bench.sparse_step:dense", options, needs={"GEMM fp32": 5 * product}),
    ]
    what = f"n = {n:,}, d = {d}, M = {m:,}, k = {k}"
    expected = dense(**arrays, device=device, k=k)()
    seconds = compare(
        contenders,
        arrays,
        expected,
        rule=RULE,
        limits=machine,
        repetitions=1 if quick else REPETITIONS,
        device=device,
        peers=None,
        description=what,
    )
    added = {} if quick else peaks(contenders, arrays, device=device, description=what)
    rows = [
        {"what": what, "by": contender.name}
        | cells(contender, machine, seconds)
        | {"peak, MiB": added[contender.name] / 2**20 if added else None}
        for contender in contenders
    ]
    Table(
        question="How fast is a training step of a TopK autoencoder, and in how much memory?",
        columns=["what", "by", *TIMES, "peak, MiB"],
        rows=rows,
        notes=[
            "float32; encode, decode, the mean squared error, and its gradients by both matrices and both biases; rows "
            f"are sums of three of the dictionary's atoms and noise; equal losses and gradients first: {RULE}",
            "torch topk + dense: linear, topk, scatter, a product with the dictionary, and autograd",
            "peak: what the first call adds to a fresh process that holds rows and parameters, by VmHWM (on a GPU: by "
            "torch's allocator)",
            *EXPECTED,
            speeds(machine, [seconds]),
        ],
        packages=["lamina-kernels", "torch"],
        samples={what: seconds},
    ).publish("sparse_step", device=device, quick=quick)


def drawn(n: int, d: int, m: int) -> dict[str, np.ndarray]:
    """Return rows and parameters."""
    generator = np.random.default_rng(0)
    dictionary = generator.standard_normal((m, d), np.float32) / np.float32(d**0.5)
    weight = dictionary + 0.5 * generator.standard_normal((m, d), np.float32) / np.float32(d**0.5)
    atoms = generator.integers(0, m, (n, 3))
    x = dictionary[atoms].sum(1) + 0.3 * generator.standard_normal((n, d), np.float32) / np.float32(d**0.5)
    return {"x": x, "weight": weight, "bias": np.zeros(m, np.float32), "dictionary": dictionary}


def step(
    forward: Callable[..., torch.Tensor], device: str, x: np.ndarray, *parameters: np.ndarray
) -> Callable[[], Result]:
    """Return a call that computes the loss of a reconstruction and its gradients."""
    rows = torch.from_numpy(x).to(device)
    leaves = [torch.from_numpy(p).to(device).requires_grad_() for p in (*parameters, np.zeros(x.shape[1], np.float32))]
    names = ("weight", "bias", "dictionary", "bias of rows")

    def run() -> Result:
        loss = (forward(rows, *leaves) - rows).square().mean()
        return {"loss": loss.detach(), **dict(zip(names, torch.autograd.grad(loss, leaves), strict=True))}

    return run


def sparse(
    x: np.ndarray, weight: np.ndarray, bias: np.ndarray, dictionary: np.ndarray, *, device: str, k: int
) -> Callable[[], Result]:
    def forward(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor, *rest: torch.Tensor) -> torch.Tensor:
        return decode(encode(x, weight, bias, select=TopK(k)).codes, *rest)

    return step(forward, device, x, weight, bias, dictionary)


def dense(
    x: np.ndarray, weight: np.ndarray, bias: np.ndarray, dictionary: np.ndarray, *, device: str, k: int
) -> Callable[[], Result]:
    """What one writes in torch."""

    def forward(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor, *rest: torch.Tensor) -> torch.Tensor:
        pre = torch.nn.functional.linear(x, weight, bias)
        values, ids = pre.topk(k, dim=1, sorted=False)
        codes = torch.zeros_like(pre).scatter(1, ids, values.relu())
        return torch.addmm(rest[1], codes, rest[0])

    return step(forward, device, x, weight, bias, dictionary)


if __name__ == "__main__":
    main()
