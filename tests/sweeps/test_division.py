"""Comparisons that share subjects are computed together, and give what a call each gives."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import lamina
from lamina import similarity
from lamina.measures import registry
from lamina.measures.grids import Grid, Plan
from lamina.sweeps import division
from lamina.sweeps.cells import Cell
from lamina.sweeps.subjects import subjects
from lamina.sweeps.taking import taken
from tests.sweeps.conftest import SITES, make, vectors
from tests.sweeps.counting import CALLS, product_of


def test_a_grid_gives_what_calls_give(wide: lamina.Run, capsys: pytest.CaptureFixture[str]) -> None:
    frame = lamina.sweep(similarity.cka, wide)
    told = capsys.readouterr().err
    assert told.startswith("similarity.cka, 90 cells by "), told
    assert "over the rows" in told
    for row in frame.sample(8, seed=0).iter_rows(named=True):
        x, y = (wide.rows(row[f"site_{side}"], step=row["step_a"]) for side in "ab")
        expected = similarity.cka(x, y)
        np.testing.assert_allclose([row["value"], row["stderr"]], [expected.value, expected.stderr], rtol=1e-4)
    assert lamina.sweep(similarity.cka, wide).equals(frame)
    assert capsys.readouterr().err == "", "nothing is computed, nothing is said"


def test_the_bits_are_those_of_processes(wide: lamina.Run) -> None:
    here, there = (
        lamina.sweep(similarity.cka, wide, executor=executor, cache=False, progress=False)
        for executor in (None, "processes")
    )
    assert here.height == 90
    assert there.equals(here)


def cells(run: lamina.Run, pairs: list[tuple[int, int]], measure: Any = similarity.cka) -> tuple[Any, list[Cell]]:
    called = taken(measure, labels=None, seed=None, options=None, models=False, pairs=None)
    found = subjects({"run": run}, None, None)
    return called, [Cell.of((found[a], found[b]), b"") for a, b in pairs]


def grid_of(computed: Any, name: str = "a grid") -> Grid:
    return Grid(computed, lambda shapes, pairs, budget, **options: Plan(name, 1.0, 2, 3))


@pytest.fixture
def registered(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Registers `product_of` with a grid, for a test."""

    def register(grid: Grid) -> None:
        monkeypatch.setattr(registry, "_registered", dict(registry._registered))
        declared = {"takes": "two rows", "invariant": [], "cost": "none", "source": "none", "grid": grid}
        lamina.measures.measure("example", **declared)(product_of)

    return register


def test_pieces_share_no_subject(run: lamina.Run, registered: Any) -> None:
    registered(grid_of(lambda *args, **options: iter(())))
    called, found = cells(run, [(0, 2), (1, 3), (2, 4), (0, 4)], product_of)
    pieces = division.divided(called, found)
    assert [[number for number, _ in piece.cells] for piece in pieces] == [[0, 2, 3], [1]]
    assert [piece.plan is None for piece in pieces] == [False, True]
    plan = division.together(pieces)
    assert plan
    assert (plan.name, plan.seconds, plan.passes, plan.bytes) == ("a grid", 1.0, 2, 3)
    registered(grid_of(lambda *args, **options: iter(()), "one by one"))
    called, found = cells(run, [(0, 2), (1, 3), (2, 4), (0, 4)], product_of)
    assert len(division.divided(called, found)) == 4


def test_what_a_grid_leaves_is_called(run: lamina.Run, registered: Any) -> None:
    def computed(rows: Any, pairs: Any, *, budget: int, **options: Any) -> Any:
        for place in range(0, len(pairs), 2):
            yield place, lamina.measures.Estimate("by the grid", float(place), 0.0, estimator="grid")
        raise lamina.errors.SchemaError("not further")

    registered(grid_of(computed))
    CALLS.since()
    frame = lamina.sweep(product_of, run, steps=0, cache=False, progress=False)
    assert frame["measure"].to_list() == ["by the grid", "product_of"] * 3
    assert CALLS.since() == 3


def test_a_grid_that_is_interrupted_loses_nothing_that_it_gave(run: lamina.Run, registered: Any) -> None:
    def computed(rows: Any, pairs: Any, *, budget: int, **options: Any) -> Any:
        for place in range(len(pairs)):
            if len(pairs) == 6 and place == 4:
                raise KeyboardInterrupt
            yield place, lamina.measures.Estimate("product", float(place), 0.0, estimator="grid")

    registered(grid_of(computed))
    with pytest.raises(KeyboardInterrupt):
        lamina.sweep(product_of, run, steps=0, progress=False)
    assert lamina.sweep(product_of, run, steps=0, progress=False)["value"].to_list() == [0.0, 1, 2, 3, 0, 1]


def test_options_reach_the_grid(run: lamina.Run) -> None:
    biased = lamina.sweep(similarity.cka, run, options={"debiased": False, "groups": "topic"}, progress=False)
    for row in biased.iter_rows(named=True):
        x, y = (run.rows(row[f"site_{side}"], step=row["step_a"]) for side in "ab")
        expected = similarity.cka(x, y, debiased=False, groups="topic")
        assert row["value"] == pytest.approx(expected.value, rel=1e-4)
        assert '"groups": "topic"' in row["options"]


def test_a_subject_that_pairs_with_none_is_left_to_the_measure(tmp_path: Path) -> None:
    run = make(tmp_path / "run")
    with run.writer() as writer:
        writer.append({"other.output": vectors(SITES[0], 0)}, step=0, example=range(500, 540), source="validation")
    with pytest.warns(lamina.LaminaWarning, match="3 of 9 cells"):
        frame = lamina.sweep(similarity.cka, run.refresh(), errors="null", progress=False)
    assert frame.filter(frame["value"].is_null())["site_b"].to_list() == ["other.output"] * 3
