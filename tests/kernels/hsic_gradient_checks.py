"""What holds for the gradients of `hsic_sums`: they are those of the matrices, in every form.

The error rule in Triton: at most three times the error of plain torch in single precision, the form `blocked`.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import Tensor

from lamina_kernels.gram import RBF, Laplace, Linear, hsic_sums
from tests.kernels.gram_checks import within
from tests.kernels.hsic_checks import Sums, normal, poisoned

PROBLEMS = [
    {"groups": groups, "others": others, "dtype": dtype}
    for groups, others, dtype in (
        (False, False, torch.float32),
        (True, False, torch.float16),
        (False, True, torch.float16),
        (True, True, torch.float32),
        (True, False, torch.bfloat16),
    )
]


def gradients(
    sums: Sums,
    kept: torch.dtype,
    *,
    groups: bool,
    others: bool,
    dtype: torch.dtype,
    twice: bool = False,
    linear: bool = False,
) -> list[Tensor]:
    """Of all five sums, by rows that are rounded to `dtype` and by a bandwidth; those of their squares with `twice`."""
    rows = [normal(n, d, seed=n + d, dtype=dtype).to(kept) for n, d in ((37, 3), (37, 2), (21, 3), (21, 2))]
    held = [each.requires_grad_() for each in rows[: 4 if others else 2]]
    b = torch.tensor(1.3, dtype=torch.float64, requires_grad=True)
    options: dict[str, Any] = {"kernel_x": RBF(b) + Linear(), "kernel_y": Laplace(2.0)}
    if linear:
        options, b = {}, held[0]
    if groups:
        options["groups_other" if others else "groups"] = torch.arange(len(held[-1])) % 4
    found = sums(*held, **options)[:5]
    # Numbers that half precision holds.
    weights = [normal(value.numel(), seed=seed, dtype=torch.float16).double() for seed, value in enumerate(found)]
    loss = torch.stack([value.flatten() @ weight for value, weight in zip(found, weights, strict=True)]).sum()
    with poisoned():
        made = list(torch.autograd.grad(loss, [*held, b], create_graph=twice))
    if not twice:
        return made
    squares = torch.stack([each.square().sum() for each in made]).sum()
    return made + list(torch.autograd.grad(squares, [*held, b]))


def gradients_are_those_of_matrices(sums: Sums, problem: dict[str, Any]) -> None:
    forms = sums, partial(hsic_sums, impl="reference")
    for one, exact in zip(*(gradients(form, torch.float64, **problem, twice=True) for form in forms), strict=True):
        torch.testing.assert_close(one, exact, rtol=0, atol=1e-11 * exact.abs().max().item())


def gradients_err_at_most_three_times_as_much(sums: Sums, problem: dict[str, Any], times: float = 3) -> None:
    found = gradients(sums, problem["dtype"], **problem)
    plain = gradients(partial(hsic_sums, impl="blocked"), torch.float32, **problem)
    truth = gradients(partial(hsic_sums, impl="reference"), torch.float64, **problem)
    for value, exact, other in zip(found, truth, plain, strict=True):
        within(value.to(problem["dtype"]), exact, other.to(problem["dtype"]), times)
