"""Masks that are hidden keys and a window are recognized, no others, and both ways to the statistics agree."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterator
from typing import Any
from unittest.mock import Mock

import pytest
import torch

from lamina.recording.attention import STATISTICS, Attention, reference, statistics
from lamina.recording.attention.reach import reach_of
from tests.faults import broken
from tests.recording.test_attention_statistics import check

INF = torch.inf
OWN = torch.arange(6)[:, None]
KEYS = torch.arange(6)
CAUSAL = KEYS <= OWN
NEAR = CAUSAL & (OWN - KEYS <= 2)
PADDED = torch.arange(6) < torch.tensor([[6], [4]])
LEFT_PADDED = torch.arange(6) >= torch.tensor([[0], [3]])


def attention(
    *masks: torch.Tensor, T: int = 6, S: int = 6, dtype: torch.dtype = torch.float64, **options: Any
) -> Attention:
    """Return attention of two items and four heads, two of which share their keys."""
    g = torch.Generator().manual_seed(0)
    q, k = torch.randn(2, 4, T, 5, generator=g), torch.randn(2, 2, S, 5, generator=g)
    return Attention(q=3 * q.to(dtype), k=k.to(dtype), masks=masks, **options)


def shown(a: Attention) -> torch.Tensor | None:
    """Return the pairs that the masks of a call are said to show."""
    found = reach_of(a)
    if found is None:
        return None
    B, H, T, S = a.shape
    own, keys = torch.arange(found.keys - T, found.keys)[:, None], torch.arange(S)
    pairs = (keys < found.keys) & torch.ones(B, H, T, S, dtype=torch.bool)
    if found.left is not None:
        pairs = pairs & (own - keys <= found.left)
    if found.right is not None:
        pairs = pairs & (keys - own <= found.right)
    if found.bias is not None:
        pairs = pairs & (torch.nn.functional.pad(found.bias, (0, S - found.keys)) != -INF)[:, :, None]
    return pairs


def all_of_three() -> Iterator[torch.Tensor]:
    """Yield every mask of three queries and three keys."""
    for bits in itertools.product([False, True], repeat=9):
        yield torch.tensor(bits).view(3, 3)


def check_all_of_three() -> None:
    products = {
        tuple((torch.tensor(keys) & (d <= left) & (d >= -right)).flatten().tolist())
        for keys in itertools.product([False, True], repeat=3)
        for left, right in itertools.product(range(3), repeat=2)
        for d in [OWN[:3] - KEYS[:3]]
    }
    for mask in all_of_three():
        found = shown(attention(mask, T=3, S=3))
        assert (found is not None) == (tuple(mask.flatten().tolist()) in products)
        assert found is None or torch.equal(found, mask.expand(found.shape))


def test_of_all_small_masks_just_the_products_of_keys_and_a_window_are_recognized():
    check_all_of_three()


def test_a_mask_that_only_begins_and_ends_like_a_window_is_noticed():
    with broken("attention_takes_every_mask_for_a_window"), pytest.raises(AssertionError):
        check_all_of_three()


ITEM = PADDED[:, None, None]
RECOGNIZED = {
    "nothing": ((), {}, None, None),
    "flag": ((), {"causal": True}, None, 0),
    "keys": ((ITEM,), {}, None, None),
    "keys for every query": ((ITEM.expand(2, 1, 6, 6),), {}, None, None),
    "keys for every query, copied": ((ITEM.expand(2, 1, 6, 6).contiguous(),), {}, None, None),
    "lowest number": ((torch.zeros(2, 1, 1, 6).masked_fill(~ITEM, torch.finfo(torch.float32).min),), {}, None, None),
    "number a key": ((torch.linspace(-1, 1, 6),), {}, None, None),
    "causal": ((CAUSAL,), {}, None, 0),
    "causal, in half precision": ((torch.zeros(6, 6, dtype=torch.float16).masked_fill(~CAUSAL, -INF),), {}, None, 0),
    "causal, keys in front hidden": ((CAUSAL & LEFT_PADDED[:, None, None],), {}, None, 0),
    "window": ((NEAR[None, None] & ITEM,), {}, 2, 0),
    "window of two masks": ((NEAR, ITEM), {}, 2, 0),
    "window on both sides": ((((OWN - KEYS).abs() <= 1)[None],), {}, 1, 1),
    "window and flag": ((((OWN - KEYS).abs() <= 1)[None],), {"causal": True}, 1, 0),
    "nobody sees anything": ((torch.zeros(6, 6, dtype=torch.bool),), {}, None, None),
    "keys of a head": ((torch.rand(1, 4, 1, 6, generator=torch.Generator().manual_seed(2)) < 0.6,), {}, None, None),
    "cap": ((CAUSAL,), {"softcap": 2.0}, None, 0),
    "last queries": ((CAUSAL[4:],), {"T": 2}, None, 0),
    "room for keys": ((CAUSAL[1:3],), {"T": 2, "first": 1}, None, 0),
    "room for keys, by a flag": ((), {"T": 2, "first": 0, "causal": True}, None, 0),
    "room for keys, hidden": ((KEYS < 3,), {"T": 2, "first": 1}, None, None),
    "more queries than keys": ((), {"S": 4, "causal": True}, None, 0),
}  # fmt: skip


def path(a: Attention) -> str:
    """Return which form computes the statistics of a call, after it has been checked that they are right."""
    plain = Mock(wraps=statistics.blocked.attention_statistics)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(statistics.blocked, "attention_statistics", plain)
        check(a, statistics.attention_statistics(a, STATISTICS))
    return "blocked" if plain.called else "attend"


@pytest.mark.parametrize("name", RECOGNIZED)
def test_what_is_recognized_is_attended_and_gives_what_the_matrix_gives(name):
    masks, options, left, right = RECOGNIZED[name]
    a = attention(*masks, **options)
    found = reach_of(a)
    assert found is not None
    assert (found.left, found.right) == (left, right)
    assert path(a) == "attend"


LEFT_ALONE = {
    "positions": ((torch.randn(1, 4, 6, 6, generator=torch.Generator().manual_seed(1)),), {}),
    "documents": ((CAUSAL & (OWN // 3 == KEYS // 3),), {}),
    "a pair": ((CAUSAL & ~((OWN == 4) & (KEYS == 2)),), {}),
    "a pair of one item": ((torch.stack([CAUSAL, CAUSAL & ((OWN != 4) | (KEYS != 2))])[:, None],), {}),
    "windows of heads": ((torch.stack([NEAR, CAUSAL, NEAR, CAUSAL])[None],), {}),
    "queries that see nothing": ((CAUSAL & (OWN < 4),), {}),
    "keys before its own alone": ((KEYS < OWN,), {}),
    "keys behind its own alone": ((KEYS > OWN,), {}),
    "a number": ((torch.zeros(6, 6).masked_fill(~CAUSAL, -INF) + 0.1 * (OWN == 3),), {}),
    "cap and hidden keys": ((ITEM,), {"softcap": 2.0}),
    "keys behind the last query": ((), {"T": 2, "first": 1}),
    "queries behind the last key": ((), {"first": 2}),
}  # fmt: skip


@pytest.mark.parametrize("name", LEFT_ALONE)
def test_what_is_not_recognized_is_left_to_tiles_under_the_mask(name):
    masks, options = LEFT_ALONE[name]
    assert path(attention(*masks, **options)) == "blocked"


def test_wide_heads_are_left_to_tiles():
    q, k = (torch.randn(1, 1, 3, 257, dtype=torch.float64) for _ in range(2))
    assert path(Attention(q=q, k=k)) == "blocked"


@pytest.mark.parametrize(
    ("fault", "name"),
    [
        ("attention_forgets_hidden_keys", "causal, keys in front hidden"),
        ("attention_calls_the_next_token_the_previous", "window on both sides"),
        ("attention_says_nothing_of_queries_without_keys", "causal, keys in front hidden"),
    ],
)
def test_a_broken_way_is_found_out(fault, name):
    masks, options, *_ = RECOGNIZED[name]
    with broken(fault), pytest.raises(AssertionError):
        path(attention(*masks, **options))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_rounding_is_that_of_float32_whatever_the_dtype_of_the_queries(dtype):
    """No more than twice the error of the matrix in float32, as for kernels (3 float32 ulps of room).

    Weights of keys are exp(score - logsumexp), so their ulps are those of the logsumexp.
    """
    a = attention(T=40, S=40, dtype=dtype, causal=True)
    exact = dataclasses.replace(a, q=a.q.double(), k=a.k.double())
    truth, plain = reference.attention_statistics(exact, STATISTICS), reference.attention_statistics(a, STATISTICS)
    found = statistics.attention_statistics(a, STATISTICS)

    def error(value: torch.Tensor, name: str) -> float:
        return (value.double() - truth[name].double()).abs().max().item()

    def size(name: str) -> float:
        return truth[name].double().abs().max().item()

    for name, value in found.items():
        ulps = 3 * size("logsumexp") if name in ("previous", "self", "next", "sink", "received") else 3
        assert error(value, name) <= 2 * error(plain[name], name) + ulps * torch.finfo(torch.float32).eps * size(
            name
        ), name
