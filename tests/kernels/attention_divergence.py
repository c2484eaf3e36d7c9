"""The divergence of two attentions by the Triton kernels, and its gradients, by the error rule.

The truth is `reference` in float64, of the same rounded numbers, and its autograd. Values err at most twice as much as
`reference` in float32, gradients at most three times as much as autograd of dense weights in the dtype of the rows.
What the gradients' kernels know of the forward pass is rounded from the truth.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import torch

from lamina_kernels.attention import blocked_divergence, op_forms, reference
from lamina_kernels.attention.problem import Divergences, Gradients, Problem
from lamina_kernels.attention.tiling import Tiling
from tests.kernels import attention_divergence_faults as attention_divergence_faults  # known where checks run
from tests.kernels import attention_forward
from tests.kernels.attention_backward import leaves_of
from tests.kernels.attention_dense import dense
from tests.kernels.covering import pairwise
from tests.kernels.forms import always
from tests.kernels.hsic_checks import normal, poisoned

Passes = Callable[..., Any]

FACTORS: dict[str, list[Any]] = {
    "kind": ["kl", "js", "tv"],
    "known": [False, True],
    "width": [16, 64, 80, 128],
    "other_width": ["same", 16, 40],
    "queries": [1, 17, 45],
    "keys": [1, 33, 70],
    "window": ["all", "causal", "left", "both", "top-left"],
    "places": ["plain", "blocks", "packed"],
    "score": ["plain", "factors", "terms", "capped", "slopes", "table"],
    "group": [1, 2],
    "other_group": [1, 2],
    "dtype": [torch.float32, torch.float16, torch.bfloat16],
    "loads": ["addresses", "descriptors"],
}
CASES = pairwise(FACTORS)


def passes(*, impl: str) -> tuple[Callable[..., Divergences], Callable[..., Any]]:
    """Return the forward and the backward pass of a form."""
    if impl == "reference":
        return reference.divergence, backward_of_the_reference
    form = op_forms.form(impl)
    return form.divergence, form.divergence_backward


def divergence(problems: Sequence[Problem], kind: str) -> Divergences:
    """The divergence of two problems by `reference`."""
    first, second = problems
    return reference.divergence(first, second, kind)


def in_double(problems: Sequence[Problem]) -> list[Problem]:
    """The same problems in float64."""
    return [attention_forward.in_double(p) for p in problems]


def backward_of_the_reference(
    first: Problem, second: Problem, kind: str, found: Divergences, gradient: torch.Tensor
) -> tuple[Gradients, Gradients]:
    problems = [replace(p, **leaves_of(p)) for p in (first, second)]
    made = by_autograd(problems, divergence(problems, kind).value, gradient)
    blank: dict[str, Any] = dict.fromkeys(Gradients._fields)
    return Gradients(**(blank | made[0])), Gradients(**(blank | made[1]))


def tiny(*arguments: Any) -> Tiling:
    """Many tiles of few rows."""
    return Tiling(32, 32, 4, 1)


def settings(case: dict[str, Any]) -> dict[str, Any]:
    """What is replaced in the product, so that small problems take every way through the kernels."""
    tiling = "lamina_kernels.attention.tiling"
    made: dict[str, Any] = {f"{tiling}.divergence{of}": tiny for of in ("", "_of_queries", "_of_keys")}
    if case.get("loads") == "descriptors":
        made["lamina_kernels.tiles.descriptors.takes_descriptors"] = always
    return made


def case(**changes: Any) -> dict[str, Any]:
    """Return a case of several tiles on both sides."""
    plain = {
        "kind": "js", "known": False, "width": 16, "other_width": 40, "queries": 45, "keys": 70, "window": "all",
        "places": "plain", "score": "plain", "group": 1, "other_group": 2, "dtype": torch.float32, "loads": "addresses",
    }  # fmt: skip
    return plain | changes


def problems_of(case: dict[str, Any]) -> tuple[Problem, Problem]:
    """Make two problems of random numbers."""
    made = []
    other_width = case["width"] if case["other_width"] == "same" else case["other_width"]
    for seed, width, group in ((0, case["width"], case["group"]), (20, other_width, case["other_group"])):
        one = {"width": width, "group": group, "seed": seed, "value_width": 1, "tier": 0, "topk": 0, "sigmoid": False}
        p = attention_forward.problem_of(case | one)
        made.append(replace(p, v=p.k))
    return made[0], made[1]


def errs_at_most_twice_as_much_as_plain_torch(passes: Passes, case: dict[str, Any], times: float = 2) -> None:
    forward, _ = passes()
    problems = problems_of(case)
    exact = divergence(in_double(problems), case["kind"])
    known = (exact.lse.float(), exact.other_lse.float()) if case["known"] else None
    first, second = (replace(p, q=p.q.float(), k=p.k.float()) for p in problems)
    # From rounded log-sum-exps, plain torch errs by more.
    allowed = divergence((first, second), case["kind"])
    if known is not None:
        allowed = blocked_divergence.divergence(first, second, case["kind"], known)
    with poisoned():
        got = forward(*problems, case["kind"], known)
    # As of gradients: of a query with one key everything cancels but the rounding of its score.
    size = max((p.scale * (p.q.abs().max() * p.k.abs().max()).item() * p.q.shape[3] ** 0.5) for p in problems)
    more = 2 * torch.finfo(torch.float32).eps * size if case["keys"] == 1 else 0.0
    for name, wanted in exact._asdict().items():
        value = getattr(got, name)
        assert value.dtype == torch.float32, name
        assert value.shape == wanted.shape, name
        attention_forward.errs_at_most(times, name, value, wanted, getattr(allowed, name), more)
    assert (got.value >= 0).all()
    assert got.value.isfinite().all()


def gradients_err_at_most_three_times_as_much_as_plain_torch(
    passes: Passes, case: dict[str, Any], times: float = 3
) -> None:
    _, backward = passes()
    problems = problems_of(case)
    exact = [replace(p, **leaves_of(p, torch.float64)) for p in problems]
    found = divergence(exact, case["kind"])
    # What loss scaling would make of it, on one query in three.
    gradient = normal(*found.value.shape, seed=60)
    gradient[..., ::3] *= 1000
    wanted = by_autograd(exact, found.value, gradient)
    plain = [replace(p, **leaves_of(p)) for p in problems]
    other = by_autograd(plain, dense_divergence(plain, case["kind"]), gradient)

    known = Divergences(*(x.detach().float() for x in found))
    with poisoned():
        got = backward(*problems, case["kind"], known, gradient)
    # A weight is exp(x) of a rounded number x, here scores less log-sum-exps.
    power = max(x.abs().masked_fill(~x.isfinite(), 0).max().item() for x in (found.lse, found.other_lse))
    size = max((p.q.abs().max() * p.k.abs().max() * p.q.shape[3] ** 0.5).item() for p in problems)
    for of_problem, p, exactly, allowed in zip(got, problems, wanted, other, strict=True):
        for name, right in exactly.items():
            value, dtype = getattr(of_problem, name), getattr(p, name).dtype
            assert value.dtype == dtype, name
            assert value.shape == right.shape, name
            single = right.to(dtype)
            atol = 2 * (single + 0.3 - 0.3 - single).abs().max().item()
            atol += power * torch.finfo(torch.float32).eps * right.abs().max().item()
            # Of a query with one key everything cancels.
            atol += 2 * torch.finfo(torch.float32).eps * size * gradient.abs().max().item() if p.k.shape[2] == 1 else 0
            error, most = (value - right).abs().max().item(), (allowed[name] - right).abs().max().item()
            assert error <= times * most + atol, f"{name}: error {error:.3g}, plain torch {most:.3g}, ulp {atol:.3g}"
        assert of_problem.table is None or of_problem.table.isnan().all(), "what no kernel computes is no gradient"


def by_autograd(problems: list[Problem], value: torch.Tensor, gradient: torch.Tensor) -> list[dict[str, torch.Tensor]]:
    """The gradients of the leaves of both problems."""
    held = [
        {name: leaf for name in Gradients._fields if (leaf := getattr(p, name)) is not None and leaf.requires_grad}
        for p in problems
    ]
    leaves = [leaf for each in held for leaf in each.values()]
    made = iter(torch.autograd.grad(value, leaves, gradient.to(value.dtype), allow_unused=True))
    return [
        {
            name: torch.zeros_like(leaf, dtype=torch.float64) if (x := next(made)) is None else x.double()
            for name, leaf in each.items()
        }
        for each in held
    ]


def dense_divergence(problems: Sequence[Problem], kind: str) -> torch.Tensor:
    """The divergence of whole patterns, in the dtype of the rows."""
    logs = []
    for p in problems:
        _, seen, d = reference.scores(p)
        whole = dense(p, seen, d)
        lse = whole.sums.lse
        assert lse is not None
        logs.append((whole.scores - lse.masked_fill(lse == -torch.inf, 0)[..., None]).masked_fill(~seen, -torch.inf))
    p, r = (x.exp() for x in logs)
    m = (p + r) / 2

    def part(a: torch.Tensor, logs: torch.Tensor, others: torch.Tensor) -> torch.Tensor:
        some = (logs > -torch.inf) & (others > -torch.inf)
        return (a * (torch.where(some, logs, 0) - torch.where(some, others, 0))).sum(-1)

    if kind == "kl":
        return part(p, logs[0], logs[1])
    if kind == "js":
        middle = m.clamp_min(torch.finfo(m.dtype).tiny).log()
        return (part(p, logs[0], middle) + part(r, logs[1], middle)) / 2
    return (p - r).abs().sum(-1) / 2


def a_model_that_needs_no_gradient_costs_nothing(passes: Passes, kind: str) -> None:
    """Gradients of one model are those of both, and the others are not computed."""
    forward, backward = passes()
    problems = problems_of(case())
    found = forward(*problems, kind)
    gradient = normal(*found.value.shape, seed=60)
    both = backward(*problems, kind, found, gradient)
    for side in range(2):
        alone = backward(*problems, kind, found, gradient, (side == 0, side == 1))
        assert alone[1 - side] is None
        for one, other in zip(alone[side], both[side], strict=True):
            assert one is other is None or torch.equal(one, other)


def a_key_that_one_model_hides_has_its_share(passes: Passes, kind: str) -> None:
    """Keys hidden by terms of one model alone: 40 from the first, one from the second, all from the second."""
    forward, backward = passes()
    problems = list(problems_of(case()))
    for side, hidden in enumerate((((1, 0, slice(0, 40)),), ((0, 1, slice(3, 4)), (1, 1, slice(0, 70))))):
        bias = torch.zeros(2, 2, 70)
        for b, h, keys in hidden:
            bias[b, h, keys] = -torch.inf
        q, k = (torch.cat([x, x.flip(2)]) for x in (problems[side].q, problems[side].k))
        problems[side] = replace(problems[side], q=q, k=k, v=k, key_bias=bias)
    p, r = (torch.softmax(reference.scores(attention_forward.in_double(x))[0], -1).nan_to_num(0) for x in problems)
    m = (p + r) / 2
    wanted = {
        "kl": torch.where(p > 0, p * (p / r).log(), 0).sum(-1),
        "js": (torch.xlogy(p, torch.where(p > 0, p / m, 1)) + torch.xlogy(r, torch.where(r > 0, r / m, 1))).sum(-1) / 2,
        "tv": (p - r).abs().sum(-1) / 2,
    }[kind]
    with poisoned():
        got = forward(problems[0], problems[1], kind)
    torch.testing.assert_close(got.value.double(), wanted, rtol=1e-4, atol=1e-5)
    assert torch.equal(got.value == torch.inf, wanted == torch.inf)
    assert (got.value[:, 1] == torch.inf).all() == (kind == "kl")
    gradient = torch.ones_like(got.value)
    with poisoned():
        made = backward(problems[0], problems[1], kind, got, gradient)
    assert all(x.isfinite().all() for each in made for x in (each.q, each.k, each.key_bias))
    if kind == "kl":
        # What is infinite whatever the scores passes no gradient.
        assert not made[0].q[:, 1].any()
        assert not made[1].q[:, 1].any()
        assert made[0].q[:, 0].any()


def a_model_near_another_has_a_small_divergence(passes: Passes, kind: str) -> None:
    """Scores that differ by a hundredth: right to rounding, which "kl" takes from a difference of logarithms."""
    forward, backward = passes()
    first, _ = problems_of(case())
    second = replace(first, q=first.q * 1.01)
    exact = divergence(in_double((first, second)), kind)
    value = forward(first, second, kind).value
    atol = {"kl": 2 * torch.finfo(torch.float32).eps * exact.lse.max().item(), "js": 1e-8, "tv": 1e-6}[kind]
    torch.testing.assert_close(value.double(), exact.value, rtol=1e-3, atol=atol)
    same = forward(first, first, kind)
    assert not same.value.any()
    for made in backward(first, first, kind, same, torch.ones_like(value)):
        assert made.q.abs().max() < 1e-5
        assert made.k.abs().max() < 1e-4


def scores_of_ten_thousand_keep_their_divergence(passes: Passes, kind: str) -> None:
    """Two keys 1e4 below nothing, one nat apart in the first model and two in the other; and a third, far away."""
    forward, _ = passes()
    q, k, other = torch.zeros(1, 1, 1, 16), torch.zeros(1, 1, 3, 16), torch.zeros(1, 1, 3, 16)
    q[..., 0] = 1
    k[0, 0, :, 0] = torch.tensor([10000.0, 10001.0, -20000.0])
    other[0, 0, :, 0] = torch.tensor([10002.0, 10000.0, 0.0])
    problems = [Problem(q, x, x, max_seqlen_q=1, max_seqlen_k=3) for x in (k, other)]
    exact = divergence(in_double(problems), kind).value
    torch.testing.assert_close(forward(problems[0], problems[1], kind).value.double(), exact, rtol=1e-5, atol=1e-6)


def one_key_leaves_nothing(passes: Passes, kind: str) -> None:
    """A first query that sees one key, by scores whose log-sum-exps are rounded: no divergence, and no gradient."""
    forward, backward = passes()
    problems = [replace(p, causal=True, bottom_right=False, scale=7.3) for p in problems_of(case())]
    found = forward(problems[0], problems[1], kind)
    gradient = torch.zeros_like(found.value)
    gradient[:, :, 0] = 1
    assert found.value[:, :, 0].abs().max() < 1e-5
    # As a log-sum-exp that was computed elsewhere is rounded.
    found = found._replace(lse=found.lse * (1 + 3e-7), other_lse=found.other_lse * (1 - 3e-7))
    for made in backward(problems[0], problems[1], kind, found, gradient):
        assert made.q.abs().max() < 0.02, made.q.abs().max()
        assert made.k.abs().max() < 0.02, made.k.abs().max()


CHECKS = [
    a_model_near_another_has_a_small_divergence,
    scores_of_ten_thousand_keep_their_divergence,
    one_key_leaves_nothing,
    a_key_that_one_model_hides_has_its_share,
    a_model_that_needs_no_gradient_costs_nothing,
]
