"""States of unit statistics against dense formulas, for any cut into batches and any order of merging."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import scipy.stats
import torch
from torch import Tensor

from lamina_kernels.sparse import Coactivation, Codes, QuantileSketch, TopRows, UnitActivity, from_dense
from lamina_kernels.sparse.statistics import pairs
from tests.faults import broken
from tests.kernels import sparse_faults  # noqa: F401
from tests.kernels.hsic_checks import normal

M = 12


def activations(n: int = 90, m: int = M, *, seed: int = 0) -> Tensor:
    """Return rectified numbers of a few digits, so that there are ties; the last unit is dead."""
    x = (4 * normal(n, m, seed=seed, dtype=torch.float64)).round().div(4).relu()
    x[:, -1] = 0
    return x


def in_pieces(state: Callable[[], Any], x: Tensor, cut: tuple[int, ...], *others: Tensor) -> Any:
    """Return a state merged, last first, of states that saw some batches each."""
    states = []
    names = torch.arange(len(x))
    for batches in zip(x.split(cut), names.split(cut), *(o.split(cut) for o in others), strict=True):
        mine: Any = state()
        for half in zip(*(batch.chunk(2) for batch in batches), strict=True):
            matrix, name, *rest = half
            codes = [from_dense(matrix), *(from_dense(other) for other in rest)]
            mine.update(*codes, *([name] if issubclass(type(mine), TopRows) else []))
        states.append(mine)
    whole = states.pop()
    for other in reversed(states):
        whole.merge(other)
    return whole


CUTS = [(90,), (2, 88), (30, 7, 3, 50)]


@pytest.mark.parametrize("cut", CUTS)
def test_counts_and_moments(cut: tuple[int, ...]) -> None:
    x = activations()
    found = in_pieces(lambda: UnitActivity(M), x, cut).result()
    assert found.rows == 90
    assert torch.equal(found.counts, (x != 0).sum(0))
    assert torch.equal(found.density, (x != 0).double().mean(0))
    torch.testing.assert_close(found.mean, x.mean(0))
    torch.testing.assert_close(found.variance, x.var(0, correction=0))
    living = x[:, :-1].numpy()
    skewness, kurtosis = scipy.stats.skew(living), scipy.stats.kurtosis(living, fisher=False)
    for ours, theirs in ((found.skewness, skewness), (found.kurtosis, kurtosis)):
        np.testing.assert_allclose(ours[:-1], theirs, rtol=1e-9)
        assert ours[-1].isnan()


def test_entries_of_one_unit_are_one_value() -> None:
    state = UnitActivity(3)
    state.update(Codes(torch.tensor([[1.0, 2.0], [4.0, -4.0]]), torch.tensor([[1, 1], [2, 2]]), 3))
    assert state.result().counts.tolist() == [0, 1, 0]
    assert state.result().variance.tolist() == [0.0, 2.25, 0.0]


@pytest.mark.parametrize("cut", CUTS)
def test_quantiles(cut: tuple[int, ...]) -> None:
    x = activations()
    state = in_pieces(lambda: QuantileSketch(M, accuracy=0.02), x, cut)
    shares = [0.0, 0.3, 0.5, 0.9, 1.0]
    expected = torch.from_numpy(np.quantile(x.numpy(), shares, axis=0, method="lower"))
    torch.testing.assert_close(state.result(shares), expected, rtol=0.02, atol=0)
    at_once = in_pieces(lambda: QuantileSketch(M, accuracy=0.02), x, (90,))
    assert torch.equal(state.result(shares), at_once.result(shares))
    of_active = state.result(shares, active=True)
    for unit in range(M - 1):
        values = x[:, unit][x[:, unit] > 0].numpy()
        expected = torch.from_numpy(np.quantile(values, shares, method="lower"))
        torch.testing.assert_close(of_active[:, unit], expected, rtol=0.02, atol=0)
    assert of_active[:, -1].isnan().all()


@pytest.mark.parametrize("cut", CUTS)
@pytest.mark.parametrize("two", [False, True])
def test_pairs_of_units(cut: tuple[int, ...], two: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pairs, "PAIRS", 100)
    x, y = activations(), activations(m=7, seed=1)
    other = y if two else x
    found = in_pieces(lambda: Coactivation(M, 7 if two else None), x, cut, *([y] if two else [])).result()
    active, beside = (x != 0).double(), (other != 0).double()
    assert torch.equal(found.counts, (active.T @ beside).long())
    whole = torch.corrcoef(torch.cat([x[:, :-1], other[:, :-1]], 1).T)[: M - 1, M - 1 :]
    torch.testing.assert_close(found.correlation[:-1, :-1], whole)
    assert found.correlation[-1].isnan().all()
    assert found.correlation[:, -1].isnan().all()


@pytest.mark.parametrize("cut", CUTS)
def test_rows_of_each_unit(cut: tuple[int, ...]) -> None:
    x = activations()
    found = in_pieces(lambda: TopRows(M, 6), x, cut).result()
    values, rows = x.T.sort(dim=1, descending=True, stable=True)
    assert torch.equal(found.values, values[:, :6])
    assert torch.equal(found.rows, rows[:, :6].masked_fill(values[:, :6] == 0, -1))


@pytest.mark.parametrize(
    ("fault", "test"),
    [
        ("statistics_forget_a_batch", test_counts_and_moments),
        ("statistics_forget_a_batch", test_quantiles),
        ("statistics_forget_a_batch", test_rows_of_each_unit),
    ],
)
def test_faults_are_noticed(fault: str, test: Callable[..., None]) -> None:
    with broken(fault), pytest.raises(AssertionError):
        test((30, 7, 3, 50))


def test_pairs_that_are_lost_are_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    with broken("statistics_forget_a_batch"), pytest.raises(AssertionError):
        test_pairs_of_units((30, 7, 3, 50), False, monkeypatch)


@pytest.mark.parametrize("state", [UnitActivity(3), QuantileSketch(3), Coactivation(3), TopRows(3, 2)])
def test_what_states_refuse_and_what_is_empty(state: Any) -> None:
    state.update(torch.zeros(0, 3))
    state.result([0.5]) if isinstance(state, QuantileSketch) else state.result()
    with pytest.raises(ValueError, match="a batch has 4 units, expected 3"):
        state.update(torch.ones(2, 4))
    for bad in (float("nan"), float("inf")):
        with pytest.raises(ValueError, match="1 values of a batch are not finite"):
            state.update(torch.tensor([[0.0, bad, 1.0]]))
    other: Any = TopRows(4, 2) if isinstance(state, TopRows) else type(state)(4)
    with pytest.raises(ValueError, match="states of other options cannot be merged"):
        state.merge(other)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: QuantileSketch(3, accuracy=1.0), "accuracy is 1.0"),
        (lambda: QuantileSketch(3, least=2.0, most=1.0), "values from 2.0 to 1.0"),
        (lambda: TopRows(3, 0), "most is 0"),
        (
            lambda: TopRows(3, 1).update(torch.ones(2, 3), torch.arange(3)),
            r"rows is torch.int64 \[3\]",
        ),
        (lambda: Coactivation(3).update(torch.ones(2, 3), torch.ones(2, 3)), "takes one batch at a time"),
        (lambda: Coactivation(3, 3).update(torch.ones(2, 3), torch.ones(1, 3)), "have 2 and 1 rows"),
        (
            lambda: Coactivation(3).update(Codes(torch.ones(1, 2), torch.zeros(1, 2, dtype=torch.int32), 3)),
            "two entries in one row",
        ),
    ],
)
def test_what_is_refused(call: Callable[[], Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()


def test_states_say_what_they_saw() -> None:
    x = activations()
    states = [UnitActivity(M), Coactivation(M), QuantileSketch(M), TopRows(M, 3)]
    for state in states:
        state.update(x)
    assert [repr(state) for state in states] == [
        "UnitActivity(12 units, 90 rows)",
        "Coactivation(12 x 12 units, 90 rows)",
        "QuantileSketch(12 units, 90 rows, within 5%)",
        "TopRows(12 units, the 3 greatest of 90 rows)",
    ]
