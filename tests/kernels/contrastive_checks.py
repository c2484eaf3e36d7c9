"""Contrastive losses of rows as they came, in any form: against logits of unit vectors in float64."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import pytest
import torch
from torch import Tensor
from torch.nn.functional import logsigmoid, normalize

from lamina_kernels.gram import RBF, pairwise_loss
from lamina_kernels.gram.contrastive import Logit
from lamina_kernels.gram.pairs import build, flat
from lamina_kernels.gram.sums import op_sides
from tests.kernels import gram_dependence_faults, gram_kernel_faults  # noqa: F401  # known where checks run
from tests.kernels.hsic_checks import normal, poisoned

Loss = Callable[..., Tensor]
TEMPERATURE, BIAS = 0.1, -4.0


def pairs_of_rows(dtype: torch.dtype, *, n: int = 150, d: int = 40) -> tuple[Tensor, Tensor]:
    """Rows that belong together in twos, of any lengths."""
    common, x, y = (normal(n, d, seed=seed) for seed in range(3))
    lengths = normal(n, 1, seed=3).exp()
    return ((common + x) * lengths).to(dtype), ((common + y) / lengths).to(dtype)


def dense(x: Tensor, y: Tensor, kind: str, t: Tensor, b: Tensor, *, rounded: bool = False) -> Tensor:
    """The losses as anyone would write them; rounded: with unit vectors in the dtype of the rows."""
    one, other = (normalize(rows.double()) for rows in (x, y))
    if rounded:
        one, other = one.to(x.dtype).double(), other.to(x.dtype).double()
    logits = one @ other.T / t + b
    if kind == "sigmoid":
        return -logsigmoid(torch.where(torch.eye(len(x)).bool(), logits, -logits)).sum() / len(x)
    own = logits.diagonal()
    return ((logits.logsumexp(1) - own).mean() + (logits.logsumexp(0) - own).mean()) / 2


def values_and_gradients(loss: Loss, x: Tensor, y: Tensor, kind: str) -> list[Tensor]:
    """Return a loss and its gradients by both sides, the temperature and the bias."""
    held = [x.detach().requires_grad_(), y.detach().requires_grad_()]
    held += [torch.tensor(value, dtype=torch.float64, requires_grad=True) for value in (TEMPERATURE, BIAS)]
    value = loss(*held[:2], kind=kind, temperature=held[2], bias=held[3])
    # Half precision holds no smaller gradients.
    return [value, *torch.autograd.grad(value, held, 1000 * torch.ones_like(value), materialize_grads=True)]


def losses_have_their_digits(loss: Loss, kind: str, dtype: torch.dtype) -> None:
    """Values as in float64 of the same rows; gradients as exact as the dtype that they are returned in."""
    x, y = pairs_of_rows(dtype)
    with poisoned():
        found = values_and_gradients(loss, x, y, kind)
    exact = values_and_gradients(
        lambda x, y, kind, **numbers: dense(x, y, kind, *numbers.values()), x.double(), y.double(), kind
    )
    torch.testing.assert_close(found[0].double(), exact[0], rtol=1e-6, atol=1e-6)
    # They are rounded to the dtype of the rows once, behind all sums.
    digits = {torch.float32: 1e-5, torch.float16: 2**-10, torch.bfloat16: 2**-8}[dtype]
    for one, other in zip(found[1:3], exact[1:3], strict=True):
        sizes = other.norm(dim=1).clamp_min(1e-30)
        assert ((one.double() - other).norm(dim=1) / sizes).max() < digits
    torch.testing.assert_close(found[3:], exact[3:], rtol=1e-4, atol=1e-5)


def rows_are_not_rounded_again(loss: Loss) -> None:
    """Unit vectors in bfloat16 would be off by much more than the loss is."""
    x, y = pairs_of_rows(torch.bfloat16)
    t, b = torch.tensor(TEMPERATURE), torch.tensor(BIAS)
    for kind in ("sigmoid", "infonce"):
        found = loss(x, y, kind=kind, temperature=TEMPERATURE, bias=BIAS)
        exact, again = (dense(x, y, kind, t, b, rounded=rounded) for rounded in (False, True))
        assert (found - exact).abs() < (again - exact).abs() / 20


def rows_of_any_length_point_where_they_point(loss: Loss) -> None:
    """Squares of their lengths are no numbers; a row of zeros is orthogonal to all."""
    for dtype in (torch.float32, torch.bfloat16):
        x, y = (normal(20, 8, seed=seed).to(dtype) for seed in (5, 6))
        x[3] = 0
        large, small = x * 2.0**120, y * 2.0**-120
        for kind in ("sigmoid", "infonce"):
            options = {"kind": kind, "temperature": TEMPERATURE}
            torch.testing.assert_close(loss(large, small, **options), loss(x, y, **options), rtol=1e-6, atol=0)
            held = x.clone().requires_grad_()
            (found,) = torch.autograd.grad(loss(held, small, **options), held)
            assert found.isfinite().all()
            expected = dense(x, y, kind, torch.tensor(TEMPERATURE), torch.tensor(0.0))
            torch.testing.assert_close(loss(x, y, **options).double(), expected, rtol=1e-5, atol=0)


def sharp_logits_have_their_logarithms(loss: Loss) -> None:
    """Of a temperature at which each row's exponentials are nothing beside those of other rows."""
    x, y = pairs_of_rows(torch.float32)
    y[7] = -y[7]
    found = loss(x, y, kind="infonce", temperature=3e-3)
    torch.testing.assert_close(
        found.double(), dense(x, y, "infonce", torch.tensor(3e-3), torch.tensor(0.0)), rtol=1e-5, atol=0
    )


def tf32_errs_as_its_digits_allow(loss: Loss) -> None:
    """11 bits of each number of rows of any lengths."""
    x, y = pairs_of_rows(torch.float32)
    for kind in ("sigmoid", "infonce"):
        found = loss(x, y, kind=kind, temperature=TEMPERATURE, bias=BIAS, precision="tf32")
        exact = dense(x, y, kind, torch.tensor(TEMPERATURE), torch.tensor(BIAS))
        torch.testing.assert_close(found.double(), exact, rtol=2e-4, atol=0)


def a_broken_row_breaks_every_loss(loss: Loss) -> None:
    """And no other row's gradients stay numbers by chance: nothing hides it."""
    for bad in (torch.nan, torch.inf):
        x, y = pairs_of_rows(torch.float32)
        y[149, 1] = bad
        assert all(loss(x, y, kind=kind, temperature=1.0).isnan() for kind in ("sigmoid", "infonce"))


def the_same_rows_give_the_same_bits(loss: Loss) -> None:
    """Also where two programs have one column."""
    x, y = pairs_of_rows(torch.bfloat16)
    one, other = (values_and_gradients(loss, x, y, "infonce") for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


def both_sides_are_one_launch(loss: Loss) -> None:
    """Forward; all pairs are multiplied once."""
    from lamina_kernels.gram.sums import launch

    launched: list[str] = []
    whole = launch.run
    x, y = pairs_of_rows(torch.float32, n=20)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            launch, "run", lambda kernel, *rest: (launched.append(kernel.fn.__name__), whole(kernel, *rest))[1]
        )
        loss(x, y, kind="infonce", temperature=1.0)
    assert launched == ["sides_kernel"]


def torch_finds_the_operator_in_order(loss: Loss) -> None:
    """Schemas, fake tensors and gradients; other kernels than logits, and another number of columns."""
    del loss
    p = build("", normal(9, 3, seed=0), normal(7, 3, seed=1), RBF(torch.tensor(1.3)) * Logit(2.0))
    arguments = [a.detach().requires_grad_() if isinstance(a, Tensor) else a for a in flat(p)]
    torch.library.opcheck(op_sides._sides, (*arguments, "triton"))
    found = op_sides.sides(p, "triton")
    torch.testing.assert_close(found, op_sides.sides(p, "blocked"))


CHECKS = [
    rows_are_not_rounded_again,
    rows_of_any_length_point_where_they_point,
    sharp_logits_have_their_logarithms,
    a_broken_row_breaks_every_loss,
    the_same_rows_give_the_same_bits,
    both_sides_are_one_launch,
    tf32_errs_as_its_digits_allow,
    torch_finds_the_operator_in_order,
]
PLAIN = partial(pairwise_loss, impl="blocked")
