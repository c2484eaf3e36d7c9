"""The formulas of the gradients of scores, against autograd of a dense float64 softmax."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from lamina_kernels.attention import gradients as formulas
from lamina_kernels.attention.problem import Gradients, Problem, Sums
from tests.faults import broken
from tests.kernels.attention_dense import dense, problems


def by_formulas(problem: Problem, seen: torch.Tensor, sums: Sums, gradients: Sums) -> Gradients:
    """All gradients from the formulas, with whole matrices."""
    made = dense(problem, seen)
    heads = problem.q.shape[1] // problem.k.shape[1]
    k, v = (rows.repeat_interleave(heads, 1) for rows in (problem.k, problem.v))
    terms = formulas.terms(problem, sums, gradients)
    t = None if terms.lse is None else made.scores.masked_fill(~seen, -1e30) - terms.lse[..., None]
    p = made.p
    ds = formulas.score_gradients(
        terms, p, gradients.out @ v.mT, t, made.distance, problem.columns, sigmoid=problem.sigmoid
    )
    slopes = None if problem.slopes is None else -(ds * made.distance.abs()).sum((0, 2, 3))
    table = None
    if problem.table is not None:
        table = torch.zeros_like(problem.table)
        table.index_put_((torch.arange(table.shape[0])[:, None, None], made.buckets), ds.sum(0), accumulate=True)
    if problem.softcap is not None:
        ds = formulas.before_cap(ds, made.capped, problem.softcap)
    a = 1 if problem.query_scale is None else problem.query_scale[..., None]
    c = 1 if problem.key_scale is None else problem.key_scale[..., None, :]
    products = ds * made.products * problem.scale
    scaled = ds * problem.scale * a * c

    def by_key_head(rows: torch.Tensor) -> torch.Tensor:
        return rows.unflatten(1, (-1, heads)).sum(2)

    return Gradients(
        scaled @ k,
        by_key_head(scaled.mT @ problem.q),
        by_key_head(p.mT @ gradients.out),
        None if problem.query_scale is None else (products * c).sum(3),
        None if problem.key_scale is None else (products * a).sum(2),
        None if problem.query_bias is None else ds.sum(3),
        None if problem.key_bias is None else ds.sum(2),
        slopes,
        table,
    )


def formulas_are_the_gradients(name: str) -> None:
    problem, seen = problems()[name]
    leaves = {
        field: getattr(problem, field).clone().requires_grad_()
        for field in Gradients._fields
        if getattr(problem, field) is not None
    }
    sums = dense(replace(problem, **leaves), seen).sums
    generator = torch.Generator().manual_seed(0)
    given = {
        field: torch.randn(value.shape, generator=generator, dtype=value.dtype)
        for field, value in sums._asdict().items()
        if value is not None and value.is_floating_point()
    }
    torch.autograd.backward([getattr(sums, field) for field in given], list(given.values()))
    left = sums._replace(**{field: value.detach() for field, value in sums._asdict().items() if value is not None})
    got = by_formulas(problem, seen, left, Sums(**given))
    for field, leaf in leaves.items():
        assert leaf.grad is not None, field
        torch.testing.assert_close(getattr(got, field), leaf.grad, rtol=1e-10, atol=1e-12)
    assert all(value is None for field, value in got._asdict().items() if field not in leaves)


@pytest.mark.parametrize("name", problems())
def test_formulas_are_the_gradients(name):
    formulas_are_the_gradients(name)


@pytest.mark.parametrize(
    ("fault", "name"),
    [
        ("attention_swaps_the_sign_of_log_p", "plain"),
        ("attention_forgets_a_half_of_sum_p2", "sigmoid"),
        ("attention_forgets_what_is_constant_in_a_row", "causal"),
        ("attention_swaps_the_distances", "biased"),
        ("attention_takes_the_next_key_for_the_largest", "masked"),
        ("attention_forgets_the_slope_of_the_cap", "capped"),
    ],
)
def test_a_fault_is_noticed(fault, name):
    with broken(fault), pytest.raises(AssertionError):
        formulas_are_the_gradients(name)
