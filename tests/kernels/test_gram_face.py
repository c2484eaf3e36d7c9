"""Bad arguments of the reductions over pairs of rows, what they refuse, and what torch knows of their operators."""

from __future__ import annotations

import logging
import math
from typing import Any

import pytest
import torch

from lamina_kernels.gram import (
    RBF,
    ArcCosine,
    Distance,
    Laplace,
    Linear,
    Matern,
    Pointwise,
    Polynomial,
    RationalQuadratic,
    count,
    difference_moments,
    distance_correlation,
    distance_histogram,
    harmonic,
    hsic,
    hsic_sums,
    logsumexp,
    mmd,
    pairwise_loss,
    product,
    row_sums,
    softmax_product,
)
from lamina_kernels.gram.pairs import build, flat
from lamina_kernels.gram.sums import op
from tests.kernels.gram_kernels import normal, small_tiles
from tests.meter import peak_bytes

X, Y, V = torch.ones(5, 3), torch.ones(4, 3), torch.ones(4, 2)
IDS = torch.zeros(5, dtype=torch.long)


@pytest.mark.parametrize(
    ("arguments", "options", "message"),
    [
        ((X, torch.ones(4, 2), V), {}, "x has width 3 and y has width 2"),
        ((X, Y, torch.ones(5, 2)), {}, "v has 5 rows and y has 4"),
        ((X, Y, V.double()), {}, "v is torch.float64 on cpu, but x is torch.float32"),
        ((X.long(), Y.long(), V), {}, "x is torch.int64, expected float16"),
        ((X, torch.ones(3), V), {}, r"y has shape \[3\], expected two dimensions"),
        ((X, Y, V), {"exclude": "self"}, "exclude is 'self', but y is not x"),
        ((X, None, X), {"exclude": "diagonal"}, "exclude is 'diagonal', expected 'self'"),
        ((X, Y, V), {"exclude": IDS}, "exclude is one tensor of groups, but y is not x"),
        ((X, None, X), {"exclude": IDS[:4]}, r"groups of x have shape \[4\], expected \[5\]"),
        ((X, Y, V), {"exclude": (IDS, IDS)}, r"groups of y have shape \[5\], expected \[4\]"),
        ((X, None, X), {"exclude": IDS.float()}, "groups of x are torch.float32, expected integers"),
        ((X, None, X), {"exclude": IDS.to("meta")}, "groups of x are on meta, but the rows are on cpu"),
        ((X, Y, V), {"kernel": RBF(torch.ones(2))}, r"bandwidth of RBF has shape \[2\], expected one number, or 3"),
        ((X, Y, V), {"kernel": RBF(torch.ones(3, device="meta"))}, "bandwidth of RBF is on meta, but x is on cpu"),
        ((X, Y, V), {"kernel": Linear() + Polynomial(2, torch.ones(3))}, r"gamma of Polynomial has shape \[3\]"),
        ((X, Y, V), {"precision": "fp8"}, "precision is 'fp8', expected None"),
        ((X, Y, V), {"impl": "dense"}, "no form 'dense'"),
    ],
)
def test_arguments_that_do_not_fit_are_refused_by_name(arguments: Any, options: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        product(*arguments, **{"kernel": RBF(1.0), **options})


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Laplace(0.0), "Laplace: bandwidth is 0.0"),
        (lambda: Matern(-1.0), "Matern: bandwidth is -1.0"),
        (lambda: RBF(torch.tensor([1.0, 0.0])), "RBF: bandwidth is tensor"),
        (lambda: RBF(torch.tensor([1.0, math.nan])), "RBF: bandwidth is tensor"),
        (lambda: RBF(torch.ones(2).long()), "RBF: bandwidth is torch.int64"),
        (lambda: RationalQuadratic(1.0, alpha=math.inf), "RationalQuadratic: alpha is inf"),
        (lambda: Laplace(1.0, norm=3), "Laplace: norm is 3"),
        (lambda: Matern(1.0, nu=1.0), "Matern: nu is 1.0"),
        (lambda: Distance(0.5), "Distance: norm is 0.5"),
        (lambda: ArcCosine(3), "ArcCosine: order is 3"),
        (lambda: Polynomial(0), "Polynomial: degree is 0"),
    ],
)
def test_hyperparameters_that_are_none_are_refused(make: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


def test_a_function_that_is_none_is_refused() -> None:
    with pytest.raises(TypeError, match="Pointwise: reference is 3, expected a function of tensors"):
        Pointwise(3)  # pyright: ignore[reportArgumentType]
    with pytest.raises(TypeError, match=r"Pointwise: function is .*, expected one with @triton.jit, or None"):
        Pointwise(torch.addcmul, torch.addcmul)


def test_a_kernel_that_is_none_is_refused() -> None:
    kernel: Any = "rbf"
    with pytest.raises(TypeError, match=r"row_sums: kernel is 'rbf', expected a kernel such as RBF\(1.0\)"):
        row_sums(X, kernel=kernel)


@pytest.mark.parametrize("weights", [torch.ones(5), torch.ones(4, 1), torch.ones(4).long(), torch.ones(4).to("meta")])
def test_log_weights_that_do_not_fit_are_refused(weights: torch.Tensor) -> None:
    with pytest.raises(ValueError, match=r"logsumexp: log_weights is .*, expected real numbers \[4\] on cpu"):
        logsumexp(X, Y, kernel=Linear(), log_weights=weights)


def test_what_is_not_there_is_refused_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(RuntimeError, match="impl='triton' cannot run: the tensors are on cpu"):
        row_sums(X, kernel=RBF(1.0), impl="triton")
    monkeypatch.setattr("lamina_kernels.dispatch.demand_triton", lambda *given: None)
    with pytest.raises(NotImplementedError, match="a Pointwise kernel without a function is not supported"):
        row_sums(X, kernel=RBF(1.0) + Pointwise(torch.addcmul), impl="triton")
    x = normal(5, seed=0).requires_grad_()
    (first,) = torch.autograd.grad(row_sums(x, kernel=RBF(1.0)).sum(), x, create_graph=True)
    (second,) = torch.autograd.grad(first.square().sum(), x, create_graph=True)
    with pytest.raises(NotImplementedError, match="a third derivative is not supported"):
        second.sum().backward()


def test_the_form_that_runs_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG, "lamina_kernels"):
        row_sums(X, kernel=RBF(1.0))
        row_sums(X, kernel=RBF(1.0), impl="reference")
    assert caplog.messages == ["row_sums: blocked", "row_sums: reference"]


def test_torch_finds_the_operators_in_order() -> None:
    """Schemas, fake tensors, gradients with static and dynamic shapes."""
    x, y, v = (normal(n, 3, seed=n).requires_grad_() for n in (9, 8, 8))
    b = torch.tensor(1.3, dtype=torch.float64, requires_grad=True)
    p = build("", x, y, RBF(b) + Laplace(torch.ones(3), norm=1))
    arguments = [a.detach().requires_grad_() if isinstance(a, torch.Tensor) else a for a in flat(p)]
    torch.library.opcheck(op._sums, (*arguments, v, "blocked"))
    torch.library.opcheck(op._softmax, (*arguments, v, normal(8, 1, seed=1)[:, 0].requires_grad_(), "blocked"))


def test_it_compiles_whole() -> None:
    from torch._dynamo.backends.common import aot_autograd
    from torch._functorch._aot_autograd.utils import make_boxed_func

    def loss(x: torch.Tensor, y: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        mean = softmax_product(x, y, y, kernel=RBF(b) * Linear())
        return row_sums(x, y, kernel=Matern(b)).sum() + mean.value.sum() + mean.logsumexp.sum()

    torch._dynamo.reset()
    compiled = torch.compile(loss, fullgraph=True, backend=aot_autograd(fw_compiler=lambda g, _: make_boxed_func(g)))
    leaves = [normal(9, 3, seed=0), normal(7, 3, seed=1), torch.tensor(1.2, dtype=torch.float64)]
    leaves = [x.requires_grad_() for x in leaves]
    found, expected = (torch.autograd.grad(f(*leaves), leaves) for f in (compiled, loss))
    torch.testing.assert_close(found, expected)


def test_what_is_made_of_sums_and_the_other_reductions_compile_whole() -> None:
    from torch._dynamo.backends.common import aot_autograd
    from torch._functorch._aot_autograd.utils import make_boxed_func

    targets, ids = torch.arange(9) % 7, torch.arange(9) // 2

    def loss(x: torch.Tensor, y: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        few, kernel = y[:7], RBF(b)
        sums = hsic_sums(x, y, kernel_x=kernel)
        grouped = mmd(x, few, kernel=kernel, groups=(ids, 5 + ids[:7]), permutations=3)
        values = [
            sums.product.sum()
            + hsic_sums(x, y, groups=ids).square_x.sum()
            + grouped.value
            + grouped.variance
            + grouped.p_value,
            pairwise_loss(x, few, kind="infonce", temperature=b, labels=(ids, ids[:7])),
            logsumexp(x, few, kernel=Matern(b)).sum(),
            difference_moments(x, few, kernel=kernel).sum(),
            mmd(x, few, kernel=kernel).value,
            hsic(x, y, kernel_x=kernel, kernel_y=Linear(), biased=True),
            distance_correlation(x, y),
            pairwise_loss(x, y, temperature=b),
            pairwise_loss(x, y, kind="infonce", temperature=b),
            harmonic(x, few, targets, exponent=b).log_probability.sum(),
            count(x, few, 1.5).sum() + distance_histogram(x, few, [0.0, 1.0, 2.0]).sum(),
        ]
        return torch.stack([each.double() for each in values]).sum()

    torch._dynamo.reset()
    compiled = torch.compile(loss, fullgraph=True, backend=aot_autograd(fw_compiler=lambda g, _: make_boxed_func(g)))
    leaves = [normal(9, 3, seed=0), normal(9, 3, seed=1), torch.tensor(1.2, dtype=torch.float64)]
    leaves = [x.requires_grad_() for x in leaves]
    found, expected = (torch.autograd.grad(f(*leaves), leaves) for f in (compiled, loss))
    torch.testing.assert_close(found, expected)


def test_an_autocast_of_the_caller_rounds_nothing_and_the_same_rows_give_the_same_bits() -> None:
    x = normal(60, 5, seed=2, dtype=torch.float32).requires_grad_()

    def both() -> list[torch.Tensor]:
        sums = row_sums(x, kernel=RBF(1.0))
        return [sums, *torch.autograd.grad(sums.square().sum(), x)]

    with small_tiles():
        plain = both()
        with torch.autocast("cpu", dtype=torch.bfloat16):
            inside = both()
    assert all(torch.equal(a, b) for a, b in zip(plain, inside, strict=True))


def test_block_sizes_do_not_matter() -> None:
    x, y = normal(90, 5, seed=3), normal(70, 5, seed=4)
    whole = softmax_product(x, y, y, kernel=RBF(1.0))
    with small_tiles():
        tiles = softmax_product(x, y, y, kernel=RBF(1.0))
    torch.testing.assert_close(tiles, whole, rtol=1e-12, atol=1e-12)


def test_memory_of_all_pairs_is_that_of_the_rows() -> None:
    """4,096 and 32,768 rows, whose matrix would take 4 GB: beside the rows and their sums, the same."""
    setup = """
        import torch
        from lamina_kernels.gram import RBF, row_sums

        rows = torch.rand(32_768, 4)
        sums = torch.ones(32_768)
        row_sums(rows[:4096].clone(), kernel=RBF(1.0))
    """
    more = "        row_sums(rows, kernel=RBF(1.0))"
    assert peak_bytes(f"{setup}\n{more}") - peak_bytes(setup) < 4e6


def test_memory_is_flat() -> None:
    """A matrix of 9,000 rows is 324 MB; rows, results and gradients are 2."""
    setup = """
        import torch
        from lamina_kernels.gram import RBF, product

        def both(n):
            x = torch.randn(n, 8, requires_grad=True)
            product(x, None, torch.ones(n, 2), kernel=RBF(1.0)).sum().backward()

        both(600)
    """
    assert peak_bytes(f"{setup}\n        both(9000)") - peak_bytes(setup) < 30e6
