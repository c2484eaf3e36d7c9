"""Gradients, bad arguments, operators and memory of `nearest` and `argmin`."""

from __future__ import annotations

import logging
from typing import Any

import pytest
import torch
from torch import Tensor

from lamina_kernels.gram import argmin, nearest
from lamina_kernels.gram.distances import MEASURES, pairs
from lamina_kernels.gram.pairs import flat
from lamina_kernels.gram.selection import gathered, op
from tests.faults import broken
from tests.kernels import selection_faults  # noqa: F401
from tests.kernels.gram_kernels import normal
from tests.meter import peak_bytes

X, Y = torch.ones(5, 3), torch.ones(4, 3)


def both_orders(impl: Any, distance: Any, *, same: bool) -> list[Tensor]:
    """Distances, sums of codes, their gradients, and gradients of these."""
    x, y = normal(19, 4, seed=0).requires_grad_(), normal(14, 4, seed=1).requires_grad_()
    by = [x] if same else [x, y]
    found = nearest(x, None if same else y, 3, distance=distance, exclude="self" if same else None, impl=impl)
    chosen = argmin(x, x.flip(0) if same else y, distance=distance, impl=impl)
    assert chosen.sums is not None
    outputs = [found.distances, chosen.distances, chosen.sums]
    loss = torch.stack([(o * normal(o.numel(), 1, seed=7).view_as(o)).sum() for o in outputs]).sum()
    first = torch.autograd.grad(loss, by, create_graph=True)
    weighed = torch.stack([(g * normal(g.numel(), 1, seed=8).view_as(g)).sum() for g in first]).sum()
    second = (
        torch.autograd.grad(weighed, by, allow_unused=True, materialize_grads=True) if weighed.requires_grad else []
    )
    return [*outputs, *first, *second]


@pytest.mark.parametrize("same", [False, True])
@pytest.mark.parametrize("distance", MEASURES)
def test_gradients_are_those_of_the_chosen_distances(distance: Any, same: bool) -> None:
    found, expected = (both_orders(impl, distance, same=same) for impl in ("blocked", "reference"))
    for a, b in zip(found[: len(expected)], expected, strict=False):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-10)


def test_forgotten_gradients_are_noticed() -> None:
    with broken("selection_forgets_the_gradient_of_columns"), pytest.raises(AssertionError):
        test_gradients_are_those_of_the_chosen_distances("squared", False)


@pytest.mark.parametrize("base", ["square", "dot", "norm"])
def test_gathered_distances_have_the_derivatives_of_differences(base: str) -> None:
    x, y, a, b = (normal(n, 3, seed=seed).requires_grad_() for seed, n in enumerate((5, 6, 5, 6)))
    places = torch.tensor([[0, 3], [5, -1], [2, 2], [1, 0], [4, 4]])
    g = normal(5, 2, seed=9).requires_grad_()
    torch.autograd.gradcheck(lambda x, y, a, b: gathered.along(base, x, y, a, b, places), (x, y, a, b))
    torch.autograd.gradcheck(lambda x, y, g: gathered.pull(base, x, y, places, g), (x, y, g))


@pytest.mark.parametrize(
    ("arguments", "options", "message"),
    [
        ((X, Y, 0), {}, "nearest: k is 0, expected a whole number from 1 to 64"),
        ((X, Y, 65), {}, "nearest: k is 65, expected"),
        ((X, Y, 2.0), {}, "nearest: k is 2.0, expected"),
        ((X, Y, 5), {}, "nearest: k is 5, but y has 4 rows"),
        ((X, torch.empty(0, 3), 1), {}, "nearest: k is 1, but y has 0 rows"),
        ((X, torch.ones(4, 2), 1), {}, "nearest: x has width 3 and y has width 2"),
        ((X.long(), None, 1), {}, "nearest: x is torch.int64"),
        ((X, Y, 1), {"distance": "l2"}, "nearest: distance is 'l2', expected one of 'squared', 'euclidean'"),
        ((X, Y, 1), {"exclude": "self"}, "nearest: exclude is 'self', but y is not x"),
        ((X, Y, 1), {"precision": "fp8"}, "nearest: precision is 'fp8'"),
        ((X, Y, 1), {"impl": "dense"}, "nearest has no form 'dense'"),
        (
            (1e200 * torch.arange(15.0).double().view(5, 3), None, 1),
            {},
            "rows hold numbers of size .* squares overflow",
        ),
    ],
)
def test_bad_arguments_are_refused_by_name(arguments: Any, options: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        nearest(*arguments, **options)


def test_no_codes_are_refused() -> None:
    with pytest.raises(ValueError, match="argmin: y has no rows"):
        argmin(X, torch.empty(0, 3))


def test_the_form_that_runs_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG, "lamina_kernels"):
        nearest(X, Y, 2)
        argmin(X, Y, impl="reference")
    assert caplog.messages == ["nearest: blocked", "argmin: reference"]


def test_torch_finds_the_operators_in_order() -> None:
    x, y = normal(9, 3, seed=1).requires_grad_(), normal(8, 3, seed=2).requires_grad_()
    p = pairs("", x, y, "squared", None, None)
    torch.library.opcheck(op._nearest, (*flat(p), 3, "blocked"))
    places = torch.tensor([[0, -1]] * 9)
    g = normal(9, 2, seed=3).requires_grad_()
    torch.library.opcheck(gathered._pull, (x, y, places, g, "square"))
    torch.library.opcheck(gathered._along, (x, y, x.detach(), y.detach(), places, "dot"))


def test_it_compiles_whole() -> None:
    from torch._dynamo.backends.common import aot_autograd
    from torch._functorch._aot_autograd.utils import make_boxed_func

    def loss(x: Tensor, y: Tensor) -> Tensor:
        chosen = argmin(x, y, distance="cosine")
        assert chosen.sums is not None
        return nearest(x, y, 3, distance="euclidean").distances.sum() + chosen.sums.square().sum()

    torch._dynamo.reset()
    compiled = torch.compile(loss, fullgraph=True, backend=aot_autograd(fw_compiler=lambda g, _: make_boxed_func(g)))
    leaves = [normal(9, 3, seed=0).requires_grad_(), normal(7, 3, seed=1).requires_grad_()]
    found, expected = (torch.autograd.grad(f(*leaves), leaves) for f in (compiled, loss))
    torch.testing.assert_close(found, expected)


def test_an_autocast_of_the_caller_and_the_precision_of_products_change_nothing() -> None:
    x = normal(300, 8, seed=2, dtype=torch.float32)
    plain = nearest(x, None, 4, exclude="self")
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = nearest(x, None, 4, exclude="self")
    assert all(torch.equal(a, b) for a, b in zip(plain, inside, strict=True))


def test_memory_is_flat() -> None:
    """A matrix of 6,000 rows is 144 MB; tiles, lists and what is gathered are 20."""
    setup = """
        import torch
        from lamina_kernels.gram import nearest

        def both(n):
            x = torch.rand(n, 8, requires_grad=True)
            nearest(x, None, 4).distances.sum().backward()

        both(600)
    """

    def added(n: int) -> int:
        return peak_bytes(f"{setup}\n        both({n})") - peak_bytes(setup)

    assert added(6000) < 30e6
