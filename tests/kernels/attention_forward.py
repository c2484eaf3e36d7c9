"""The forward pass of attention in Triton: at most twice the error of plain torch, both against float64.

Plain torch is the form `reference` in single precision on the same rounded rows; the output of half-precision rows is
compared with weights that are rounded to half precision before they are multiplied, as tensor cores want them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch

from lamina_kernels.attention import reference
from lamina_kernels.attention.masking import block_mask
from lamina_kernels.attention.problem import Problem, Sums
from lamina_kernels.attention.tiling import Tiling
from tests.kernels import attention_forward_faults as attention_forward_faults  # known where checks run
from tests.kernels.covering import pairwise
from tests.kernels.forms import always
from tests.kernels.hsic_checks import normal, poisoned

Forward = Callable[[Problem], Sums]


def forward(problem: Problem, *, impl: str) -> Sums:
    """Run the forward pass of a form."""
    assert impl == "triton"
    from lamina_kernels.attention import launch

    return launch.forward(problem)


FACTORS: dict[str, list[Any]] = {
    "width": [16, 64, 80, 128, 256],
    "queries": [1, 17, 127, 129],
    "keys": [1, 17, 127, 129],
    "value_width": ["same", 16, 40, 0],
    "window": ["all", "causal", "left", "both", "top-left"],
    "places": ["plain", "blocks", "packed"],
    "score": ["plain", "factors", "terms", "capped", "slopes", "table"],
    "tier": [0, 1, 2, 3],
    "topk": [0, 3],
    "group": [1, 2],
    "sigmoid": [False, True],
    "dtype": [torch.float32, torch.float16, torch.bfloat16],
    "loads": ["addresses", "descriptors"],
    "parts": [1, 3],
}
CASES = pairwise(FACTORS)

WINDOWS: dict[str, dict[str, Any]] = {
    "all": {},
    "causal": {"causal": True},
    "left": {"left": 20, "causal": True},
    "both": {"left": 9, "right": 30},
    "top-left": {"causal": True, "bottom_right": False},
}


def tiny(*arguments: Any) -> Tiling:
    """Many tiles of few rows."""
    return Tiling(64, 32, 4, 2)


def one(*arguments: Any) -> int:
    """Sum whole rows, as Blackwell's threads do."""
    return 1


def settings(case: dict[str, Any]) -> dict[str, Any]:
    """What is replaced in the product, so that small problems take every way through the kernels."""
    launch = "lamina_kernels.attention.launch"
    made: dict[str, Any] = {
        "lamina_kernels.attention.tiling.forward": tiny,
        "lamina_kernels.attention.tiling.top": tiny,
    }
    if case.get("loads") == "descriptors":
        made["lamina_kernels.tiles.descriptors.takes_descriptors"] = always
        made["lamina_kernels.attention.tiling.parts"] = one
    if case.get("parts", 1) > 1:
        # A part for every 40 keys, however many programs there are.
        made |= {f"{launch}.KEYS": 40, f"{launch}.PROGRAMS": 1000}
    return made


def problem_of(case: dict[str, Any]) -> Problem:
    """Make a problem of random numbers."""
    packed, base = case["places"] == "packed", case.get("seed", 0)
    n, m, d, heads = case["queries"], case["keys"], case["width"], 2
    # Two sequences where one side is a single tile: its other side still has several.
    batch, queries, keys = (1, n + 5, m + 7) if packed else (1 if min(n, m) > 17 else 2, n, m)
    dv = d if case["value_width"] == "same" else case["value_width"]
    # Heads lie inside of positions, as models have them.
    rows = {
        name: normal(batch, length, of, width, seed=base + seed, dtype=case["dtype"]).transpose(1, 2)
        for name, length, of, width, seed in (
            ("q", queries, heads, d, 1),
            ("k", keys, heads // case["group"], d, 2),
            ("v", keys, heads // case["group"], dv, 3),
        )
    }
    made: dict[str, Any] = {"scale": 2 * d**-0.5, **WINDOWS[case["window"]]}
    if case["score"] in ("factors", "capped"):
        made["query_scale"] = (normal(batch, heads, queries, seed=base + 4) / 2).exp() / 2
        made["key_scale"] = (normal(batch, 1, keys, seed=base + 5) / 2).exp().expand(batch, heads, keys)
    if case["score"] in ("terms", "capped"):
        made["query_bias"] = normal(batch, heads, queries, seed=base + 6)
        made["key_bias"] = normal(batch, heads, keys, seed=base + 7)
        made["key_bias"][..., 3::13] = -torch.inf
    if case["score"] in ("slopes", "capped"):
        made["slopes"] = torch.tensor([0.01, 0.1])
    if case["score"] == "capped":
        made["softcap"] = 2.0
    if case["score"] == "table":
        made["table"] = normal(heads, 2 * 20 + 1, seed=base + 8)
    if packed:
        for name, first in (("q", n), ("k", m)):
            made[f"cu_seqlens_{name}"] = torch.tensor([0, first, first, first + 5 + 2 * (name == "k")]).int()
    if case["places"] == "blocks":
        made["mask"] = block_mask(
            lambda b, h, i, j: ((i // 7 + j // 50 + h) % 3 > 0) | ((i // 64 + j // 64) % 2 > 0),
            n,
            m,
            heads=heads,
            block=64,
        )
    if case["tier"] == 3:
        made["columns"] = normal(1, heads, keys, 3, seed=base + 9)
    longest = {"max_seqlen_q": max(n, 5) if packed else n, "max_seqlen_k": max(m, 7) if packed else m}
    return Problem(**rows, **made, **longest, tier=case["tier"], topk=case["topk"], sigmoid=case["sigmoid"])


def in_double(p: Problem) -> Problem:
    """Return the same problem in float64."""
    names = ("q", "k", "v", "query_scale", "key_scale", "query_bias", "key_bias", "slopes", "table", "columns")
    return replace(p, **{name: x.double() for name in names if (x := getattr(p, name)) is not None})


def plain(p: Problem) -> Sums:
    """Return what plain torch makes of the problem in its precision."""
    names = ("q", "k", "v")
    single = reference.forward(replace(p, **{name: getattr(p, name).float() for name in names}))
    if p.q.dtype == torch.float32:
        return single
    s, seen, _ = reference.scores(p)
    weights = s.sigmoid().masked_fill(~seen, 0) if p.sigmoid else s.softmax(-1).nan_to_num(0)
    v = p.v.repeat_interleave(p.q.shape[1] // p.v.shape[1], 1)
    return single._replace(out=weights.to(p.v.dtype) @ v)


def times_on_a_gpu(dtype: torch.dtype, times: float) -> float:
    """Return how many times the error of plain torch a GPU is allowed.

    Tensor cores cut digits off when they add: ten times is what the tests of PyTorch's FlexAttention allow float32.
    """
    return 10 if dtype == torch.float32 else times


def errs_at_most_twice_as_much_as_plain_torch(forward: Forward, case: dict[str, Any], times: float = 2) -> None:
    p = problem_of(case)
    truth, baseline = reference.forward(in_double(p)), plain(p)
    with poisoned():
        got = forward(p)
    for name, exact in truth._asdict().items():
        value = getattr(got, name)
        assert (value is None) == (exact is None), name
        if exact is None:
            continue
        assert value.shape == exact.shape, name
        if name in ("argmax", "top_keys"):
            assert torch.equal(value, exact), name
            continue
        assert value.dtype == (p.v.dtype if name == "out" else torch.float32)
        planes = zip(value, exact, getattr(baseline, name), strict=True) if name == "distance" else None
        for plane in planes or [(value, exact, getattr(baseline, name))]:
            errs_at_most(times, name, *plane)


def errs_at_most(
    times: float, name: str, got: torch.Tensor, exact: torch.Tensor, baseline: torch.Tensor, more: float = 0.0
) -> None:
    finite = exact.isfinite()
    assert torch.equal(got.double()[~finite], exact[~finite]), f"{name}: {got[~finite]}"
    got, exact, baseline = got[finite], exact[finite], baseline[finite]
    if not got.numel():
        return
    # Two units in the last place of the largest: of few numbers, plain torch may happen to round none.
    largest = exact.abs().max().to(got.dtype)
    atol = 2 * (largest.nextafter(torch.tensor(torch.inf, dtype=got.dtype)) - largest).item() + more
    error, allowed = (got.double() - exact).abs().max().item(), (baseline.double() - exact).abs().max().item()
    assert error <= times * allowed + atol, f"{name}: error {error:.3g}, plain torch {allowed:.3g}, ulp {atol:.3g}"


def case(**values: Any) -> dict[str, Any]:
    """Return a case, plain but for these values."""
    return {name: choices[0] for name, choices in FACTORS.items()} | {"queries": 40, "keys": 70} | values


def scores_of_ten_thousand_keep_their_entropy(forward: Forward) -> None:
    # Two keys of nearly the same score far above the rest: lse - E[s] would be off by about 1e-3 nat.
    q = torch.full((1, 1, 3, 16), 25.0)
    k = torch.full((1, 1, 90, 16), 24.0)
    k[:, :, [50, 80]] = 25.0
    k[:, :, 80, 0] -= 0.0625
    got = forward(Problem(q, k, k, scale=1.0, max_seqlen_q=3, max_seqlen_k=90, tier=2))
    p = torch.sigmoid(torch.tensor(25 * 0.0625, dtype=torch.float64))
    expected = -(p * p.log() + (1 - p) * (1 - p).log())
    assert got.entropy is not None
    assert got.max is not None
    assert got.max.min() >= 10_000
    torch.testing.assert_close(got.entropy, expected.float().expand(1, 1, 3), rtol=1e-6, atol=0)


def far_from_their_keys_queries_keep_the_variance(forward: Forward) -> None:
    # All but nothing of the weight on two neighbors, 5000 keys back: the variance is 1/4, of distances of 5000.
    q = torch.full((1, 1, 1, 16), 10.0)
    k = torch.zeros(1, 1, 5000, 16)
    k[:, :, 3:5] = 1.0
    got = forward(Problem(q, k, k, scale=1.0, max_seqlen_q=1, max_seqlen_k=5000, tier=2))
    assert got.distance is not None
    expected = torch.tensor([4995.5, 0.25, 4995.5, 0.25])
    torch.testing.assert_close(got.distance.flatten(), expected, rtol=1e-6, atol=1e-4)


def keys_on_both_sides_count_apart(forward: Forward) -> None:
    # Query i sees keys i - 40 and i + 40 alone, and both alike: d has mean 0 and variance 1600, |d| is 40.
    n = 200
    i, j = torch.arange(n)[:, None], torch.arange(n)
    rows = torch.zeros(1, 1, n, 16)
    mask = block_mask(lambda b, h, i, j: (i - j).abs() == 40, n, n, block=64)
    del i, j
    got = forward(Problem(rows, rows, rows, max_seqlen_q=n, max_seqlen_k=n, mask=mask, tier=2))
    assert got.distance is not None
    middle = got.distance[..., 40:160]
    expected = torch.tensor([0.0, 1600.0, 40.0, 0.0])[:, None, None, None].expand_as(middle)
    torch.testing.assert_close(middle, expected, rtol=1e-5, atol=1e-2)


def of_equal_scores_the_first_key_is_the_largest(forward: Forward) -> None:
    # The window's left edge comes after its inside.
    rows = torch.zeros(1, 1, 150, 16)
    got = forward(Problem(rows, rows, rows, max_seqlen_q=150, max_seqlen_k=150, left=70, causal=True, tier=2, topk=2))
    first = (torch.arange(150) - 70).clamp(min=0)
    assert got.argmax is not None
    assert torch.equal(got.argmax[0, 0], first)
    assert got.top_keys is not None
    second = torch.where(torch.arange(150) > 0, first + 1, -1)
    assert torch.equal(got.top_keys[0, 0], torch.stack([first, second], 1))


def of_equal_scores_the_first_key_is_the_largest_whatever_the_mask_lists_first(forward: Forward) -> None:
    # The first block is seen in part: it is visited behind the second, which is seen whole.
    rows = torch.zeros(1, 1, 150, 16)
    mask = block_mask(lambda b, h, i, j: (j >= 64) | (j % 50 == 1 + 0 * i), 150, 150, block=64)
    p = Problem(rows, rows, rows, max_seqlen_q=150, max_seqlen_k=150, mask=mask, tier=2, topk=4)
    got = forward(p)
    assert got.argmax is not None
    assert (got.argmax == 1).all()
    assert got.top_keys is not None
    assert torch.equal(got.top_keys[0, 0], torch.tensor([1, 51, 64, 65]).expand(150, 4))


def a_broken_row_shows_and_breaks_no_other(forward: Forward) -> None:
    p = problem_of(case(tier=1, window="causal"))
    q = p.q.clone()
    q[0, 1, 7] = torch.nan
    got, whole = forward(replace(p, q=q)), forward(p)
    for name in ("out", "lse", "entropy"):
        value, expected = getattr(got, name), getattr(whole, name)
        assert value[0, 1, 7].isnan().all(), name
        others = torch.ones(value.shape[:3], dtype=torch.bool)
        others[0, 1, 7] = False
        assert torch.equal(value[others], expected[others]), name


def packed_sequences_do_not_see_each_other(forward: Forward) -> None:
    p = problem_of(case(places="packed", window="causal", tier=2))
    v, k = p.v.clone(), p.k.clone()
    v[:, :, 70:], k[:, :, 70:] = torch.nan, torch.inf
    got, whole = forward(replace(p, k=k, v=v)), forward(p)
    assert torch.equal(got.out[:, :, :40], whole.out[:, :, :40])
    assert got.out[:, :, 40:].isnan().all()


def the_same_bits_every_time(forward: Forward) -> None:
    p = problem_of(case(tier=3, topk=3, window="left"))
    for first, second in zip(forward(p), forward(p), strict=True):
        assert (first is None) == (second is None)
        assert first is None or second is None or torch.equal(first, second)


def addresses_take_64_bits(forward: Forward) -> None:
    # The last of 40 keys starts 2^31 numbers behind the first, and more; memory that nobody touches costs nothing.
    stride = 55_200_000
    p = problem_of(case(keys=40, group=2, dtype=torch.float16))
    near = p.k[:1].contiguous()
    far = torch.empty(39 * stride + 16, dtype=torch.float16).as_strided((1, 1, 40, 16), (0, 0, stride, 1))
    far.copy_(near)
    p = replace(p, q=p.q[:1], k=near, v=p.v[:1])
    assert torch.equal(forward(replace(p, k=far)).out, forward(p).out)


def kernels_are_launched(forward: Forward) -> None:
    # Once, and once more for the largest scores.
    from lamina_kernels.attention import launch

    launched = []
    with pytest.MonkeyPatch.context() as patch:
        whole = launch.run
        patch.setattr(launch, "run", lambda kernel, *rest: (launched.append(kernel), whole(kernel, *rest)))
        forward(problem_of(case(queries=3, keys=3, topk=1)))
        forward(problem_of(case(queries=3, keys=3)))
    forward_kernel = launch.attention_forward_kernel
    assert launched == [forward_kernel, launch.attention_top_kernel, forward_kernel]


def what_is_seen_late_is_right_in_fused_instructions(forward: Forward) -> None:
    # Rows whose first tile shows them nothing, where s to_log2 is not rounded before m to_log2 is taken off, as on a
    # GPU: the interpreter rounds both.
    from lamina_kernels.attention import forward as kernel
    from tests.kernels import attention_wrong

    p = problem_of(case(queries=129, keys=129, window="left", width=64, tier=2))
    wanted = reference.forward(in_double(p))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(kernel, "under", attention_wrong.fused)
        got = forward(p)
    for name in ("out", "lse", "entropy", "sum_p2"):
        torch.testing.assert_close(getattr(got, name).double(), getattr(wanted, name), rtol=1e-4, atol=1e-5)


CHECKS = [
    kernels_are_launched,
    what_is_seen_late_is_right_in_fused_instructions,
    scores_of_ten_thousand_keep_their_entropy,
    far_from_their_keys_queries_keep_the_variance,
    keys_on_both_sides_count_apart,
    of_equal_scores_the_first_key_is_the_largest,
    of_equal_scores_the_first_key_is_the_largest_whatever_the_mask_lists_first,
    a_broken_row_shows_and_breaks_no_other,
    packed_sequences_do_not_see_each_other,
    the_same_bits_every_time,
]
