"""How much longer does attention take that also says what its heads do?

On a CPU the form `blocked`, on a GPU the form `triton` in bfloat16, beside torch's fused attention without statistics.
Ten minutes on 2 cores, most of them for attention that holds its pattern.
"""

from __future__ import annotations

import itertools
import math
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from typing import Any

import numpy as np
import torch

from bench import limits
from bench.agreement import Within
from bench.clock import timed
from bench.command import best_device, is_quick
from bench.harness import TIMES, Contender, cells, compare, peaks, speeds
from bench.table import Table, spread
from bench.worker import resolve
from lamina_kernels import attention

Result = dict[str, torch.Tensor]

HEADS = {"cpu": 8, "cuda": 16}
LENGTHS = {"cpu": [4096], "cuda": [1024, 4096, 8192, 16384, 65536]}
# Longer patterns are not held.
PATTERN = {"cpu": 4096, "cuda": 8192}
DIMS = {"cpu": [64, 128], "cuda": [64, 128, 256]}
CAUSAL = {"cpu": [True], "cuda": [True, False]}
LONG = 32768
REPETITIONS = 7
RULE = {"cpu": Within(1e-5), "cuda": Within(2e-2)}
DIVERGENCES = ("kl", "js", "tv")
WORKS = ("forward", "both", *DIVERGENCES)
FORWARD = "one forward"
# Rows of the result that are compared with float64, spread over all.
SHOWN = 64
# torch's own, by name, with what it calls them.
BACKENDS = {"torch, cuDNN": "CUDNN_ATTENTION", "torch, flash": "FLASH_ATTENTION"}

# What each tier adds to the output.
STATISTICS = {
    "none": (),
    "lse, max, entropy": ("lse", "max", "entropy"),
    "these, argmax, sum p2, distance": ("lse", "max", "entropy", "argmax", "sum_p2", "distance"),
    "lse, received": ("lse", "received"),
}

# The last is from before the first full run, by passes over tiles that were timed alone on a quiet machine.
GOALS = [
    "goal on 2 CPU cores, forward with lse, max and entropy at 4096: at most 1.75 times torch's fused attention "
    "without statistics at D = 64, 1.5 times at D = 128",
    "goals on an H100, bfloat16, 16384: 420 TFLOP/s forward with lse, max and entropy at D = 128, which add at most "
    "5 % (7 % at D = 64); with argmax, sum of squares and distance at most 15 % (20 %); with received mass at most 1.7 "
    "times the forward pass; forward and backward 300 TFLOP/s by the convention of 3.5 times the forward's; entropy "
    "with its gradient at 8192 at least 20 times as fast as from the pattern; a divergence at most 2.2 forward passes",
    "expected on 2 CPU cores at 4096, D = 64, with entropy: 47 + 49 ms of products, 22 ms of exp2, 13 ms of other "
    "passes over tiles, 6 % for the diagonal, against 124 ms of torch's fused attention: 1.1 to 1.4 times",
]


def main(argv: Sequence[str] | None = None) -> None:
    quick = is_quick(__doc__, argv)
    device = best_device()
    kind = "fp32" if device == "cpu" else "bf16"
    machine = [limits.gemm(kind, device, 128 if quick else None)]
    if device == "cpu":
        machine.append(limits.exp())
    cases = itertools.product(CAUSAL[device], [200] if quick else LENGTHS[device], DIMS[device][: 1 if quick else None])
    rows: list[dict[str, Any]] = []
    samples = {}
    for causal, n, dim in cases:
        arrays = normal(HEADS[device], n, dim)
        for work in WORKS:
            contenders = [c for c in forms(device, causal, n, dim, work) if takes_part(c, dim, device)]
            what = f"{work}, n = {n}, D = {dim}{', causal' if causal else ''}"
            beside = [*machine]
            if work in DIVERGENCES:
                beside.append(one_forward(arrays, device, causal))
            seconds = compare(
                contenders,
                arrays,
                truth(arrays, device, causal, work),
                rule=RULE[device],
                limits=beside,
                repetitions=1 if quick else REPETITIONS,
                device=device,
                peers=None,
                description=what,
            )
            samples[what] = seconds
            added = {} if quick else peaks(contenders, arrays, device=device, description=what)
            fused = spread(seconds[contenders[0].name]).median
            for contender in contenders:
                took = spread(seconds[contender.name]).median
                row = {"pass": work, "causal": causal, "n": n, "D": dim, "form": contender.name}
                row |= cells(contender, beside, seconds)
                if work not in DIVERGENCES:
                    row["TFLOP/s"] = flop(n, dim, HEADS[device], causal, work) / took / 1e12
                    row["x fused"] = took / fused
                row["peak, MiB"] = added[contender.name] / 2**20 if added else None
                rows.append(row)
    if not quick:
        rows += long(device)
    Table(
        question="How much longer does attention take that also says what its heads do?",
        columns=["pass", "causal", "n", "D", "form", *TIMES, "TFLOP/s", "x fused", "peak, MiB"],
        rows=rows,
        notes=[
            f"{kind}, one sequence, {HEADS[device]} heads; {REPETITIONS} interleaved repetitions after a comparison of "
            f"the outputs with float64: {RULE[device]}",
            "TFLOP/s by convention: 4 H n² D forward, half if causal, 3.5 times that for both passes; x fused: of the "
            "first form's time",
            f"compared with float64: {SHOWN} queries of each head; a divergence is measured by one forward pass with "
            "lse, max and entropy in the same turns: 45 % of that limit are 2.2 times as long",
            "peak: what the first call adds to a fresh process, by VmHWM (on a GPU: by torch's allocator); rows "
            "without times are measured for it alone, with one head",
            *GOALS,
            speeds(machine, samples.values()),
        ],
        packages=["lamina-kernels", "torch", "triton"],
        samples=samples,
    ).publish("attention", device=device, quick=quick)


def flop(n: int, dim: int, heads: int, causal: bool, work: str) -> float:
    """Return the operations of a pass by convention."""
    return 4.0 * heads * n * n * dim / (2 if causal else 1) * (3.5 if work == "both" else 1)


def normal(heads: int, n: int, dim: int) -> dict[str, np.ndarray]:
    """Return queries, keys and values [1, heads, n, dim] in float32."""
    generator = np.random.default_rng(n + dim)
    return {name: generator.standard_normal((1, heads, n, dim), np.float32) for name in "qkv"}


def forms(device: str, causal: bool, n: int, dim: int, work: str) -> Iterator[Contender]:
    """List who takes part in a work; what the others are compared with comes first."""
    amount = flop(n, dim, HEADS[device], causal, work)
    needs = {"GEMM fp32" if device == "cpu" else "GEMM bf16": amount}
    if device == "cpu":
        needs["exp fp32"] = HEADS[device] * n * n / (2 if causal else 1)
    if work in DIVERGENCES:
        for known in (False, True):
            asked = {"causal": causal, "kind": work, "known": known}
            name = f"{work.upper()} of two patterns{', log-sum-exps known' if known else ''}"
            yield Contender(name, "bench.attention:diverging", asked, needs={FORWARD: amount})
        return
    options = {"causal": causal, "both": work == "both"}
    for name, backend in {"torch, fused": None}.items() if device == "cpu" else BACKENDS.items():
        yield Contender(name, "bench.attention:fused", options | {"backend": backend}, needs=needs)
    if n <= PATTERN[device]:
        yield Contender("torch, eager, entropy of the pattern", "bench.attention:eager", options, needs=needs)
    if device != "cpu":
        yield Contender("FlexAttention, lse and max", "bench.attention:flex", options, needs=needs)
    form = "blocked" if device == "cpu" else "triton"
    for name, statistics in STATISTICS.items():
        asked = options | {"statistics": statistics, "impl": form}
        yield Contender(f"{form}: {name}", "bench.attention:op", asked, needs=needs)


def takes_part(contender: Contender, dim: int, device: str) -> bool:
    """Return whether torch's own attention can do this at all: some of its backends refuse some widths.

    Of ours, and on a CPU, all can: whatever they raise ends the run.
    """
    if device == "cpu" or not contender.name.startswith(("torch, ", "Flex")):
        return True
    try:
        resolve(contender.call)(**normal(HEADS[device], 256, dim), device=device, **contender.options)()
    except RuntimeError as error:
        print(f"{contender.name}, D = {dim}, {dict(contender.options)}: {str(error).splitlines()[0]}", file=sys.stderr)
        return False
    return True


def one_forward(arrays: dict[str, np.ndarray], device: str, causal: bool) -> limits.Limit:
    """Return what a divergence is measured by: a forward pass with log-sum-exp, maximum and entropy."""
    run = op(
        **arrays,
        device=device,
        causal=causal,
        both=False,
        statistics=STATISTICS["lse, max, entropy"],
        impl="blocked" if device == "cpu" else "triton",
    )
    _, heads, n, dim = arrays["q"].shape
    return limits.Limit(FORWARD, "FLOP", flop(n, dim, heads, causal, "forward"), timed(run, device))


def long(device: str) -> list[dict[str, Any]]:
    """Return rows that tell the peak of memory of one head at many keys."""
    rows = []
    for n in (4096, LONG):
        arrays = normal(1, n, 64)
        some = [c for c in forms(device, True, LONG, 64, "forward") if "received" not in c.name]
        for name, added in peaks(some, arrays, device=device, description=f"n = {n}").items():
            rows.append({"pass": "forward", "causal": True, "n": n, "D": 64, "form": name, "peak, MiB": added / 2**20})
    return rows


def op(
    q: np.ndarray, k: np.ndarray, v: np.ndarray, *, device: str, causal: bool, both: bool, statistics: Any, impl: Any
) -> Callable[[], Result]:
    """`lamina_kernels.attention.attend` in one of its forms, with the gradient of the entropy, if it is asked for."""

    def run(*rows: torch.Tensor) -> tuple[torch.Tensor, ...]:
        out, stats, form = attention.attend(*rows, causal=causal, statistics=statistics, impl=impl)
        assert form == impl
        assert all(getattr(stats, name) is not None for name in statistics)
        return (out,) if stats.entropy is None else (out, stats.entropy)

    return _passes(run, (q, k, v), device, both)


def fused(
    q: np.ndarray, k: np.ndarray, v: np.ndarray, *, device: str, causal: bool, both: bool, backend: str | None
) -> Callable[[], Result]:
    """Torch's fused attention, without statistics, by the backend of a name or by the one that it takes itself."""
    from torch.nn.attention import SDPBackend, sdpa_kernel

    def run(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> tuple[torch.Tensor, ...]:
        with nullcontext() if backend is None else sdpa_kernel(getattr(SDPBackend, backend)):
            return (torch.nn.functional.scaled_dot_product_attention(q, k, v, is_causal=causal),)

    return _passes(run, (q, k, v), device, both)


def eager(
    q: np.ndarray, k: np.ndarray, v: np.ndarray, *, device: str, causal: bool, both: bool
) -> Callable[[], Result]:
    """What one writes in torch: the pattern, and its entropy."""

    def run(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> tuple[torch.Tensor, ...]:
        scores = q @ k.mT * q.shape[3] ** -0.5
        if causal:
            hidden = torch.ones(scores.shape[2:], dtype=torch.bool, device=q.device).triu(1)
            scores = scores.masked_fill(hidden, -torch.inf)
        p = scores.softmax(-1)
        return p @ v, torch.special.entr(p).sum(-1)

    return _passes(run, (q, k, v), device, both)


def flex(q: np.ndarray, k: np.ndarray, v: np.ndarray, *, device: str, causal: bool, both: bool) -> Callable[[], Result]:
    """FlexAttention, compiled, with the two statistics that it has."""
    from torch.nn.attention.flex_attention import AuxRequest, create_block_mask, flex_attention

    n = q.shape[2]
    blocks = create_block_mask(lambda b, h, i, j: i >= j, None, None, n, n, device=device) if causal else None
    compiled = torch.compile(flex_attention, fullgraph=True)

    def run(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return (compiled(q, k, v, block_mask=blocks, return_aux=AuxRequest(lse=True, max_scores=True))[0],)

    return _passes(run, (q, k, v), device, both)


def diverging(
    q: np.ndarray, k: np.ndarray, v: np.ndarray, *, device: str, causal: bool, kind: Any, known: bool
) -> Callable[[], Result]:
    """`lamina_kernels.attention.divergence` of heads that look at k from heads that look at v, in its fastest form.

    Their log-sum-exps are known of an earlier pass, or not.
    """
    first, own, other = (_rows(x, device) for x in (q, k, v))
    lse: Any = None
    if known:
        passes = (attention.attend(first, keys, causal=causal, statistics=("lse",)) for keys in (own, other))
        lse = tuple(one.stats.lse for one in passes)

    def run() -> Result:
        with torch.no_grad():
            found = attention.divergence(first, own, first, other, kind=kind, lse=lse, causal=causal)
            return {kind: shown(found.value)}

    return run


def _passes(
    run: Callable[..., tuple[torch.Tensor, ...]], arrays: Sequence[np.ndarray], device: str, both: bool
) -> Callable[[], Result]:
    """Make a function that runs the forward pass, or both with gradients of all that the forward returned."""
    rows = [_rows(x, device).requires_grad_(both) for x in arrays]

    def forward() -> Result:
        with torch.no_grad():
            return {"out": shown(run(*rows)[0])}

    def forward_and_backward() -> Result:
        found = run(*rows)
        torch.autograd.grad(found, rows, [torch.ones_like(x) for x in found])
        return {"out": shown(found[0].detach())}

    return forward_and_backward if both else forward


def _rows(array: np.ndarray, device: str) -> torch.Tensor:
    return torch.from_numpy(array).to(device, torch.float32 if device == "cpu" else torch.bfloat16)


def shown(x: torch.Tensor) -> torch.Tensor:
    """Return what is compared of a result [1, heads, n, …]: a view."""
    return x[:, :, :: max(1, x.shape[2] // SHOWN)]


def truth(arrays: dict[str, np.ndarray], device: str, causal: bool, work: str) -> dict[str, torch.Tensor]:
    """Return the results in float64, by whole patterns of the queries that are shown."""
    q, k, v = (_rows(arrays[name], device).double() for name in "qkv")
    number, n = shown(torch.arange(q.shape[2], device=device)[None, None])[0, 0], q.shape[2]
    hidden = number[:, None] < torch.arange(n, device=device) if causal else torch.zeros((), device=device).bool()
    one, other = (
        (shown(q) @ rows.mT * q.shape[3] ** -0.5).masked_fill(hidden, -torch.inf).log_softmax(-1) for rows in (k, v)
    )
    p, r = one.exp(), other.exp()
    middle = torch.logaddexp(one, other) - math.log(2)
    if work == "kl":
        return {work: torch.where(p > 0, p * (one - other), 0).sum(-1)}
    if work == "js":
        return {work: torch.where(p > 0, p * (one - middle) + r * (other - middle), 0).sum(-1) / 2}
    return {work: (p - r).abs().sum(-1) / 2} if work == "tv" else {"out": p @ v}


if __name__ == "__main__":
    main()
