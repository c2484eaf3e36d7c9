"""CKA of many pairs in one go against a call for each."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import lamina
from lamina import similarity
from lamina.errors import SchemaError
from lamina.measures import Estimate
from lamina.rows import Rows
from lamina.rows.memory import Memory
from lamina.similarity import grid, holding, planning, products, tiles
from lamina.similarity.planning import FEATURES, TILES, Work
from tests.faults import broken

SIZES = {
    "single": [1] * 24,
    "single, in buckets": [1] * 200,
    "equal": [3] * 9,
    "equal, in buckets": [4] * 50,
    "unequal": [1, 2, 3, 4, 5, 6, 2, 9, 1, 1],
    "unequal, in buckets": [1 + group % 7 for group in range(60)],
    "one large": [60, 2, 3, 5, 6],
}
WIDTHS = (2, 5, 30, 9)
PAIRS = [(0, 1), (1, 0), (2, 3), (3, 3), (0, 3), (2, 1), (2, 3)]


def planted(sizes: list[int], dtype: torch.dtype = torch.float64) -> tuple[list[Rows], np.ndarray]:
    """Representations that share some features, and the group of each row; those of a group do not stand together."""
    generator = torch.Generator().manual_seed(0)
    groups = np.random.default_rng(0).permutation(np.repeat(np.arange(len(sizes)), sizes))
    shared = torch.randn(len(groups), 3, generator=generator, dtype=torch.float64)
    shared[:, 0] += torch.from_numpy(groups) % 3
    own = [torch.randn(len(groups), d, generator=generator, dtype=torch.float64) for d in WIDTHS]
    return [Rows.of((torch.cat([shared, each], 1) + 5).to(dtype)) for each in own], groups


@pytest.fixture(params=[f"{name}, {how}" for name in (FEATURES, TILES) for how in ("whole", "in pieces")])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Each plan, with everything held at once, and with blocks of matrices, of rows and of features."""
    name, how = request.param.split(", ")
    force(monkeypatch, name, how == "in pieces")
    return request.param


def force(monkeypatch: pytest.MonkeyPatch, name: str, pieces: bool) -> None:
    def of(shapes: Any, pairs: Any, budget: int, itemsize: int = 4, largest: int = 1, rbf: bool = False) -> Work:
        every = list(shapes)
        blocks = [every[:2], *([one] for one in every[2:])] if pieces else [every]
        return planning._held(name, shapes, pairs, blocks, itemsize)

    monkeypatch.setattr(grid.Work, "of", of)
    if pieces:
        monkeypatch.setattr(products, "PIECE", 5 * 32 * 50 * 8)
        monkeypatch.setattr("lamina_kernels.tiles.inner.LONG", 8)
        monkeypatch.setattr(holding, "PANEL", 17)
        monkeypatch.setattr(tiles, "STRIP", 40)
        monkeypatch.setattr(holding, "BLOCK", 40)


def check_same(found: Estimate, called: Estimate, within: float) -> None:
    for name in ("value", "stderr"):
        assert getattr(found, name) == pytest.approx(getattr(called, name), abs=within, nan_ok=True), name
    assert found.replicates is not None
    assert called.replicates is not None
    assert found.replicates.keys == called.replicates.keys
    assert found.replicates.sizes == called.replicates.sizes
    assert found.replicates.values == pytest.approx(called.replicates.values, abs=within, nan_ok=True)
    assert dict(found.parts) == pytest.approx(dict(called.parts), rel=within)
    for name in ("measure", "unit", "n", "n_groups", "dropped", "estimator", "error", "options", "dtype", "seed"):
        assert getattr(found, name) == getattr(called, name), name


def check_all(rows: list[Rows], pairs: list[tuple[int, int]], within: float = 1e-9, **options: Any) -> None:
    found = dict(grid.compute(rows, pairs, **options))
    assert sorted(found) == list(range(len(pairs)))
    for number, (a, b) in enumerate(pairs):
        check_same(found[number], similarity.cka(rows[a], rows[b], **options), within)


@pytest.mark.usefixtures("way")
@pytest.mark.parametrize("sizes", SIZES.values(), ids=SIZES)
def test_every_pair_is_as_a_call_has_it(sizes: list[int]) -> None:
    rows, groups = planted(sizes)
    check_all(rows, PAIRS, groups=groups)


@pytest.mark.usefixtures("way")
def test_the_biased_one_too() -> None:
    for sizes in (SIZES["single, in buckets"], SIZES["unequal"]):
        rows, groups = planted(sizes)
        check_all(rows, PAIRS, groups=groups, debiased=False)


@pytest.mark.parametrize("pieces", [False, True], ids=["whole", "pieces"])
@pytest.mark.parametrize("sizes", SIZES.values(), ids=SIZES)
def test_rbf_kernels_too(sizes: list[int], pieces: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    force(monkeypatch, TILES, pieces)
    rows, groups = planted(sizes)
    check_all(rows, PAIRS, groups=groups, kernel="rbf", bandwidth=0.7, seed=3)


def test_rbf_kernels_of_narrow_numbers_and_biased(monkeypatch: pytest.MonkeyPatch) -> None:
    force(monkeypatch, TILES, pieces=True)
    rows, groups = planted(SIZES["unequal"])
    check_all(rows, PAIRS, groups=groups, kernel="rbf", debiased=False)
    rows, groups = planted(SIZES["equal, in buckets"], torch.float32)
    check_all(rows, PAIRS, 1e-4, groups=groups, kernel="rbf")


def test_rows_of_groups_in_another_order_draw_other_bandwidths_and_are_left_to_calls(run: lamina.Run) -> None:
    rows = [run.rows("x", step=step) for step in (0, 1)]
    assert sorted(dict(grid.compute(rows, [(0, 1), (1, 0)]))) == [0, 1]
    assert list(grid.compute(rows, [(1, 0)], kernel="rbf")) == []


@pytest.mark.usefixtures("way")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_narrow_numbers_too(dtype: torch.dtype) -> None:
    for name in ("single, in buckets", "unequal"):
        rows, groups = planted(SIZES[name], dtype)
        check_all(rows, PAIRS, 1e-5, groups=groups)


@pytest.mark.usefixtures("way")
def test_means_do_not_move_it() -> None:
    rows, groups = planted(SIZES["equal, in buckets"])
    moved = [Rows.of((each.gather(slice(None)) + 1000).float()) for each in rows]
    found = dict(grid.compute(moved, PAIRS, groups=groups))
    for number, (a, b) in enumerate(PAIRS):
        assert found[number].value == pytest.approx(similarity.cka(rows[a], rows[b], groups=groups).value, abs=1e-4)


@pytest.fixture
def run(tmp_path: Path) -> lamina.Run:
    """Two sites at two steps, the second in another order, and at a third without some examples."""
    rows, groups = planted(SIZES["unequal"], torch.float32)
    run = lamina.Run.create(tmp_path / "run")
    positions = np.array([np.count_nonzero(groups[:row] == group) for row, group in enumerate(groups)])
    orders = [np.arange(len(groups)), np.random.default_rng(1).permutation(len(groups)), np.flatnonzero(groups > 1)]
    with run.writer() as writer:
        for step, order in enumerate(orders):
            given = {"x": rows[1].gather(order) + step, "y": rows[2].gather(order)}
            writer.append(given, step=step, example=groups[order], position=positions[order])
    return run.refresh()


@pytest.mark.usefixtures("way")
def test_stored_rows_pair_by_name_and_by_example(run: lamina.Run) -> None:
    rows = [run.rows(site, step=step) for step in (0, 1) for site in "xy"]
    check_all(rows, [(a, b) for b in range(4) for a in range(b)], 1e-5)


def test_pairing_by_order_is_noticed(run: lamina.Run) -> None:
    with broken("rows_pair_by_order"):
        found = dict(grid.compute([run.rows("x", step=0), run.rows("x", step=1)], [(0, 1)]))
    assert not found or abs(found[0].value - 1) > 0.1


FAULTS = {"grid_forgets_groups": "unequal", "grid_keeps_rows_of_a_group": "unequal, in buckets"}


@pytest.mark.usefixtures("way")
@pytest.mark.parametrize("fault", FAULTS)
def test_faults_are_noticed(fault: str) -> None:
    rows, groups = planted(SIZES[FAULTS[fault]])
    with broken(fault), pytest.raises(AssertionError):
        check_all(rows, PAIRS, groups=groups)


@pytest.mark.usefixtures("way")
def test_what_differs_is_left_to_calls() -> None:
    n = 40
    x = [torch.randn(n, 3, generator=torch.Generator().manual_seed(seed)) for seed in range(3)]
    x[0][7, 1] = float("nan")
    rows = [
        *map(Rows.of, x),
        Rows.of(x[1].double()),
        Rows.of(torch.ones(n, 3)),
        Rows.of(x[1][:30]),
        Rows.of(x[1][:, :0]),
    ]
    pairs = [(0, 1), (1, 2), (1, 3), (1, 4), (2, 5), (1, 6), (2, 1)]
    found = dict(grid.compute(rows, pairs))
    assert sorted(found) == [1, 6]
    check_same(found[1], similarity.cka(rows[1], rows[2]), 1e-6)
    assert similarity.cka(rows[0], rows[1]).dropped == {"non_finite": 1}
    with pytest.raises(SchemaError, match="does not vary"):
        similarity.cka(rows[1], rows[4])


def test_what_a_call_refuses_is_left_to_calls() -> None:
    rows, groups = planted([5, 5, 5])
    assert list(grid.compute(rows, PAIRS, groups=groups)) == []
    assert len(list(grid.compute(rows, PAIRS, groups=groups, debiased=False))) == len(PAIRS)
    assert list(grid.compute(rows, PAIRS, kernel="polynomial")) == []
    assert list(grid.compute(rows, PAIRS, kernel="rbf", bandwidth=0)) == []


def test_row_sums_of_one_way_are_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    force(monkeypatch, TILES, pieces=True)
    rows, groups = planted(SIZES["unequal"])
    with broken("grid_adds_row_sums_one_way"), pytest.raises(AssertionError):
        check_all(rows, PAIRS, groups=groups, kernel="rbf")


class Counted(Memory):
    """Rows that count the bytes that are read of them."""

    read = 0

    def gather(self, positions: Any, out: torch.Tensor, threads: int | None = None) -> None:
        Counted.read += out.nbytes
        super().gather(positions, out, threads)


@pytest.mark.parametrize("megabytes", [20, 90])
def test_what_is_read_is_what_the_plan_says(megabytes: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(products, "PIECE", 2**20)
    n, d, count = 4000, 24, 16
    rows = [Rows(Counted(torch.randn(n, d, generator=torch.Generator().manual_seed(one)))) for one in range(count)]
    pairs = [(a, b) for b in range(count) for a in range(b)]
    chosen = planning.plan([(n, d)] * count, pairs, megabytes * 2**20)
    Counted.read = 0
    assert len(list(grid.compute(rows, pairs, budget=megabytes * 2**20))) == len(pairs)
    assert Counted.read == chosen.bytes
    assert (chosen.passes > 1) == (megabytes == 20)
