"""The gradients of `attend` by the Triton kernels, by the error rule: at most three times the error of plain torch.

The truth is autograd of `reference` in float64, of the same rounded numbers; plain torch is autograd of a dense softmax
in the dtype of the rows. What the kernels know of the forward pass is rounded from the truth.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch

from lamina_kernels.attention import reference
from lamina_kernels.attention.masking import block_mask
from lamina_kernels.attention.problem import Gradients, Problem, Sums
from tests.kernels import attention_backward_faults as attention_backward_faults  # known where checks run
from tests.kernels.attention_dense import dense
from tests.kernels.covering import pairwise
from tests.kernels.hsic_checks import normal, poisoned

EPS = torch.finfo(torch.float32).eps

Backward = Callable[[Problem, Sums, Sums], Gradients]


def backward(problem: Problem, sums: Sums, gradients: Sums, *, impl: str) -> Gradients:
    """Run the backward pass of a form."""
    assert impl == "triton"
    from lamina_kernels.attention import backward_launch

    return backward_launch.backward(problem, sums, gradients)


FACTORS: dict[str, list[Any]] = {
    "width": [16, 64, 80, 128, 256],
    "queries": [1, 17, 127, 129],
    "keys": [1, 17, 127, 129],
    "value_width": ["same", 16, 40, 0],
    "window": ["all", "causal", "left", "both", "top-left"],
    "places": ["plain", "blocks", "packed"],
    "score": ["plain", "factors", "terms", "capped", "slopes"],
    "gradients": ["out", "all", "statistics"],
    "group": [1, 2],
    "sigmoid": [False, True],
    "dtype": [torch.float32, torch.float16],
}
CASES = pairwise(FACTORS)

WINDOWS: dict[str, dict[str, Any]] = {
    "all": {},
    "causal": {"causal": True},
    "left": {"left": 20, "causal": True},
    "both": {"left": 9, "right": 30},
    "top-left": {"causal": True, "bottom_right": False},
}
STATISTICS = ["lse", "max", "entropy", "expected_score", "sum_p2", "distance", "columns"]


def problem_of(case: dict[str, Any]) -> Problem:
    """Make a problem of random numbers."""
    packed = case["places"] == "packed"
    n, m, d = case["queries"], case["keys"], case["width"]
    dv = d if case["value_width"] == "same" else case["value_width"]
    total_n, total_m = (n + 5, m + 7) if packed else (n, m)
    # Two sequences where one side is a single tile: its other side still has several.
    batch, heads = 1 if packed or min(n, m) > 17 else 2, 2
    rows: dict[str, Any] = {
        "q": normal(batch, heads, total_n, d, seed=1, dtype=case["dtype"]),
        "k": normal(batch, heads // case["group"], total_m, d, seed=2, dtype=case["dtype"]),
        "v": normal(batch, heads // case["group"], total_m, dv, seed=3, dtype=case["dtype"]),
        "columns": normal(1, heads, total_m, 3, seed=4),
        "scale": d**-0.5,
        "sigmoid": case["sigmoid"],
        "tier": 3,
        "max_seqlen_q": max(n, 5) if packed else n,
        "max_seqlen_k": max(m, 7) if packed else m,
        **WINDOWS[case["window"]],
    }
    of_query, of_key = (batch, heads, total_n), (batch, heads, total_m)
    if case["score"] in ("factors", "capped"):
        rows |= {
            "query_scale": normal(*of_query, seed=5).exp() / 2,
            "key_scale": normal(batch, 1, total_m, seed=6).exp().expand(of_key),
        }
    if case["score"] in ("terms", "capped"):
        bias = normal(*of_key, seed=8)
        bias[..., ::13] = -torch.inf
        rows |= {"query_bias": normal(*of_query, seed=7), "key_bias": bias}
    if case["score"] == "capped":
        rows["softcap"] = 2.0
    if case["score"] in ("slopes", "capped"):
        rows["slopes"] = torch.tensor([0.3, 0.02])
    if case["score"] == "table":
        rows["table"] = normal(heads, 9, seed=9)
    if packed:
        rows |= {
            "cu_seqlens_q": torch.tensor([0, n, n + 5], dtype=torch.int32),
            "cu_seqlens_k": torch.tensor([0, m, m + 7], dtype=torch.int32),
        }
    if case["places"] == "blocks":
        rows["mask"] = block_mask(
            lambda b, h, i, j: ((i // 5 + j // 3) % 4 != h) | (i // 64 != j // 64), n, m, heads=heads, block=64
        )
    return Problem(**rows)


def given(sums: Sums, kind: str) -> dict[str, torch.Tensor]:
    """Random gradients of what came out, 0 where it is not finite."""
    names = {"out": ["out"], "all": ["out", *STATISTICS], "statistics": STATISTICS}[kind]
    made = {}
    for seed, name in enumerate(names):
        value = getattr(sums, name)
        if value is not None:
            made[name] = normal(*value.shape, seed=20 + seed, dtype=torch.float64) * value.isfinite()
            if name == "distance":
                # Variances of distances are large numbers.
                made[name] /= 30
    return made


def leaves_of(problem: Problem, dtype: torch.dtype | None = None) -> dict[str, torch.Tensor]:
    """What gradients are asked of, as leaves in another dtype; not of a table, whose gradient is refused."""
    return {
        name: value.detach().to(dtype or value.dtype).requires_grad_()
        for name in Gradients._fields
        if name != "table" and (value := getattr(problem, name)) is not None
    }


def errs_at_most_three_times_as_much_as_plain_torch(backward: Backward, case: dict[str, Any], times: float = 3) -> None:
    problem = problem_of(case)
    assert problem.columns is not None
    exact = replace(problem, **leaves_of(problem, torch.float64), columns=problem.columns.double())
    sums = reference.forward(exact)
    gradients = given(sums, case["gradients"])
    if "out" in gradients:
        gradients["out"] = gradients["out"].to(problem.v.dtype).double()
    wanted = by_autograd(exact, sums, gradients)
    plain = replace(problem, **leaves_of(problem))
    _, seen, distance = reference.scores(exact)
    other = by_autograd(plain, dense(plain, seen, distance).sums, gradients)

    known = known_of(problem, sums)
    asked = {name: rounded(value) for name, value in gradients.items()}
    if "out" in asked:
        asked["out"] = asked["out"].to(problem.v.dtype)
    before = {name: getattr(problem, name).clone() for name in wanted}
    values = problem.v.abs().max().clamp_min(1) if problem.v.numel() else 1
    size = problem.q.abs().max() * problem.k.abs().max() * values * problem.q.shape[-1] ** 0.5
    with poisoned():
        got = backward(problem, known, Sums(**{"out": None, **asked}))  # pyright: ignore[reportArgumentType]
    # A weight is exp(x) of a rounded number x, here scores less log-sum-exps.
    power = max(
        part.abs().masked_fill(~part.isfinite(), 0).max().item() for part in (sums.lse, sums.max) if part is not None
    )
    of_output = what_rounding_the_output_adds(sums, known.out, gradients)
    for name, exactly in wanted.items():
        value, dtype = getattr(got, name), getattr(problem, name).dtype
        assert value.dtype == dtype, name
        assert value.shape == exactly.shape, name
        if not value.numel():
            continue
        single = exactly.to(dtype)
        atol = 2 * (single + 0.3 - 0.3 - single).abs().max().item() + of_output.get(name, 0.0)
        atol += power * EPS * exactly.abs().max().item()
        if case["keys"] == 1 or seen.sum(-1).max() == 1:
            # Of a softmax of one key everything cancels, and plain torch has 0.
            atol += 2 * EPS * size * (distance.abs().sum() if name == "slopes" else 1)
        error, allowed = (value - exactly).abs().max().item(), (other[name] - exactly).abs().max().item()
        assert error <= times * allowed + atol, f"{name}: error {error:.3g}, plain torch {allowed:.3g}, ulp {atol:.3g}"
        assert torch.equal(getattr(problem, name), before[name]), name
    if got.table is not None:
        assert got.table.isnan().all(), "what no kernel computes must not look like a gradient"
    assert all(value is None for name, value in got._asdict().items() if name not in (*wanted, "table"))


def what_rounding_the_output_adds(
    sums: Sums, out: torch.Tensor, gradients: dict[str, torch.Tensor]
) -> dict[str, float]:
    """What it adds to gradients that are sums over all keys of a query, in which nothing of it cancels.

    The kernels know the output as it was rounded, and so <dout, out>, which each weight is multiplied with.
    """
    if "out" not in gradients or sums.distance is None:
        return {}
    off = (gradients["out"] * (out.double() - sums.out)).sum(-1)
    return {
        "query_bias": off.abs().max().item(),
        "slopes": (off * sums.distance[2]).sum((0, 2)).abs().max().item(),
    }


def known_of(problem: Problem, sums: Sums) -> Sums:
    """What the kernels know of a forward pass in float64."""
    return sums._replace(
        **{name: rounded(part.detach()) for name, part in sums._asdict().items() if part is not None}
        | {"out": sums.out.detach().to(problem.v.dtype)}
    )


def rounded(part: torch.Tensor) -> torch.Tensor:
    return part.float() if part.is_floating_point() else part


def by_autograd(problem: Problem, sums: Sums, gradients: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The gradients of all leaves; 0 for what nothing depends on."""
    held = {name: getattr(problem, name) for name in Gradients._fields}
    leaves = {name: leaf for name, leaf in held.items() if leaf is not None and leaf.requires_grad}
    parts = [getattr(sums, name) for name in gradients]
    given = [value.to(part.dtype) for value, part in zip(gradients.values(), parts, strict=True)]
    made = torch.autograd.grad(parts, list(leaves.values()), given, allow_unused=True)
    return {
        name: torch.zeros_like(leaf, dtype=torch.float64) if gradient is None else gradient.double()
        for (name, leaf), gradient in zip(leaves.items(), made, strict=True)
    }


def some(**changes: Any) -> tuple[Problem, Sums, Sums]:
    """Return a problem, what its forward pass left, and gradients of all of it."""
    problem = problem_of({name: values[0] for name, values in FACTORS.items()} | {"queries": 40, "keys": 70} | changes)
    sums = reference.forward(problem)
    made = {name: rounded(value) for name, value in given(sums, "all").items()}
    return problem, sums, Sums(**{**made, "out": made["out"].to(problem.v.dtype)})


def equal(first: Gradients, second: Gradients) -> None:
    for name, value in first._asdict().items():
        other = getattr(second, name)
        assert (value is None) == (other is None), name
        assert value is None or torch.equal(value, other), name


def the_same_bits_every_time(backward: Backward) -> None:
    given = some(score="capped", window="both", group=2)
    equal(backward(*given), backward(*given))


def addresses_take_64_bits(backward: Backward) -> None:
    # The last of 40 keys starts 2^31 numbers behind the first, and more; memory that nobody touches costs nothing.
    stride = 55_200_000
    problem, sums, gradients = some(queries=20, keys=40, group=2, dtype=torch.float16)
    far = torch.empty(39 * stride + 16, dtype=torch.float16).as_strided((1, 1, 40, 16), (0, 0, stride, 1))
    far.copy_(problem.k)
    equal(backward(replace(problem, k=far), sums, gradients), backward(problem, sums, gradients))


def kernels_are_launched(backward: Backward) -> None:
    # Of the outputs, the queries, the keys.
    from lamina_kernels.attention import backward_launch

    launched = []
    with pytest.MonkeyPatch.context() as patch:
        whole = backward_launch.run
        patch.setattr(backward_launch, "run", lambda kernel, *rest: (launched.append(kernel), whole(kernel, *rest)))
        backward(*some(queries=3, keys=3))
    assert launched == [backward_launch.delta_kernel, backward_launch.queries_kernel, backward_launch.keys_kernel]


CHECKS = [the_same_bits_every_time, addresses_take_64_bits, kernels_are_launched]
