"""CKA against the definition in float64, and its invariances."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from lamina import similarity
from lamina.measures import Estimate
from lamina.rows import centering
from lamina.similarity import jackknifed, kernelized
from tests.faults import broken
from tests.similarity import dense

SIZES = {"single": [1] * 24, "equal": [3] * 9, "unequal": [1, 2, 3, 4, 5, 6, 2, 9, 1, 1]}


def planted(sizes: list[int], seed: int = 0) -> tuple[torch.Tensor, torch.Tensor, np.ndarray]:
    """Two representations, float64, that share some features, and the group of each row."""
    generator = torch.Generator().manual_seed(seed)
    n = sum(sizes)
    shared, x, y = (torch.randn(n, d, generator=generator, dtype=torch.float64) for d in (3, 2, 4))
    groups = np.repeat(np.arange(len(sizes)), sizes)
    shared[:, 0] += torch.from_numpy(groups) % 3
    return torch.cat([shared, x], 1), torch.cat([shared[:, :2], y], 1), groups


@pytest.fixture(params=["whole", "pieces"])
def pieces(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Read everything at once, and again in pieces that divide groups."""
    if request.param == "pieces":
        monkeypatch.setattr(jackknifed, "rows_at_a_time", lambda aligned: 7)
        monkeypatch.setattr(centering, "rows_at_a_time", lambda aligned: 5)
        monkeypatch.setattr(kernelized, "PANEL", 5)


@contextmanager
def way(panels: bool) -> Iterator[None]:
    """Compute linear kernels by kernel values, or by moments, whatever is cheaper."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(jackknifed, "prefers_panels", lambda aligned: panels)
        yield


def check_replicates(estimate: Estimate, left: list[float]) -> None:
    """The replicates are what is left without each group, drawn in from the jackknife's error to that which is told."""
    assert estimate.replicates is not None
    jackknife = replace(estimate.replicates, values=tuple(left)).stderr(estimate.value)
    assert estimate.stderr < jackknife * (1 + 1e-9)
    drawn = estimate.value + estimate.stderr / jackknife * (np.array(left) - estimate.value)
    assert estimate.replicates.values == pytest.approx(drawn, abs=1e-9 * max(1.0, abs(estimate.value)))


def check_equal_to_dense(sizes: list[int], panels: bool = False) -> None:
    x, y, groups = planted(sizes)
    k, l = dense.linear(x.numpy()), dense.linear(y.numpy())  # noqa: E741
    with way(panels):
        estimate = similarity.cka(x, y, groups=groups)
    assert estimate.value == pytest.approx(dense.cka(k, l, groups), abs=1e-10)
    left = []
    for group in np.unique(groups):
        rows = np.ix_(groups != group, groups != group)
        left.append(dense.cka(k[rows], l[rows], groups[groups != group]))
    check_replicates(estimate, left)


def test_the_matrices_equal_the_loops() -> None:
    x, y, groups = planted([1, 2, 1, 3, 2])
    k, l = dense.linear(x.numpy()), dense.linear(y.numpy())  # noqa: E741
    assert dense.hsic(k, l, groups) == pytest.approx(dense.by_loops(k, l, groups), rel=1e-12)


@pytest.mark.usefixtures("pieces")
@pytest.mark.parametrize("panels", [False, True], ids=["moments", "panels"])
@pytest.mark.parametrize("sizes", SIZES.values(), ids=SIZES)
def test_linear_equals_the_gram_matrices(sizes: list[int], panels: bool) -> None:
    check_equal_to_dense(sizes, panels)


@pytest.mark.parametrize("sizes", SIZES.values(), ids=SIZES)
def test_a_third_pass_gives_the_same(sizes: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jackknifed, "BUDGET", 1)
    check_equal_to_dense(sizes)


@pytest.mark.usefixtures("pieces")
@pytest.mark.parametrize("sizes", SIZES.values(), ids=SIZES)
def test_rbf_equals_the_gram_matrices(sizes: list[int]) -> None:
    x, y, groups = planted(sizes)
    estimate = similarity.cka(x, y, kernel="rbf", groups=groups, bandwidth=0.7)
    k = dense.rbf(x.numpy(), estimate.parts["bandwidth_x"])
    l = dense.rbf(y.numpy(), estimate.parts["bandwidth_y"])  # noqa: E741
    assert estimate.value == pytest.approx(dense.cka(k, l, groups), abs=1e-10)
    assert estimate.parts["bandwidth_x"] == pytest.approx(0.7 * float(torch.pdist(x).median()))


@pytest.mark.usefixtures("pieces")
@pytest.mark.parametrize("panels", [False, True], ids=["moments", "panels"])
@pytest.mark.parametrize("kernel", ["linear", "rbf"])
def test_biased_equals_the_centered_gram_matrices(kernel: Any, panels: bool) -> None:
    x, y, groups = planted(SIZES["unequal"])
    with way(panels):
        estimate = similarity.cka(x, y, kernel=kernel, groups=groups, debiased=False)
    if kernel == "linear":
        k, l = dense.linear(x.numpy()), dense.linear(y.numpy())  # noqa: E741
    else:
        k = dense.rbf(x.numpy(), estimate.parts["bandwidth_x"])
        l = dense.rbf(y.numpy(), estimate.parts["bandwidth_y"])  # noqa: E741
    assert estimate.value == pytest.approx(dense.biased_cka(k, l), abs=1e-10)


def check_a_large_mean(panels: bool = False) -> None:
    generator = torch.Generator().manual_seed(0)
    shared = torch.randn(512, 30, generator=generator)
    x = torch.cat([shared, torch.randn(512, 34, generator=generator)], 1)
    y = torch.cat([shared, torch.randn(512, 20, generator=generator)], 1)
    x[:, 3] += 1000
    k, l = dense.linear(x.double().numpy()), dense.linear(y.double().numpy())  # noqa: E741
    expected = dense.cka(k, l, np.arange(512))
    with way(panels):
        estimate = similarity.cka(x, y)
    assert estimate.value == pytest.approx(expected, abs=1e-4)
    assert estimate.dtype == "float32"
    assert similarity.cka(x, y, kernel="rbf").value == pytest.approx(
        similarity.cka(x.double(), y.double(), kernel="rbf").value, abs=1e-4
    )


@pytest.mark.parametrize("panels", [False, True], ids=["moments", "panels"])
def test_single_precision_with_a_mean_of_a_thousand(panels: bool) -> None:
    check_a_large_mean(panels)


def check_invariances(kernel: Any) -> None:
    x, y, groups = planted([2, 5] * 20)
    turn = torch.linalg.qr(torch.randn(5, 5, generator=torch.Generator().manual_seed(3), dtype=torch.float64)).Q
    options: dict[str, Any] = {"kernel": kernel, "groups": groups}
    value = similarity.cka(x, y, **options).value
    assert similarity.cka(x, x, **options).value == pytest.approx(1, abs=1e-12)
    for other in (x @ turn, 1e-3 * x, x + 1e3, -x):
        assert similarity.cka(other, y, **options).value == pytest.approx(value, abs=1e-8)
    assert similarity.cka(y, x, **options).value == pytest.approx(value, abs=1e-12)
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(4))
    again = similarity.cka(x[order], y[order], kernel="linear", groups=groups[order.numpy()])
    assert again.value == pytest.approx(similarity.cka(x, y, groups=groups).value, abs=1e-12)
    assert again.stderr == pytest.approx(similarity.cka(x, y, groups=groups).stderr, abs=1e-12)
    # and it is no constant: a scale for each feature changes it
    assert abs(similarity.cka(x * torch.tensor([1.0, 5, 1, 1, 1]), y, **options).value - value) > 1e-2


@pytest.mark.parametrize("kernel", ["linear", "rbf"])
def test_invariances(kernel: Any) -> None:
    check_invariances(kernel)


@pytest.mark.parametrize(
    ("name", "check"),
    [
        ("cka_forgets_to_center", check_a_large_mean),
        ("cka_forgets_to_center", lambda: check_a_large_mean(panels=True)),
        ("hsic_counts_pairs_within_groups", lambda: check_equal_to_dense(SIZES["unequal"])),
        ("hsic_counts_pairs_within_groups", lambda: check_equal_to_dense(SIZES["single"])),
        ("hsic_forgets_n_over_n_minus_2", lambda: check_equal_to_dense(SIZES["single"])),
        ("hsic_averages_each_term_apart", lambda: check_equal_to_dense(SIZES["unequal"])),
        ("cka_ignores_groups", lambda: check_equal_to_dense(SIZES["equal"])),
        ("hsic_forgets_n_over_n_minus_2", lambda: check_equal_to_dense(SIZES["single"], panels=True)),
        ("hsic_averages_each_term_apart", lambda: check_equal_to_dense(SIZES["unequal"], panels=True)),
    ],
)
def test_faults_are_noticed(name: str, check: Any) -> None:
    with broken(name), pytest.raises(AssertionError):
        check()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.int8, torch.int64])
def test_other_dtypes(dtype: torch.dtype) -> None:
    x, y, groups = planted([2] * 50)
    x, y = ((4 * side).round().to(dtype) for side in (x, y))
    expected = similarity.cka(x.double(), y.double(), groups=groups).value
    assert similarity.cka(x, y, groups=groups).value == pytest.approx(expected, abs=1e-5)


def test_arrays_strided_and_mixed() -> None:
    x, y, groups = planted([2] * 50)
    expected = similarity.cka(x, y, groups=groups).value
    assert similarity.cka(x.numpy(), y.T.contiguous().T, groups=groups).value == pytest.approx(expected, abs=1e-12)
    assert similarity.cka(x.float(), y, groups=groups).value == pytest.approx(expected, abs=1e-5)


def test_what_the_estimate_says() -> None:
    x, y, groups = planted(SIZES["unequal"])
    estimate = similarity.cka(x, y, kernel="rbf", groups=groups, seed=3)
    assert (estimate.n, estimate.n_groups, estimate.seed) == (34, 10, 3)
    assert estimate.parts.keys() == {"hsic_xy", "hsic_xx", "hsic_yy", "bandwidth_x", "bandwidth_y"}
    # what was asked for, alike in all runs, so that estimates of several can be averaged
    assert estimate.options == {"kernel": "rbf", "debiased": True, "bandwidth": 1.0}
    assert "distinct groups" in estimate.estimator
    assert estimate.replicates is not None
    assert estimate.replicates.sizes == tuple(SIZES["unequal"])
