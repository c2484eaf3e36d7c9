"""Gradients of `attend` and `divergence`, through whatever scores, normalizers and biases hold."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch

from lamina_kernels.attention import (
    ALiBi,
    Cosine,
    KeyBias,
    RelativeBias,
    Sigmoid,
    Softmax,
    SquaredDistance,
    attend,
    block_mask,
    divergence,
)
from tests.kernels import attention_faults as _  # noqa: F401
from tests.kernels.attention_checks import Attend, tensors
from tests.kernels.hsic_checks import normal

# What is differentiated: options of `attend` that hold leaves; and queries, keys and, but for "no values", values.
LEARNED: dict[str, Callable[[], tuple[list[torch.Tensor], Callable[..., dict[str, Any]]]]] = {
    "dot": lambda: ([], lambda: {"causal": True}),
    "cosine": lambda: ([_leaf(2).abs() + 0.5], lambda t: {"score": Cosine(t)}),
    "distance": lambda: ([_leaf(1).abs() + 1], lambda b: {"score": SquaredDistance(b), "window": (3, 1)}),
    "sink": lambda: ([_leaf(2)], lambda s: {"normalizer": Softmax(sink=s), "causal": True}),
    "softcap": lambda: ([_leaf(2)], lambda s: {"normalizer": Softmax(softcap=2.0), "bias": ALiBi(s)}),
    "sigmoid": lambda: ([_leaf(2)], lambda b: {"normalizer": Sigmoid(b), "causal": True}),
    "alibi": lambda: ([_leaf(2)], lambda s: {"bias": ALiBi(s), "causal": True}),
    "relative": lambda: ([_leaf(2, 7)], lambda t: {"bias": RelativeBias(t)}),
    "keys": lambda: ([_leaf(2, 7)], lambda w: {"bias": KeyBias(w), "score": SquaredDistance(2.0)}),
    "no values": lambda: ([_leaf(2).abs() + 0.5], lambda t: {"score": Cosine(t), "causal": True}),
    "masked": lambda: ([], lambda: {"mask": block_mask(lambda b, h, i, j: ((i + j) % 3 > 0) & (i != 2), 6, 7)}),
    "packed": lambda: (
        [],
        lambda: {
            "cu_seqlens_q": torch.tensor([0, 2, 6], dtype=torch.int32),
            "cu_seqlens_k": torch.tensor([0, 4, 7], dtype=torch.int32),
            "causal": True,
        },
    ),
}
SMOOTH = ("lse", "entropy", "max", "sum_p2", "expected_score", "distance", "received", "block_mass")
SMOOTH_OF_A_SIGMOID = ("max", "sum_p2", "received", "block_mass")


def _leaf(*shape: int) -> torch.Tensor:
    return normal(*shape, seed=40, dtype=torch.float64)


def function(
    attend: Attend, name: str, rounded: torch.dtype = torch.float64, dtype: torch.dtype = torch.float64
) -> tuple[list[torch.Tensor], Callable[..., list[torch.Tensor]]]:
    """All leaves of a case, and the function of them that returns every number with a gradient.

    Leaves are numbers of the dtype `rounded`, as tensors of `dtype`.
    """
    learned, options = LEARNED[name]()
    packed = name == "packed"
    shapes = ((6, 2, 4), (7, 1, 4), (7, 1, 3)) if packed else ((1, 2, 6, 4), (1, 1, 7, 4), (1, 1, 7, 3))
    leaves = [normal(*shape, seed=50 + n, dtype=torch.float64) for n, shape in enumerate(shapes)] + learned

    if name == "no values":
        del leaves[2]

    def smooth(q: torch.Tensor, k: torch.Tensor, *rest: torch.Tensor) -> list[torch.Tensor]:
        v, learned = (None, rest) if name == "no values" else (rest[0], rest[1:])
        statistics = SMOOTH_OF_A_SIGMOID if name == "sigmoid" else SMOOTH
        if packed and rounded == torch.float32:
            # Triton, which alone is asked for single precision, has no blocks of packed sequences.
            statistics = SMOOTH[:-1]
        targets = {"previous": -1, "any": torch.arange(6) % 4, "set": torch.arange(7) % 2 == 0}
        got = attend(q, k, v, **options(*learned), statistics=statistics, targets=targets)
        # A query that sees nothing has -inf, of which there are no differences.
        return [x.masked_fill(x == -torch.inf, 0) for x in (got.out, *tensors(got.stats))]

    return [leaf.detach().to(rounded).to(dtype).requires_grad_() for leaf in leaves], smooth


def gradients_are_differences(attend: Attend, name: str) -> None:
    """Every gradient of every output against finite differences, in float64."""
    leaves, smooth = function(attend, name)
    try:
        assert torch.autograd.gradcheck(lambda *x: tuple(smooth(*x)), leaves, fast_mode=True)
    except RuntimeError as error:  # gradcheck says what is wrong by raising
        raise AssertionError(str(error)) from error


def gradients_are_those_of_the_reference(
    attend_by: Attend, name: str, tolerance: float = 1e-9, dtype: torch.dtype = torch.float64
) -> None:
    """The gradients of random sums of all outputs; those of the reference in float64, of the same rounded leaves."""
    found = []
    for op, computed in ((attend_by, dtype), (partial(attend, impl="reference"), torch.float64)):
        leaves, smooth = function(op, name, dtype, computed)
        outputs = smooth(*leaves)
        weights = [normal(*x.shape, seed=60 + n, dtype=torch.float64) for n, x in enumerate(outputs)]
        loss = torch.stack([(x * w).sum() for x, w in zip(outputs, weights, strict=True)]).sum()
        found.append(torch.autograd.grad(loss, leaves))
    for got, wanted in zip(*found, strict=True):
        torch.testing.assert_close(got.double(), wanted, rtol=tolerance, atol=tolerance)


def divergences_have_gradients(impl: str, kind: str) -> None:
    """Gradients of all four rows and a bandwidth against finite differences."""
    shapes = ((1, 2, 4, 4), (1, 1, 5, 4), (1, 2, 4, 3), (1, 2, 5, 3), (1,))
    leaves = [normal(*shape, seed=70 + n, dtype=torch.float64).requires_grad_() for n, shape in enumerate(shapes)]

    def value(q, k, other_q, other_k, width):
        score = SquaredDistance(width.abs() + 1)
        return divergence(q, k, other_q, other_k, kind=kind, causal=True, score=score, impl=impl).value  # pyright: ignore

    try:
        assert torch.autograd.gradcheck(value, leaves, fast_mode=True)
    except RuntimeError as error:
        raise AssertionError(str(error)) from error
