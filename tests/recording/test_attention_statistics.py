"""Statistics of attention: closed forms, and each way to them against the whole matrix in float64."""

from __future__ import annotations

import dataclasses
import math

import pytest
import torch

from lamina.errors import RecordingError
from lamina.recording.attention import STATISTICS, Attention, blocked, reference, statistics
from tests.faults import broken
from tests.meter import peak_bytes

INF = math.inf
forms = pytest.mark.parametrize("form", [reference, blocked, statistics])


def ask(form, names, **given) -> list:
    """Return what a form says of one head of one item, a list a statistic."""
    found = form.attention_statistics(Attention(**given), names)
    return [found[name][0, :, 0].tolist() for name in names]


def weights(p: torch.Tensor) -> dict:
    """Return queries and keys whose attention is `p`, up to 1e-200: the keys are the unit vectors."""
    return {
        "q": p.clamp(min=1e-200).log()[None, None],
        "k": torch.eye(p.shape[1], dtype=p.dtype)[None, None],
        "scaling": 1.0,
    }


@forms
def test_queries_that_find_all_keys_alike_have_the_entropy_log_n(form):
    given = {"q": torch.zeros(1, 1, 2, 4), "k": torch.randn(1, 1, 8, 4)}
    names = ["entropy", "logsumexp", "participation_ratio", "max_score", "expected_score", "sink", "received"]
    log8, eighth, quarter = (pytest.approx(values, rel=1e-6) for values in ([math.log(8)] * 2, [0.125] * 2, [0.25] * 8))
    assert ask(form, names, **given) == [log8, log8, [8, 8], [0, 0], [0, 0], eighth, quarter]


@forms
def test_a_query_with_one_key_in_reach_knows_it(form):
    mask = torch.eye(3, dtype=torch.bool).roll(1, dims=1)  # query i reaches key i + 1 mod 3 only
    given = {"q": torch.ones(1, 1, 3, 1), "k": torch.tensor([[[[5.0], [6.0], [7.0]]]]), "masks": (mask,)}
    names = ["entropy", "max_key", "max_score", "logsumexp", "participation_ratio", "distance", "previous", "received"]
    scores = [6.0, 7.0, 5.0]
    assert ask(form, names, **given) == [[0] * 3, [1, 2, 0], scores, scores, [1] * 3, [1, 1, 2], [0] * 3, [1] * 3]


@forms
def test_planted_weights_come_back(form):
    p = torch.tensor([[0.5, 0.25, 0.25], [0.1, 0.2, 0.7], [0.0, 1.0, 0.0]], dtype=torch.float64)
    names = ["previous", "self", "next", "sink", "distance", "participation_ratio", "entropy", "max_key", "received"]
    got = ask(form, names, **weights(p))
    for values, expected in zip(
        got,
        [
            [0, 0.1, 1],
            [0.5, 0.2, 0],
            [0.25, 0.7, 0],
            [0.5, 0.1, 0],
            [0.25 + 0.5, 0.1 + 0.7, 1],
            [1 / 0.375, 1 / 0.54, 1],
            [1.5 * math.log(2), -sum(x * math.log(x) for x in (0.1, 0.2, 0.7)), 0],
            [0, 2, 1],
            [0.6, 1.45, 0.95],
        ],
        strict=True,
    ):
        assert values == pytest.approx(expected, abs=1e-12)


@forms
def test_queries_stand_behind_the_keys_that_came_before_unless_told(form):
    given = {"q": torch.zeros(1, 1, 2, 1), "k": torch.zeros(1, 1, 5, 1), "causal": True}
    assert ask(form, ["participation_ratio", "distance"], **given) == [pytest.approx([4, 5]), pytest.approx([1.5, 2])]
    assert ask(form, ["participation_ratio"], first=0, **given) == [pytest.approx([1, 2])]


@forms
def test_the_cap_bounds_scores(form):
    given = {"q": torch.full((1, 1, 1, 1), 1e6), "k": torch.ones(1, 1, 2, 1), "softcap": 30.0}
    assert ask(form, ["max_score"], **given) == [[pytest.approx(30)]]


@forms
@pytest.mark.parametrize("low", [-INF, torch.finfo(torch.float32).min, False])
def test_a_query_without_keys_in_reach_has_no_distribution_and_gives_nothing(form, low):
    mask = torch.tensor([[low, low], [True, True]] if low is False else [[low, low], [0.0, 0.0]])
    given = {"q": torch.zeros(1, 1, 2, 1), "k": torch.zeros(1, 1, 2, 1), "masks": (mask,)}
    found = dict(zip(STATISTICS, ask(form, list(STATISTICS), **given), strict=True))
    assert found.pop("received") == [0.5, 0.5]
    alone = {name: values[0] for name, values in found.items()}
    assert (alone.pop("logsumexp"), alone.pop("max_score"), alone.pop("max_key")) == (-INF, -INF, -1)
    assert all(math.isnan(value) for value in alone.values())
    assert all(math.isfinite(values[1]) for values in found.values())


def case(seed: int, *, H: int, Hk: int, T: int, S: int, dtype=torch.float64, **options) -> Attention:
    """Return attention with sharp and flat heads, a shared padding mask, and a bias a head."""
    g = torch.Generator().manual_seed(seed)
    q = torch.randn(3, H, T, 6, generator=g) * torch.logspace(-1, 1.5, H)[:, None, None]
    k = torch.randn(3, Hk, S, 6, generator=g)
    length = torch.tensor([S, max(1, S // 2), 1])
    padding = (torch.arange(S) < length[:, None])[:, None, None]
    bias = torch.randn(1, H, T, S, generator=g)
    bias[:, :, -1, S // 3 :] = torch.finfo(torch.float32).min
    return Attention(q=q.to(dtype), k=k.to(dtype), masks=(padding, bias), **options)


CASES = [
    {"H": 4, "Hk": 2, "T": 9, "S": 9, "causal": True},
    {"H": 6, "Hk": 2, "T": 7, "S": 13, "causal": True, "softcap": 5.0},
    {"H": 2, "Hk": 2, "T": 1, "S": 12},
    {"H": 3, "Hk": 1, "T": 11, "S": 4, "scaling": 0.7, "first": 2},
    {"H": 1, "Hk": 1, "T": 8, "S": 8},
    {"H": 2, "Hk": 1, "T": 5, "S": 1, "causal": True, "first": 0},
]


def check(attention: Attention, found: dict) -> None:
    """Compare with the whole matrix in float64."""
    B, H, T, S = attention.shape
    truth = reference.attention_statistics(attention, STATISTICS)
    assert list(found) == list(truth) == list(STATISTICS)
    for name, value in truth.items():
        assert found[name].shape == value.shape == (B, S if name == "received" else T, H)
        assert found[name].dtype == value.dtype
        torch.testing.assert_close(found[name], value, rtol=1e-11, atol=1e-11, equal_nan=True)


def check_tiles(options: dict, tile: tuple[int, int]) -> None:
    attention = case(1, **options)
    check(attention, blocked.attention_statistics(attention, STATISTICS, tile=tile))


@pytest.mark.parametrize("options", CASES)
@pytest.mark.parametrize("tile", [(1, 1), (4, 4), (3, 5), (8, 64)])
def test_tiles_give_what_the_matrix_gives(options, tile):
    check_tiles(options, tile)


@pytest.mark.parametrize("fault", ["attention_forgets_to_rescale", "attention_forgets_the_mask"])
def test_a_broken_form_is_found_out(fault):
    with broken(fault), pytest.raises(AssertionError):
        check_tiles(CASES[0], (4, 4))


def test_items_may_go_one_by_one(monkeypatch):
    monkeypatch.setattr(blocked, "_SCORES", 1)
    check_tiles(CASES[1], (4, 4))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_rounding_is_that_of_float32_whatever_the_dtype_of_the_queries(dtype):
    """No more than twice the error of the plain form in float32, as for kernels (3 float32 ulps of room)."""
    attention = case(2, H=4, Hk=2, T=40, S=40, dtype=dtype, causal=True)
    exact = Attention(q=attention.q.double(), k=attention.k.double(), masks=attention.masks, causal=True)
    truth = reference.attention_statistics(exact, STATISTICS)
    plain = reference.attention_statistics(attention, STATISTICS)
    found = blocked.attention_statistics(attention, STATISTICS, tile=(16, 8))

    def error(name, value) -> float:
        return (value.double() - truth[name].double()).nan_to_num().abs().max().item()

    for name, value in found.items():
        size = truth[name].double().nan_to_num(posinf=0, neginf=0).abs().max().item()
        assert error(name, value) <= 2 * error(name, plain[name]) + 3 * torch.finfo(torch.float32).eps * size, name


def test_entropy_keeps_its_digits_at_large_scores():
    """As lse - E[s] it would lose them: at scores of 1e4 float32 holds them to 1e-3."""
    given = {"q": torch.full((1, 1, 1, 1), 1e4), "k": torch.ones(1, 1, 1000, 1), "scaling": 1.0}
    assert ask(blocked, ["entropy"], **given) == [[pytest.approx(math.log(1000), rel=1e-6)]]


@pytest.mark.parametrize("dense", [False, True])
def test_autocast_and_gradients_of_the_caller_do_not_matter(dense):
    attention = case(3, H=2, Hk=2, T=5, S=5, dtype=torch.float32)
    attention = attention if dense else dataclasses.replace(attention, masks=(), causal=True)
    attention.q.requires_grad_()
    truth = statistics.attention_statistics(attention, STATISTICS)
    with torch.autocast("cpu"):
        found = statistics.attention_statistics(attention, STATISTICS)
    for name, value in truth.items():
        assert torch.equal(found[name].nan_to_num(), value.nan_to_num())
        assert not found[name].requires_grad


def needed(n: int) -> int:
    """Return the bytes that all statistics of `n` queries and keys need beyond those."""
    setup = f"""
        import torch
        from lamina.recording.attention import STATISTICS, Attention, blocked
        attention = Attention(q=torch.ones(1, 1, {n}, 4), k=torch.ones(1, 1, {n}, 4), causal=True)
        small = Attention(q=torch.ones(1, 1, 600, 4), k=torch.ones(1, 1, 600, 4), causal=True)
        blocked.attention_statistics(small, STATISTICS)
    """
    return peak_bytes(f"{setup}\n        blocked.attention_statistics(attention, STATISTICS)") - peak_bytes(setup)


def test_memory_is_flat():
    """The matrix of 6,000 queries and keys is 144 MB; the statistics themselves are 0.3 MB."""
    assert needed(6000) < 8e6


def test_what_does_not_fit_raises():
    with pytest.raises(RecordingError, match=r"queries \[1, 3, 2, 4\] and keys \[1, 2, 2, 4\] are no attention"):
        Attention(q=torch.zeros(1, 3, 2, 4), k=torch.zeros(1, 2, 2, 4))
    with pytest.raises(RecordingError, match=r"a mask \[3, 2\] does not fit scores \[1, 1, 2, 2\]"):
        Attention(q=torch.zeros(1, 1, 2, 4), k=torch.zeros(1, 1, 2, 4), masks=(torch.zeros(3, 2),))
    attention = Attention(q=torch.zeros(1, 1, 2, 4), k=torch.zeros(1, 1, 2, 4))
    with pytest.raises(RecordingError, match=r"'entropie' is no statistic of attention \(nearest: entropy\)"):
        statistics.attention_statistics(attention, ["entropie"])
    with pytest.raises(RecordingError, match="no statistic of attention was named"):
        statistics.attention_statistics(attention, [])
