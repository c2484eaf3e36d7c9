"""Sites that were attached to rows later, in the wide frame and as rows."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

import lamina
from lamina.runs.scan import scan
from tests.runs.planted_groups import attach

ROWS = 60


@pytest.fixture
def base(run: lamina.Run) -> lamina.Run:
    """Six steps of ten rows each by one writer, a group a step; x is the row's number."""
    with run.writer() as writer:
        for step in range(6):
            x = np.arange(10 * step, 10 * step + 10, dtype=np.float32)[:, None]
            writer.append({"x": x}, step=step, example=list(range(10)))
            writer.flush()
    return run.refresh()


def values(rows: list[int]) -> np.ndarray:
    return np.array([[row, -row] for row in rows], np.float32)


def code_of(run: lamina.Run, **asked: Any) -> list[tuple[int, float | None]]:
    frame = run.activations(**asked).select("row", pl.col("code").arr.get(1)).collect()
    return frame.rows()


FEW = [31, 2, 59, 30, 7]


def test_an_attached_site_stands_beside_the_rows_own(base: lamina.Run) -> None:
    attach(base.path, 3, "code", [(FEW, values(FEW))])
    frame = base.refresh().activations().collect()
    assert frame["row"].to_list() == list(range(ROWS))
    assert frame["x"].arr.first().to_list() == list(range(ROWS))
    assert code_of(base) == [(row, -row if row in FEW else None) for row in range(ROWS)]


@pytest.mark.parametrize("engine", ["in-memory", "streaming"])
def test_rows_that_have_the_attached_site_alone_of_those_selected_appear(base: lamina.Run, engine: Any) -> None:
    attach(base.path, 3, "code", [(FEW[:2], values(FEW[:2])), (FEW[2:], values(FEW[2:]))])
    base.refresh()
    found = base.activations("code").collect(engine=engine)
    assert found["row"].to_list() == sorted(FEW)
    assert found["step"].to_list() == [row // 10 for row in sorted(FEW)]
    assert found["example"].to_list() == [row % 10 for row in sorted(FEW)]
    assert found["code"].to_list() == values(sorted(FEW)).tolist()
    assert base.activations("code").select(pl.len()).collect(engine=engine).item() == len(FEW)
    assert base.activations("code").head(3).collect(engine=engine).equals(found.head(3))
    some = base.activations("code").filter(pl.col("example") == 0, pl.col("code").arr.get(0) > 5)
    assert some.collect(engine=engine)["row"].to_list() == [30]


def test_steps_and_counts_of_an_attached_site_are_those_of_its_rows(base: lamina.Run) -> None:
    attach(base.path, 3, "code", [(FEW, values(FEW))])
    site = base.refresh().sites().filter(pl.col("site") == "code").row(0, named=True)
    assert (site["rows"], site["steps"]) == (len(FEW), 3)
    assert code_of(base, sites="code", step=3) == [(30, -30), (31, -31)]
    with pytest.raises(lamina.errors.NotFoundError, match="step 1"):
        base.activations("code", step=1)


def test_in_batches_of_a_few_rows_it_is_the_same(base: lamina.Run, monkeypatch: pytest.MonkeyPatch) -> None:
    everything = list(range(ROWS))
    shuffled = np.random.default_rng(0).permutation(ROWS).tolist()
    attach(base.path, 3, "code", [(shuffled[:35], values(shuffled[:35])), (shuffled[35:], values(shuffled[35:]))])
    monkeypatch.setattr(scan, "BATCH_BYTES", 256)
    assert code_of(base.refresh()) == [(row, -row) for row in everything]


def test_of_two_values_that_of_the_lowest_writer_is_shown_and_it_is_told(base: lamina.Run) -> None:
    attach(base.path, 4, "code", [([2, 3], values([20, 30]))])
    attach(base.path, 3, "code", [([3, 4], values([3, 4]))])
    base.refresh()
    with pytest.warns(lamina.LaminaWarning, match=r"several values of 'code' \(rows 3\)"):
        assert code_of(base, sites="code") == [(2, -20), (3, -3), (4, -4)]


def test_compaction_does_not_change_whose_value_is_shown(tmp_path: Path) -> None:
    run = lamina.Run.create(tmp_path / "run")
    with run.writer() as writer:
        writer.append({"base": np.zeros((4, 2), np.float32)}, step=0, example=range(4))
    rows = run.refresh().rows("base").ids
    # the lower of two writers has two small groups, which are merged into a file of the compaction's own
    with run.writer(rank=0) as first, run.writer(rank=1) as second:
        for part in (slice(0, 2), slice(2, 4)):
            first.append({"code": np.full((2, 1), 1, np.float32)}, row=rows[part]).wait()
        second.append({"code": np.full((4, 1), 2, np.float32)}, row=rows).wait()
    run.refresh()
    with pytest.warns(lamina.LaminaWarning, match="several values"):
        before = run.activations("code").collect()
    assert run.compact().groups_before == 2
    with pytest.warns(lamina.LaminaWarning, match="several values"):
        assert run.activations("code").collect().equals(before)
    assert before["code"].to_list() == [[1]] * 4


def test_a_value_that_the_row_was_made_with_prevails(base: lamina.Run) -> None:
    with base.writer() as writer:
        writer.append({"late": np.ones((1, 2), np.float32)}, step=9, example=[0])
    (made,) = base.refresh().activations("late").collect()["row"].to_list()
    attach(base.path, 7, "late", [([made, 5], values([8, 5]))], number=1)
    with pytest.warns(lamina.LaminaWarning, match="several values"):
        assert base.refresh().activations("late").collect()["late"].to_list() == [[5, -5], [1, 1]]


def test_values_of_rows_that_are_not_there_are_left_out(base: lamina.Run) -> None:
    attach(base.path, 3, "code", [([5, 1 << 39], values([5, 6]))])
    base.refresh()
    assert code_of(base, sites="code") == [(5, -5)]
    base.delete(rows=[5])
    assert code_of(base, sites="code") == []
    assert base.activations().collect().height == ROWS - 1


def test_a_selection_names_the_places_of_attached_values(base: lamina.Run) -> None:
    attach(base.path, 3, "code", [(FEW, values(FEW))])
    base.refresh()
    scanned, _ = base._wide.scan(["code"], None, None)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = list(scanned.selection(pl.col("step") > 0))
    (group,) = {group for group, _ in found}
    assert group == next(g.number for g in base._wide._all if g.kind == "attached")
    positions = np.concatenate([np.arange(len(FEW)) if at is None else at for _, at in found])
    assert [FEW[position] for position in positions] == [30, 31, 59]


def test_a_site_that_is_hidden_in_a_small_group_is_shown_in_a_large_one_behind_it(run: lamina.Run) -> None:
    with run.writer() as writer:
        for step, rows in enumerate((50, 3, 50)):
            x = np.full((rows, 1), step, np.float32)
            writer.append({"x": x, "y": x}, step=step)
            writer.flush()
    run.refresh().delete("x", rows=[51])
    frame = run.activations().collect()
    assert frame["x"].is_null().arg_true().to_list() == [51]
    assert frame["y"].null_count() == 0
