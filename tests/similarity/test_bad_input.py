"""What cannot be compared is refused with a reason, and what is left out is counted."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch

from lamina import similarity
from lamina.errors import SchemaError
from tests.similarity.test_cka import SIZES, planted

X, Y, GROUPS = planted(SIZES["equal"])


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"y": Y[:-1]}, "x has 27 rows and y has 26"),
        ({"groups": GROUPS[:-1]}, "26 labels"),
        ({"groups": "topic"}, "no column 'topic'"),
        ({"groups": np.repeat([0, 1, 2], 9)}, "27 rows in 3 groups"),
        ({"x": X * 0 + 3}, "x does not vary"),
        ({"y": Y * 0}, "y does not vary"),
        ({"x": X[:0], "y": Y[:0], "groups": None}, "no row to compare"),
        ({"x": X[:1], "y": Y[:1], "groups": None}, "1 rows in 1 groups"),
        ({"x": X[:3], "y": Y[:3], "groups": None}, "at least 4 groups"),
        ({"x": X[:, :0]}, "x has no features"),
        ({"kernel": "cosine"}, "kernel='cosine'"),
        ({"kernel": "rbf", "bandwidth": 0}, "bandwidth=0"),
        ({"kernel": "rbf", "x": torch.ones(27, 2)}, "median distance between the rows of x is 0"),
        ({"pair": "row"}, "pair='row'"),
        ({"x": "weights.npy"}, "rows of a str"),
    ],
)
def test_refused(given: dict[str, Any], message: str) -> None:
    call: dict[str, Any] = {"x": X, "y": Y, "groups": GROUPS} | given
    with pytest.raises(SchemaError, match=message):
        similarity.cka(call.pop("x"), call.pop("y"), **call)


@pytest.mark.parametrize("kernel", ["linear", "rbf"])
def test_rows_that_are_not_finite_are_left_out_and_counted(kernel: Any) -> None:
    x, y = X.clone(), Y.clone()
    x[4, 1], y[20, 0], y[4, 2] = float("nan"), float("inf"), float("-inf")
    kept = np.delete(np.arange(27), [4, 20])
    estimate = similarity.cka(x, y, kernel=kernel, groups=GROUPS)
    expected = similarity.cka(X[kept], Y[kept], kernel=kernel, groups=GROUPS[kept])
    assert estimate.dropped == {"non_finite": 2}
    assert estimate.n == 25
    assert estimate.value == pytest.approx(expected.value, abs=1e-12)


def test_five_groups_have_an_error_and_four_have_none() -> None:
    assert similarity.cka(X[:15], Y[:15], groups=GROUPS[:15]).stderr > 0
    assert np.isnan(similarity.cka(X[:12], Y[:12], groups=GROUPS[:12]).stderr)


class Blocks:
    """An iterable that can be read again and again."""

    def __init__(self, rows: torch.Tensor, size: int) -> None:
        self.rows, self.size = rows, size

    def __iter__(self) -> Iterator[torch.Tensor]:
        return iter(self.rows.split(self.size))


def test_iterables_give_the_same() -> None:
    expected = similarity.cka(X, Y, groups=GROUPS)
    for x, y in ((Blocks(X, 4), Blocks(Y, 5)), (list(X.split(6)), Y), (X, Blocks(Y, 100))):
        estimate = similarity.cka(x, y, groups=GROUPS)
        assert estimate.value == pytest.approx(expected.value, abs=1e-12)
        assert estimate.stderr == pytest.approx(expected.stderr, abs=1e-12)
    same = Blocks(X, 4)
    assert similarity.cka(same, same).value == pytest.approx(1)


def test_iterables_with_rows_that_are_not_finite() -> None:
    x = X.clone()
    x[5, 0] = float("nan")
    kept = np.delete(np.arange(27), 5)
    estimate = similarity.cka(Blocks(x, 4), Blocks(Y, 5), groups=GROUPS)
    assert estimate.value == pytest.approx(similarity.cka(X[kept], Y[kept], groups=GROUPS[kept]).value, abs=1e-12)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"x": iter(X.split(4))}, "read only once"),
        ({"groups": np.arange(27) % 9}, "divides a group"),
        ({"groups": "topic"}, "no column 'topic'"),
        ({"y": Blocks(Y[:-1], 4)}, "x has 27 rows and y has 26"),
        ({"kernel": "rbf"}, "an iterable with kernel='rbf'"),
        ({"x": [X[:4], X[4:, :2]]}, "a block is 2 wide"),
    ],
)
def test_iterables_that_are_refused(given: dict[str, Any], message: str) -> None:
    call: dict[str, Any] = {"x": Blocks(X, 4), "y": Blocks(Y, 5), "groups": GROUPS} | given
    with pytest.raises(SchemaError, match=message):
        similarity.cka(call.pop("x"), call.pop("y"), **call)
