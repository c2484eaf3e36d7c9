"""Every reduction over pairs of rows that takes a kernel, and the kernels in every one of them.

The truth is the form `reference`, whose matrix `test_gram_sums` compares with formulas, kernel by kernel.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor

from lamina_kernels.gram import (
    RBF,
    Kernel,
    cka_matrix,
    difference_moments,
    hsic,
    hsic_sums,
    logsumexp,
    mmd,
    product,
    row_sums,
    softmax_product,
)
from tests.kernels import gram_dependence_faults, gram_faults, layers_faults  # noqa: F401  # known where checks run
from tests.kernels.gram_checks import KERNELS, within
from tests.kernels.hsic_checks import normal, poisoned

Reduce = Callable[..., list[Tensor]]


class Rows(NamedTuple):
    """What reductions are given.

    Attributes:
        x: [n, d].
        y: [m, d].
        z: [n, 2], paired with x.
        v: [m, 2].
        weights: [m].
    """

    x: Tensor
    y: Tensor
    z: Tensor
    v: Tensor
    weights: Tensor


def _moments(r: Rows, **options: Any) -> list[Tensor]:
    return [
        difference_moments(r.x, r.y, weights_y=r.weights, **options),
        difference_moments(r.x, **options),
    ]


def _mmd(r: Rows, **options: Any) -> list[Tensor]:
    return [mmd(r.x, r.y, **options).value]


def _hsic_sums(r: Rows, kernel: Kernel, **options: Any) -> list[Tensor]:
    return list(hsic_sums(r.x, r.z, kernel_x=kernel, kernel_y=RBF(1.5), **options)[:5])


def _hsic(r: Rows, kernel: Kernel, **options: Any) -> list[Tensor]:
    return [hsic(r.x, r.z, kernel_x=kernel, kernel_y=RBF(1.5), **options)]


def _cka(r: Rows, kernel: Kernel, **options: Any) -> list[Tensor]:
    return [cka_matrix([r.x, r.z], kernel=[kernel, RBF(1.5)], **options).hsic]


REDUCTIONS: dict[str, Reduce] = {
    "product": lambda r, **options: [product(r.x, r.y, r.v, **options)],
    "row_sums": lambda r, **options: [row_sums(r.x, r.y, **options)],
    "logsumexp": lambda r, **options: [logsumexp(r.x, r.y, log_weights=r.weights, **options)],
    "softmax_product": lambda r, **options: [*softmax_product(r.x, r.y, r.v, log_weights=r.weights, **options)],
    "difference_moments": _moments,
    "mmd": _mmd,
    "hsic_sums": _hsic_sums,
    "hsic": _hsic,
    "biased hsic": partial(_hsic, biased=True),
    "cka_matrix": _cka,
}


def rows_of(dtype: torch.dtype, *, n: int = 11, m: int = 9, d: int = 4) -> Rows:
    """Return rows with duplicates, within and across both sides, the same for every dtype."""
    shapes = (n, d), (m, d), (n, 2), (m, 2)
    x, y, z, v = (normal(*shape, seed=seed, dtype=torch.bfloat16) for seed, shape in enumerate(shapes))
    x[5], y[2], y[-1] = x[3], x[7], y[-2]
    weights = normal(m, seed=9, dtype=torch.bfloat16)
    return Rows(*(each.to(dtype) for each in (x, y, z, v, weights)))


def reduce(name: str, rows: Rows, kernel: Kernel, *, impl: str) -> list[Tensor]:
    """Return what a reduction returns; `impl` is that of the form."""
    return REDUCTIONS[name](rows, kernel=kernel, impl=impl)


def gradients(run: Reduce, name: str, rows: Rows, kernel: Kernel, *, twice: bool = False) -> list[Tensor]:
    """Return what a reduction returns, its gradients by all that it is made of, and the gradients of these."""
    held = [each.detach().requires_grad_() for each in rows]
    leaves = [*held, *(number.requires_grad_() for number in kernel.tensors())]
    found = run(name, Rows(*held), kernel)
    # Numbers that half precision holds: nothing is rounded on the way to the kernels.
    given = [normal(f.numel(), seed=7, dtype=torch.bfloat16).view_as(f).to(f.dtype) for f in found]
    with poisoned():
        first = torch.autograd.grad(found, leaves, given, create_graph=twice, materialize_grads=True)
    if not twice:
        return [*found, *first]
    weighed = torch.stack([(g * normal(g.numel(), seed=8).view_as(g)).sum() for g in first]).sum()
    return [*found, *first, *torch.autograd.grad(weighed, leaves, materialize_grads=True)]


def every_kernel_errs_at_most_twice_as_much(
    run: Reduce, name: str, dtype: torch.dtype = torch.float32, times: float = 2
) -> None:
    """The error rule, with poisoned memory; of gradients three times, see `gram_checks`."""
    rows = rows_of(dtype)
    for called, make in KERNELS.items():
        with poisoned(), torch.no_grad():
            found = run(name, rows, make(4))
        exact, plain = (
            reduce(name, Rows(*(each.to(kept) for each in rows)), make(4), impl=impl)
            for kept, impl in ((torch.float64, "reference"), (torch.float32, "blocked"))
        )
        _all_within(found, exact, plain, dtype, times, called)


def discrepancies_have_the_digits_of_their_means(run: Reduce, name: str) -> None:
    """A difference of means in single precision is as exact as these are."""
    rows = rows_of(torch.float32)
    # The logarithm of nothing is another number in double precision.
    for called, make in KERNELS.items() - {("logarithm", KERNELS["logarithm"])}:
        (found,) = run(name, rows, make(4))
        x, y = rows.x.double(), rows.y.double()
        both, eye = torch.cat([x, y]), torch.eye(len(x) + len(y), dtype=torch.float64)
        k = product(both, None, eye, kernel=make(4), exclude="self", impl="reference")
        exact = mmd(x, y, kernel=make(4), impl="reference").value
        assert (found - exact).abs() <= 2**-21 * k.abs().max(), called


def gradients_err_at_most_three_times_as_much(
    run: Reduce, name: str, called: str, dtype: torch.dtype = torch.float32, times: float = 3
) -> None:
    """Likewise, of all gradients."""
    found, exact, plain = (
        gradients(form, name, rows_of(kept), KERNELS[called](4))
        for form, kept in (
            (run, dtype),
            (partial(reduce, impl="reference"), torch.float64),
            (partial(reduce, impl="blocked"), torch.float32),
        )
    )
    _all_within(found, exact, plain, dtype, times, called)


def _all_within(
    found: list[Tensor], exact: list[Tensor], plain: list[Tensor], dtype: torch.dtype, times: float, called: str
) -> None:
    assert len(found) == len(exact)
    for value, truth, other in zip(found, exact, plain, strict=True):
        # Numbers in double precision are sums of kernel values in single.
        kept = torch.promote_types(dtype, torch.float32) if value.dtype == torch.float64 else dtype
        try:
            within(value.to(kept), truth.double(), other.to(kept), times)
        except AssertionError as error:
            raise AssertionError(f"{called}: {error}") from error
