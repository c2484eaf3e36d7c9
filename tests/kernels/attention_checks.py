"""What holds for `attend` in every form, by closed forms, planted truths, and torch's own attention."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch

from lamina_kernels.attention import (
    ALiBi,
    Attention,
    Cosine,
    Distance,
    KeyBias,
    RelativeBias,
    Sigmoid,
    Softmax,
    SquaredDistance,
    block_mask,
    documents,
    merge,
)
from tests.kernels import attention_faults  # noqa: F401  registered also where a check runs in a process of its own
from tests.kernels.attention_truth import NAMES, OF_A_SIGMOID, truth
from tests.kernels.hsic_checks import normal

Attend = Callable[..., Any]
FIRST = tuple(name for name in NAMES if name not in ("received", "block_mass"))


def close(got: Any, wanted: Any, name: str = "", rtol: float = 1e-4, atol: float = 1e-4) -> None:
    """Assert that two tensors, or all of two results, are equal up to rounding; what the first lacks is not asked."""
    if isinstance(got, Attention):
        close(got.out, wanted.out, "out", rtol, atol)
        for field, value in got.stats._asdict().items():
            close(value, getattr(wanted.stats, field), field, rtol, atol)
    elif isinstance(got, Distance):
        for field, value in got._asdict().items():
            close(value, getattr(wanted, field), f"distance.{field}", rtol, atol * 10)
    elif isinstance(got, dict):
        for key, value in got.items():
            close(value, wanted[key], f"target {key}", rtol, atol)
    elif got is not None:
        torch.testing.assert_close(
            got.double(),
            torch.as_tensor(wanted, dtype=torch.float64),
            rtol=rtol,
            atol=atol,
            msg=lambda text: f"{name}: {text}",
        )


def tensors(result: Any) -> list[torch.Tensor]:
    """All tensors of a result."""
    if isinstance(result, torch.Tensor):
        return [result]
    parts = result.values() if isinstance(result, dict) else result if isinstance(result, tuple) else ()
    return [tensor for part in parts for tensor in tensors(part)]


def rows(q: tuple[int, ...], kv: tuple[int, ...], dv: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> Any:
    """Queries of a shape, keys, and values of a width."""
    return (
        normal(*q, seed=seed, dtype=dtype),
        normal(*kv, seed=seed + 1, dtype=dtype),
        normal(*kv[:-1], dv, seed=seed + 2, dtype=dtype),
    )


def targets(Nq: int, Nk: int) -> dict[str, Any]:
    """One of each kind, and one that is outside for some."""
    index = torch.arange(Nq) * 7 % (Nk + 2) - 1
    return {"previous": -1, "next": 1, "first": torch.zeros(Nq, dtype=torch.int64), "any": index,
            "even": torch.arange(Nk) % 2 == 0, "few": torch.arange(Nk)[None] < 3}  # fmt: skip


def agrees_with_the_truth(
    attend: Attend, case: str, dtype: torch.dtype = torch.float32, tolerance: float = 1e-4
) -> None:
    """Output and all statistics that the case has, against the query-by-query truth."""
    (q, k, v), options = CASES[case]()
    names = OF_A_SIGMOID if isinstance(options.get("normalizer"), Sigmoid) else NAMES
    if "cu_seqlens_q" in options:
        names = tuple(name for name in names if name != "block_mass")
        options |= {"targets": targets(q.shape[0], k.shape[0])}
    else:
        options |= {"targets": targets(q.shape[2], k.shape[2])}
    asked = {"statistics": names, "topk": 3, "share": 0.05}
    q, k, v = (x.to(dtype) for x in (q, k, v))
    mask = {"mask": options["mask"].dense()} if "mask" in options else {}
    got = attend(q, k, v, **options, **asked)
    assert got.out.dtype == dtype
    close(got, truth(q, k, v, **options | mask, **asked), rtol=tolerance, atol=tolerance)


def _case(q: tuple[int, ...], kv: tuple[int, ...], dv: int, **options: Any) -> Callable[[], tuple[Any, dict[str, Any]]]:
    """What a check is given: rows and options, made on the device where it runs."""
    return lambda: (
        rows(q, kv, dv),
        {name: value() if callable(value) else value for name, value in options.items()},
    )


def _starts(*lengths: int) -> Callable[[], torch.Tensor]:
    return lambda: torch.tensor([0, *lengths]).cumsum(0).int()


CASES = {
    "plain": _case((2, 2, 9, 16), (2, 2, 12, 16), 16),
    "causal": _case((1, 4, 33, 16), (1, 2, 33, 16), 24, causal=True),
    "more keys": _case((1, 2, 5, 20), (1, 1, 40, 20), 16, causal=True),
    "more queries": _case((1, 2, 20, 16), (1, 1, 13, 16), 16, causal=True),
    "top-left": _case((1, 2, 12, 16), (1, 2, 20, 16), 16, causal=True, align="top-left"),
    "window": _case((1, 2, 40, 16), (1, 2, 40, 16), 16, window=(7, 3)),
    "left window": _case((2, 2, 30, 16), (2, 1, 40, 16), 8, causal=True, window=(0, None)),
    "alibi": _case((1, 4, 21, 16), (1, 4, 30, 16), 16, bias=lambda: ALiBi(2.0 ** -torch.arange(1.0, 5.0))),
    "relative": _case((1, 2, 21, 16), (1, 1, 30, 16), 16, bias=lambda: RelativeBias(normal(2, 11, seed=5))),
    "key bias": _case((2, 2, 9, 16), (2, 1, 12, 16), 16, bias=lambda: KeyBias(normal(2, 1, 12, seed=6))),
    "padding": _case(
        (2, 2, 9, 16),
        (2, 2, 12, 16),
        16,
        bias=lambda: KeyBias(torch.zeros(2, 1, 12).index_fill(2, torch.arange(5, 9), -math.inf)),
    ),
    "cosine": _case((1, 4, 10, 16), (1, 2, 17, 16), 16, score=Cosine(0.2)),
    "cosine by head": _case((1, 2, 10, 16), (1, 2, 17, 16), 16, score=lambda: Cosine(torch.tensor([0.1, 0.5]))),
    "distance": _case((1, 2, 10, 16), (1, 1, 17, 16), 16, score=SquaredDistance(2.0)),
    "distance by head": _case(
        (2, 2, 10, 16), (2, 2, 17, 16), 16, score=lambda: SquaredDistance(torch.tensor([1.0, 4.0]))
    ),
    "sink": _case(
        (1, 2, 10, 16), (1, 2, 17, 16), 16, causal=True, normalizer=lambda: Softmax(sink=torch.tensor([0.5, -math.inf]))
    ),
    "softcap": _case(
        (1, 2, 10, 16),
        (1, 2, 17, 16),
        16,
        scale=2.0,
        normalizer=Softmax(softcap=3.0),
        bias=lambda: ALiBi(torch.tensor([0.1, 0.3])),
    ),
    "sigmoid": _case((1, 2, 10, 16), (1, 2, 17, 16), 16, causal=True, normalizer=Sigmoid(-1.5)),
    "sigmoid by head": _case(
        (1, 4, 10, 16),
        (1, 2, 17, 16),
        16,
        normalizer=lambda: Sigmoid(torch.tensor([0.0, -1.0, -2.0, 1.0])),
        score=Cosine(0.5),
    ),
    "documents": _case(
        (2, 2, 150, 16),
        (2, 1, 150, 16),
        16,
        causal=True,
        mask=lambda: documents(torch.arange(150) // torch.tensor([[40], [64]]), block=64),
    ),
    "mask": _case((1, 2, 100, 16), (1, 2, 200, 16), 16, mask=lambda: block_mask(_strided, 100, 200, heads=2, block=64)),
    "packed": _case(
        (45, 4, 16),
        (47, 2, 16),
        24,
        causal=True,
        cu_seqlens_q=_starts(1, 17, 20, 7),
        cu_seqlens_k=_starts(3, 17, 15, 12),
    ),
    "packed window": _case(
        (40, 2, 16), (40, 2, 16), 16, window=(5, 2), cu_seqlens_q=_starts(12, 0, 28), cu_seqlens_k=_starts(12, 0, 28)
    ),
    "packed bias": _case(
        (30, 2, 16),
        (33, 1, 16),
        16,
        cu_seqlens_q=_starts(13, 17),
        cu_seqlens_k=_starts(3, 30),
        bias=lambda: ALiBi(torch.tensor([0.1, 0.5])),
    ),
    "packed keys": _case(
        (30, 2, 16),
        (33, 1, 16),
        16,
        cu_seqlens_q=_starts(13, 17),
        cu_seqlens_k=_starts(3, 30),
        bias=lambda: KeyBias(normal(2, 33, seed=7)),
        score=SquaredDistance(3.0),
    ),
    "wide": _case((1, 1, 3, 80), (1, 1, 129, 80), 130),
}


def _strided(b: torch.Tensor, h: torch.Tensor, i: torch.Tensor, j: torch.Tensor) -> torch.Tensor:
    """Every third key, or those of the last block, or nothing for some queries."""
    return (((i + j + h) % 3 == 0) | (j >= 192) | ((j < 64) & (i >= 64))) & (i % 7 != 3)


def output_is_that_of_torch(attend: Attend) -> None:
    for q, kv, options in (((2, 4, 20, 16), (2, 2, 33, 16), {}), ((1, 2, 24, 32), (1, 2, 24, 32), {"causal": True})):
        q, k, v = rows(q, kv, 24)
        expected = torch.nn.functional.scaled_dot_product_attention(
            q.double(), k.double(), v.double(), is_causal=bool(options), enable_gqa=True
        )
        close(attend(q, k, v, **options).out, expected)
    q, k, v = rows((1, 2, 10, 16), (1, 2, 20, 16), 16)
    expected = torch.nn.functional.scaled_dot_product_attention(
        q.double(), k.double(), v.double(), is_causal=True, scale=0.7
    )
    close(attend(q, k, v, causal=True, align="top-left", scale=0.7).out, expected)


def weights_sum_to_one(attend: Attend) -> None:
    q, k, _ = rows((2, 2, 40, 16), (2, 2, 50, 16), 16)
    got = attend(5 * q, k, torch.ones(2, 2, 50, 16), causal=True, targets={"all": torch.ones(50, dtype=torch.bool)},
                 statistics=("received", "block_mass"))  # fmt: skip
    close(got.out, torch.ones(2, 2, 40, 16), atol=1e-5)
    close(got.stats.targets["all"], torch.ones(2, 2, 40), atol=1e-5)
    close(got.stats.received.sum(2), torch.full((2, 2), 40.0))
    close(got.stats.block_mass.sum((2, 3)), torch.full((2, 2), 40.0))


def entropy_is_between_nothing_and_log_n(attend: Attend) -> None:
    for factor in (0.01, 1, 30):
        q, k, v = rows((1, 2, 60, 16), (1, 2, 60, 16), 16)
        stats = attend(factor * q, k, v, causal=True, statistics=("entropy", "sum_p2")).stats
        most = torch.arange(1.0, 61).log()
        assert (stats.entropy >= -1e-6).all()
        assert (stats.entropy <= most + 1e-5).all()
        assert (stats.sum_p2 <= 1 + 1e-5).all()
        assert (stats.sum_p2 * most.exp() >= 1 - 1e-5).all()


def equal_scores_are_uniform(attend: Attend) -> None:
    # Each of n keys scores 2, so that H = log n and lse = 2 + log n; keys before a query are at the distances 0 … i.
    n = 37
    q, k = torch.full((1, 1, n, 16), 0.5), torch.ones(1, 1, n, 16)
    v = normal(1, 1, n, 16, seed=1)
    got = attend(q, k, v, causal=True, statistics=NAMES, topk=2, share=0.3, targets={"previous": -1})
    seen = torch.arange(1.0, n + 1)
    s = got.stats
    close(s.entropy[0, 0], seen.log())
    close(s.lse[0, 0], 2 + seen.log())
    close(s.max, torch.full((1, 1, n), 2.0))
    close(s.expected_score, torch.full((1, 1, n), 2.0))
    close(s.sum_p2[0, 0], 1 / seen)
    assert not s.argmax.any()
    assert s.top_keys[0, 0].tolist() == [[0, -1]] + [[0, 1]] * (n - 1)
    close(s.distance.mean[0, 0], (seen - 1) / 2, rtol=1e-5)
    close(s.distance.variance[0, 0], (seen**2 - 1) / 12, rtol=1e-5)
    close(s.distance.absolute_mean, s.distance.mean)
    assert s.keys_above[0, 0].tolist() == [1, 2, 3] + [0] * (n - 3)
    close(s.targets["previous"][0, 0], torch.cat([torch.zeros(1), 1 / seen[1:]]))
    close(s.received[0, 0], (1 / seen).flip(0).cumsum(0).flip(0))
    close(got.out[0, 0], v[0, 0].cumsum(0) / seen[:, None])


def one_key_takes_everything(attend: Attend) -> None:
    q, k, v = rows((2, 2, 5, 16), (2, 1, 1, 16), 16)
    got = attend(q, k, v, statistics=NAMES, topk=1)
    close(got.out, v.expand(2, 2, 5, 16))
    scores = (q * k).sum(3).double() / 4
    for name, expected in (("lse", scores), ("max", scores), ("expected_score", scores), ("entropy", 0 * scores),
                           ("sum_p2", 0 * scores + 1), ("argmax", 0 * scores)):  # fmt: skip
        close(getattr(got.stats, name), expected, name)
    close(got.stats.distance.mean[0, 0], torch.arange(-4.0, 1))
    close(got.stats.distance.variance, 0 * scores)


def without_values_there_are_statistics_alone(attend: Attend) -> None:
    # Keys of the scores log 3 and 0 in turn: weights 3 / 4n and 1 / 4n.
    n = 40
    q, k = torch.ones(1, 2, 3, 16), torch.zeros(1, 1, 2 * n, 16)
    k[:, :, ::2, 0] = math.log(3)
    even = torch.arange(2 * n) % 2 == 0
    got = attend(q, k, scale=1.0, statistics=NAMES, topk=2, share=0.5 / n, targets={"even": even}, align="top-left")
    assert got.out.shape == (1, 2, 3, 0)
    s, each = got.stats, torch.ones(1, 2, 3)
    close(s.lse, math.log(4 * n) * each)
    close(s.entropy, (math.log(4 * n) - 0.75 * math.log(3)) * each)
    close(s.sum_p2, 10 / 16 / n * each)
    close(s.distance.mean[0, 0], torch.arange(3) - n + 0.75)
    assert (s.keys_above == n).all()
    assert s.top_keys[0, 1].tolist() == [[0, 2]] * 3
    close(s.targets["even"], 0.75 * each)
    close(s.received[0, 0], torch.where(even, 9.0, 3.0) / 4 / n)
    close(merge([got, got]).stats.lse, math.log(8 * n) * each)


def queries_that_see_nothing_are_zero(attend: Attend) -> None:
    q, k, v = rows((1, 2, 30, 16), (1, 2, 20, 16), 16)
    hidden = KeyBias(torch.full((2, 20), -math.inf).index_fill(0, torch.tensor([1]), 0.0))
    for options, dead in (({"causal": True}, slice(0, 10)), ({"bias": hidden}, slice(0, 0))):
        leaves = [x.clone().requires_grad_() for x in (q, k, v)]
        got = attend(*leaves, **options, statistics=NAMES, topk=2, share=0.0, targets=targets(30, 20))
        heads = slice(0, 1) if "bias" in options else slice(0, 2)
        dead = slice(0, 30) if "bias" in options else dead
        s = got.stats
        assert not got.out[:, heads, dead].any()
        for name in ("lse", "max", "top_scores"):
            assert (getattr(s, name)[:, heads, dead] == -math.inf).all(), name
        for name in ("argmax", "top_keys"):
            assert (getattr(s, name)[:, heads, dead] == -1).all(), name
        zeros = [s.entropy, s.expected_score, s.sum_p2, s.keys_above, *s.distance, *s.targets.values()]
        assert all(not x[:, heads, dead].any() for x in zeros)
        sums = [got.out, s.entropy, s.expected_score, s.sum_p2, s.received, *s.distance, *s.targets.values()]
        if torch.is_grad_enabled() and got.out.requires_grad:
            (sum(x.sum() for x in sums) + s.lse[s.lse > -math.inf].sum()).backward()
            assert all(leaf.grad is not None and leaf.grad.isfinite().all() for leaf in leaves)
            assert not leaves[0].grad[:, heads, dead].any()
        assert s.received.isfinite().all()


def keys_of_minus_infinity_are_not_there(attend: Attend) -> None:
    q, k, v = rows((1, 2, 11, 16), (1, 2, 30, 16), 16)
    kept = torch.tensor([0, 3, 4, 11, 29])
    bias = torch.full((30,), -math.inf).index_fill(0, kept, 0.0)
    names = ("lse", "entropy", "max", "expected_score", "sum_p2")
    got = attend(q, k, v, bias=KeyBias(bias), statistics=(*names, "received"))
    wanted = attend(q, k[:, :, kept], v[:, :, kept], statistics=(*names, "received"))
    close(got._replace(stats=got.stats._replace(received=None)), wanted)
    close(got.stats.received[:, :, kept], wanted.stats.received)
    assert not got.stats.received[:, :, bias == -math.inf].any()


def large_scores_keep_their_entropy(attend: Attend) -> None:
    # Scores of 10,000 and 9,999, exact in float32; and of 10,000 and 0, whose weight is nothing.
    q = torch.zeros(1, 1, 3, 16)
    q[..., 0] = 64
    k = torch.zeros(1, 1, 70, 16)
    k[0, 0, 0, 0], k[0, 0, 69, 0] = 156.25, 156.234375
    got = attend(q, k, torch.ones(1, 1, 70, 16), scale=1.0, statistics=("entropy", "max", "sum_p2", "lse"))
    p = 1 / (1 + math.exp(-1))
    close(got.stats.entropy, torch.full((1, 1, 3), -p * math.log(p) - (1 - p) * math.log(1 - p)), rtol=1e-5, atol=1e-6)
    close(got.stats.sum_p2, torch.full((1, 1, 3), p * p + (1 - p) ** 2), rtol=1e-5, atol=1e-6)
    close(got.stats.max, torch.full((1, 1, 3), 1e4), rtol=0, atol=0)
    close(got.stats.lse, torch.full((1, 1, 3), 1e4 - math.log(p)), rtol=2e-7)
    close(got.out, torch.ones(1, 1, 3, 16), atol=1e-6)


def a_share_is_exceeded(attend: Attend) -> None:
    # Four equal weights of exactly a quarter: none is above a quarter, all are above less.
    q, k, v = torch.zeros(1, 1, 2, 16), torch.ones(1, 1, 4, 16), torch.ones(1, 1, 4, 16)
    assert attend(q, k, v, share=0.25).stats.keys_above.tolist() == [[[0, 0]]]
    assert attend(q, k, v, share=0.2499).stats.keys_above.tolist() == [[[4, 4]]]


def a_sink_is_a_key_without_a_value(attend: Attend) -> None:
    q, k, v = rows((1, 2, 12, 16), (1, 2, 20, 16), 16)
    sink = torch.tensor([1.0, -2.0])
    zero = torch.zeros(1, 2, 1, 16)
    names = ("lse", "entropy", "expected_score", "sum_p2")
    for options in ({}, {"causal": True}):
        got = attend(
            q,
            k,
            v,
            normalizer=Softmax(sink=sink),
            statistics=(*names, "received"),
            targets={"previous": -1, "set": torch.arange(20) < 4},
            **options,
        )
        # One more key in front, whose score is its bias.
        bias = torch.cat([sink[:, None], torch.zeros(2, 20)], 1)
        more = attend(
            q,
            torch.cat([zero, k], 2),
            torch.cat([zero, v], 2),
            bias=KeyBias(bias),
            statistics=(*names, "received"),
            targets={"previous": -1, "set": (torch.arange(21) < 5) & (torch.arange(21) > 0)},
            **options,
        )
        close(got._replace(stats=got.stats._replace(received=None)), more)
        close(got.stats.received, more.stats.received[:, :, 1:])  # fmt: skip


def parts_merge_to_the_whole(attend: Attend) -> None:
    q, k, v = rows((2, 4, 9, 16), (2, 2, 50, 16), 24)
    cuts = [slice(0, 3), slice(3, 40), slice(40, 50)]
    asked: dict[str, Any] = {"statistics": FIRST, "topk": 4, "align": "top-left"}
    hidden = torch.zeros(50).index_fill(0, torch.arange(3), -math.inf)
    hit = torch.arange(50) % 3 == 0
    for bias in (torch.zeros(50), hidden):
        parts = [
            attend(q, k[:, :, c], v[:, :, c], bias=KeyBias(bias[c]), targets={"set": hit[c]}, **asked) for c in cuts
        ]
        whole = attend(q, k, v, bias=KeyBias(bias), targets={"set": hit}, **asked)
        got = merge(parts, first_keys=[0, 3, 40])
        close(got, whole)
        tree = merge([merge(parts[1:], first_keys=[3, 40]), parts[0]])
        close(tree, whole)
        assert got.stats.distance is not None
        assert got.stats.distance.absolute_mean is None


def strides_do_not_matter(attend: Attend) -> None:
    wide = normal(2, 30, 4, 48, seed=3)
    q, k, v = (wide.transpose(1, 2)[..., part:48:3] for part in range(3))
    assert q.stride(-1) == 3
    got = attend(q, k, v, causal=True, statistics=NAMES)
    close(got, attend(*(x.contiguous() for x in (q, k, v)), causal=True, statistics=NAMES), rtol=1e-6, atol=1e-6)


def the_same_bits_every_time(attend: Attend) -> None:
    q, k, v = rows((1, 2, 70, 16), (1, 1, 200, 16), 16)
    first, second = (attend(q, k, v, causal=True, statistics=NAMES, targets=targets(70, 200)) for _ in range(2))
    for a, b in zip(tensors(first), tensors(second), strict=True):
        assert torch.equal(a, b)


def the_arguments_leave_as_they_came(attend: Attend) -> None:
    given = rows((1, 2, 20, 16), (1, 2, 20, 16), 16)
    before = [x.clone() for x in given]
    attend(*given, causal=True, statistics=NAMES, score=Cosine(0.3))
    assert all(torch.equal(a, b) for a, b in zip(given, before, strict=True))


def nothing_to_attend_to(attend: Attend) -> None:
    asked: dict[str, Any] = {"statistics": NAMES, "topk": 2, "share": 0.1}
    for b, nq, nk in ((0, 3, 4), (1, 0, 4), (1, 3, 0), (1, 0, 0)):
        q, k, v = torch.ones(b, 2, nq, 16), torch.ones(b, 1, nk, 16), torch.ones(b, 1, nk, 24)
        got = attend(q, k, v, targets={"previous": -1, "set": torch.ones(nk, dtype=torch.bool)}, **asked)
        assert got.out.shape == (b, 2, nq, 24)
        assert not got.out.any()
        assert got.stats.entropy.shape == (b, 2, nq)
        assert got.stats.received.shape == (b, 2, nk)
        assert got.stats.top_keys.shape == (b, 2, nq, 2)
        assert (got.stats.lse == -math.inf).all()
    # Packed: a sequence without keys, and one without queries. Triton has no blocks of packed sequences.
    asked["statistics"] = tuple(name for name in NAMES if name != "block_mass")
    starts_q, starts_k = (torch.tensor(x, dtype=torch.int32) for x in ([0, 5, 9, 9], [0, 0, 7, 12]))
    q, k, v = rows((9, 2, 16), (12, 2, 16), 16)
    got = attend(q, k, v, cu_seqlens_q=starts_q, cu_seqlens_k=starts_k, **asked)
    assert not got.out[:5].any()
    assert (got.stats.lse[:, :5] == -math.inf).all()
    assert not got.stats.received[:, 7:].any()
    alone = attend(*(x.transpose(0, 1)[None] for x in (q[5:], k[:7], v[:7])), **asked)
    close(got.out[5:], alone.out[0].transpose(0, 1))


def every_number_is_written(attend: Attend) -> None:
    from tests.kernels.hsic_checks import poisoned

    with poisoned():
        for (q, k, v), options in (CASES[name]() for name in ("more queries", "window", "mask", "packed")):
            names = tuple(n for n in NAMES if n != "block_mass")
            got = attend(q, k, v, **options, statistics=names, topk=2, share=0.1)
            assert got.out.isfinite().all()
            assert not any(x.isnan().any() for x in tensors(got))


TRUTHS = [
    output_is_that_of_torch,
    weights_sum_to_one,
    entropy_is_between_nothing_and_log_n,
    equal_scores_are_uniform,
    one_key_takes_everything,
    without_values_there_are_statistics_alone,
    queries_that_see_nothing_are_zero,
    keys_of_minus_infinity_are_not_there,
    large_scores_keep_their_entropy,
    a_share_is_exceeded,
    a_sink_is_a_key_without_a_value,
    parts_merge_to_the_whole,
    strides_do_not_matter,
    the_same_bits_every_time,
    the_arguments_leave_as_they_came,
    nothing_to_attend_to,
    every_number_is_written,
]
