"""What holds for losses of reconstruction in every form, against dense formulas in float64."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from lamina_kernels.sparse import Codes, Reconstruction, auxiliary_loss, reconstruction
from tests.faults import fault
from tests.kernels.decoding_checks import codes_of, dense
from tests.kernels.gram_checks import within
from tests.kernels.hsic_checks import normal, poisoned

Losses = Callable[..., Reconstruction]
UNITS, WIDTH = 30, 7
PREFIXES = (4, 5, 17, 30)


def losses(*given: Any, dead: Codes | None = None, **options: Any) -> Reconstruction:
    """Either loss."""
    return reconstruction(*given, **options) if dead is None else auxiliary_loss(dead, *given, **options)


def by_dense(
    codes: Codes,
    dictionary: Tensor,
    target: Tensor,
    bias: Tensor | None = None,
    *,
    prefixes: Any = None,
    dead: Codes | None = None,
    reduction: str = "mean",
) -> Reconstruction:
    """What one writes without codes."""
    matrix = dense(codes)
    if dead is not None:
        target = target - (matrix @ dictionary + (0 if bias is None else bias)).detach()
        matrix, bias = dense(dead), None
    out = torch.stack([matrix[:, :p] @ dictionary[:p] for p in prefixes or (UNITS,)])
    residuals = (target - out - (0 if bias is None else bias)).square()
    around = (target - target.mean(0)).square().sum()
    loss = residuals.mean((1, 2)) if reduction == "mean" else residuals.sum((1, 2))
    found = Reconstruction(loss, 1 - residuals.sum((1, 2)) / around)
    return found if prefixes else Reconstruction(found.loss[0], found.explained_variance[0])


def with_gradients(run: Losses, *given: Any, **options: Any) -> Any:
    found, leaves = made(run, *given, **options)
    return [*found, *torch.autograd.grad(weighted(found.loss), leaves)]


def weighted(loss: Tensor) -> Tensor:
    return (loss * torch.arange(1.0, 1 + loss.numel()).to(loss.dtype).view_as(loss)).sum()


def second_derivatives(run: Losses, *given: Any, **options: Any) -> Any:
    """Products of the matrix of second derivatives with a direction, by all that a loss is of."""
    found, leaves = made(run, *given, **options)
    slopes = torch.autograd.grad(weighted(found.loss), leaves, create_graph=True)
    directions = [normal(*leaf.shape, seed=9 + at, dtype=torch.float16).to(leaf) for at, leaf in enumerate(leaves)]
    along = torch.stack([(a * b).sum() for a, b in zip(slopes, directions, strict=True)]).sum()
    return torch.autograd.grad(along, leaves)


def made(
    run: Losses, n: int, k: Any, dtype: torch.dtype, *, dead: bool, bias: bool, **options: Any
) -> tuple[Reconstruction, list[Tensor]]:
    """A loss, and what it is of."""
    codes = codes_of(n, k, UNITS, torch.float16, seed=1)
    values, atoms, target, own = (
        x.to(dtype).requires_grad_()
        for x in (
            codes.values,
            normal(UNITS, WIDTH, seed=2, dtype=torch.float16),
            5 + normal(n, WIDTH, seed=3, dtype=torch.float16),
            normal(WIDTH, seed=4, dtype=torch.float16),
        )
    )
    chosen = Codes(values, codes.ids, UNITS, codes.indptr)
    leaves = [values, atoms, target]
    if dead:
        other = codes_of(n, 3, UNITS, torch.float16, seed=5).to(dtype=dtype)
        options["dead"], chosen = chosen, other
    elif bias:
        leaves.append(own)
    return run(chosen, atoms, target, own if bias else None, **options), leaves


CASES: list[dict[str, Any]] = [
    {"n": 23, "k": 4, "dead": False, "bias": True},
    {"n": 23, "k": "ragged", "dead": False, "bias": False, "reduction": "sum"},
    {"n": 23, "k": 4, "dead": False, "bias": True, "prefixes": PREFIXES},
    {"n": 40, "k": "ragged", "dead": False, "bias": True, "prefixes": PREFIXES},
    {"n": 23, "k": 2, "dead": True, "bias": True, "reduction": "sum"},
    {"n": 2, "k": 0, "dead": False, "bias": True},
]


def errs_at_most_twice_as_much_as_plain_torch(run: Losses, case: dict[str, Any], dtype: torch.dtype) -> None:
    with poisoned():
        found = with_gradients(run, dtype=dtype, **case)
    exact = with_gradients(by_dense, dtype=torch.float64, **case)
    plain = with_gradients(by_dense, dtype=dtype, **case)
    for value, truth, other in zip(found, exact, plain, strict=True):
        within(value.to(dtype), truth, other.to(dtype), 2)


def second_derivatives_err_at_most_twice_as_much(run: Losses, case: dict[str, Any]) -> None:
    with poisoned():
        found = second_derivatives(run, dtype=torch.float32, **case)
    exact = second_derivatives(by_dense, dtype=torch.float64, **case)
    plain = second_derivatives(by_dense, dtype=torch.float32, **case)
    for value, truth, other in zip(found, exact, plain, strict=True):
        within(value, truth, other, 2)


def perfect_codes_explain_everything(run: Losses) -> None:
    codes, atoms = codes_of(50, 3, UNITS, torch.float32, seed=6), normal(UNITS, WIDTH, seed=7).round()
    codes = Codes(codes.values.round(), codes.ids, UNITS)
    bias = normal(WIDTH, seed=8).round()
    target = dense(codes) @ atoms + bias
    found = run(codes, atoms, target, bias)
    assert found.loss == 0
    assert found.explained_variance == 1
    # What has no entries explains nothing beyond its bias, the mean.
    none = Codes(codes.values[:, :0], codes.ids[:, :0], UNITS)
    assert abs(run(none, atoms, target, target.mean(0)).explained_variance) < 1e-6


def far_targets_keep_their_variance(run: Losses) -> None:
    target = 1e4 + normal(60, WIDTH, seed=9)
    codes = codes_of(60, 0, UNITS, torch.float32, seed=0)
    exact = target.double()
    found = run(codes, normal(UNITS, WIDTH, seed=7), target, torch.full((WIDTH,), 1e4))
    expected = 1 - (exact - 1e4).square().sum() / (exact - exact.mean(0)).square().sum()
    torch.testing.assert_close(found.explained_variance.double(), expected, rtol=1e-4, atol=1e-4)


def what_is_broken_shows(run: Losses) -> None:
    codes, atoms = codes_of(20, 3, UNITS, torch.float32, seed=10), normal(UNITS, WIDTH, seed=7)
    target = normal(20, WIDTH, seed=11)
    target[4, 2] = torch.nan
    assert run(codes, atoms, target).loss.isnan()
    assert run(codes_of(0, 3, UNITS, torch.float32, seed=0), atoms, target[:0], reduction="sum").loss == 0


def the_same_bits_every_time(run: Losses) -> None:
    first, second = (with_gradients(run, dtype=torch.float32, **CASES[2]) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


def several_dictionaries_are_compared_one_by_one(run: Losses) -> None:
    """Losses of three outputs of the same codes, and gradients of their weighted sum."""
    codes, dead = (codes_of(20, k, UNITS, torch.float64, seed=12 + k) for k in (3, 2))
    values, atoms, target, bias = (
        x.requires_grad_()
        for x in (
            codes.values.clone(),
            *(normal(*shape, seed=14, dtype=torch.float64) for shape in ((3, UNITS, 5), (20, 3, 5), (3, 5))),
        )
    )
    leaves, weights = [values, atoms, target, bias], torch.arange(1.0, 4, dtype=torch.float64)
    for options in ({}, {"prefixes": PREFIXES, "reduction": "sum"}, {"dead": dead}):
        chosen = Codes(values, codes.ids, UNITS)
        found = run(chosen, atoms, target, bias, **options)
        single = [run(chosen, atoms[i], target[:, i], bias[i], **options) for i in range(3)]
        assert torch.equal(found.loss, torch.stack([one.loss for one in single]))
        assert torch.equal(found.explained_variance, torch.stack([one.explained_variance for one in single]))
        own, theirs = (
            torch.autograd.grad(
                torch.stack([w * one.sum() for w, one in zip(weights, losses, strict=True)]).sum(),
                leaves,
                allow_unused=True,
                materialize_grads=True,
            )
            for losses in (found.loss, [one.loss for one in single])
        )
        torch.testing.assert_close(own, theirs)


CHECKS = [
    perfect_codes_explain_everything,
    several_dictionaries_are_compared_one_by_one,
    far_targets_keep_their_variance,
    what_is_broken_shows,
    the_same_bits_every_time,
]


@fault
def reconstruction_forgets_a_block(patch: pytest.MonkeyPatch) -> None:
    """The last block of rows never counts."""
    from lamina_kernels.sparse.losses import blocked

    whole = blocked._blocks
    patch.setattr(blocked, "_blocks", lambda p: list(whole(p))[:-1])


@fault
def reconstruction_decodes_by_the_first_dictionary(patch: pytest.MonkeyPatch) -> None:
    """Of several dictionaries the first stands for all."""
    patch.setattr(torch.Tensor, "unbind", lambda self, dim=0: [self.select(dim, 0)] * self.shape[dim])


@fault
def reconstruction_counts_the_first_prefix_alone(patch: pytest.MonkeyPatch) -> None:
    """An entry's gradient is that of the prefix in which it comes in, not of those that follow."""
    from lamina_kernels.sparse.losses import blocked

    patch.setattr(blocked, "following", lambda slopes: slopes)


@fault
def reconstruction_adds_no_units_of_earlier_blocks(patch: pytest.MonkeyPatch) -> None:
    """The gradient of a unit is that of the last block that names it."""
    from lamina_kernels.sparse.losses import blocked

    def last(out: Tensor, e: Any, rows: Tensor, run: Any) -> None:
        own = torch.zeros_like(out)
        whole(own, e, rows, run)
        units = e.ids.unique()
        out[units] = own[units]

    whole = blocked._add_by_unit
    patch.setattr(blocked, "_add_by_unit", last)


@fault
def reconstruction_takes_residuals_for_constants(patch: pytest.MonkeyPatch) -> None:
    """Gradients of gradients know nothing of what the residuals are of."""
    from lamina_kernels.sparse.losses import twice

    whole = twice.op.decode
    patch.setattr(twice.op, "decode", lambda *given: whole(*given).detach())


@fault
def reconstruction_takes_the_variance_around_zero(patch: pytest.MonkeyPatch) -> None:
    """The explained variance is a share of the target's squares."""
    from lamina_kernels.sparse.losses import op

    whole = op.squares
    patch.setattr(op, "squares", lambda p, form: (whole(p, form)[0], p.target.double().square().sum()))


@fault
def reconstruction_forgets_what_is_given(patch: pytest.MonkeyPatch) -> None:
    """Dead units reconstruct the target itself."""
    from lamina_kernels.sparse.losses import op

    whole = op.squares
    patch.setattr(op, "squares", lambda p, form: whole(p._replace(given=None), form))
