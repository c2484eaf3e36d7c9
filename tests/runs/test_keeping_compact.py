"""Compacting a run changes nothing that a reader can ask for."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import pytest
from polars.testing import assert_frame_equal

import lamina
from tests.faults import broken
from tests.store import reader, small


def planted(path: Path) -> lamina.Run:
    """Two writers with interleaved row sets, columns that come and go, nulls, texts, NaN, examples and metrics."""
    run = lamina.Run.create(path)
    for rank in range(2):
        with run.writer(rank=rank) as writer:
            for step in range(6):
                rng = np.random.default_rng(10 * rank + step)
                more = {"label": [None if k == 1 else f"é{step}{k}" for k in range(4)]} if step % 3 else {}
                writer.append(
                    {"x": rng.normal(size=(4, 3)).astype(np.float32), "loss": rng.normal(size=4)},
                    step=step,
                    example=np.arange(4),
                    weight=[0.5, None, float("nan"), -0.0],
                    flag=[True, False, None, True],
                    **more,
                )
                writer.append({"probe": np.full((2, 2), step, np.float16)}, step=step, source="validation")
                writer.examples(
                    {"example": [0, 1], **({"text": [f"t{step}", "u"]} if step % 4 < 2 else {"kind": [step, 7]})}
                )
                writer.log({"loss": step / 2}, step=step)
                writer.flush()
    return run.refresh()


def everything(run: lamina.Run) -> dict[str, pl.DataFrame]:
    wide = run.activations().collect().sort("row")
    return {
        "rows": wide.select(sorted(wide.columns)),
        "sites": run.sites().drop("non_finite"),
        "examples": run.examples().collect(),
        "metrics": run.metrics().collect(),
        "steps": pl.DataFrame({"step": run.steps()}),
    }


def assert_alike(found: dict[str, pl.DataFrame], expected: dict[str, pl.DataFrame]) -> None:
    for name, frame in expected.items():
        assert_frame_equal(found[name], frame, check_exact=True)


def test_nothing_changes_but_the_number_of_groups(tmp_path: Path) -> None:
    run = planted(tmp_path / "run")
    before = everything(run)
    old = lamina.open(run.path)
    done = run.compact()
    assert done.groups_after < done.groups_before / 3
    assert done.rows_dropped == 0
    assert_alike(everything(run), before)
    assert_alike(everything(old), before)
    assert run.verify().ok
    assert run.status.state == "finished"
    assert run.compact().groups_before == 0


def test_what_is_deleted_stays_deleted_and_its_bytes_are_left_behind(tmp_path: Path) -> None:
    run = planted(tmp_path / "run")
    run.delete("loss", steps=slice(2, 4)).delete(rows=[0, (1 << 40) + 1]).rewind(5)
    before = everything(run)
    done = run.compact()
    assert done.rows_dropped == 2 + 2 * 6
    assert_alike(everything(run), before)
    shown = everything(lamina.open(run.path, hidden=True))
    assert_frame_equal(shown["rows"], before["rows"])
    run.delete(steps=0)
    assert 0 not in run.steps()
    again = everything(run)
    run.compact()
    assert_alike(everything(run), again)


def test_a_writer_that_was_killed_is_fenced_and_compacted(tmp_path: Path) -> None:
    small.make(tmp_path / "run")
    expected = small.examine(tmp_path / "run")
    done = lamina.open(tmp_path / "run").compact()
    assert done.groups_before
    assert not done.working
    assert (tmp_path / "run" / "fences" / "000001").exists()
    small.assert_all_but(small.examine(tmp_path / "run"), expected)


def test_many_rounds_are_published_one_by_one(tmp_path: Path) -> None:
    run = planted(tmp_path / "run")
    before = everything(run)
    with run.writer() as writer:
        for step in range(6, 9):
            writer.append({"x": np.zeros((1, 3), np.float32)}, step=step).wait()
            assert run.compact(progress=False).working == (2,)
    assert_frame_equal(
        everything(run)["rows"].filter(pl.col("step") < 6).drop("non_finite", strict=False), before["rows"]
    )
    assert run.steps() == list(range(9)) or run.refresh().steps() == list(range(9))


def test_a_row_that_compaction_lost_would_be_noticed(tmp_path: Path) -> None:
    with broken("compaction_loses_a_row"), pytest.raises(AssertionError):
        test_nothing_changes_but_the_number_of_groups(tmp_path)


def test_the_documents_own_reader_finds_the_same_rows(tmp_path: Path) -> None:
    run = planted(tmp_path / "run")
    run.delete("loss", steps=2).delete(rows=[0])
    run.compact()
    run.delete(steps=4)
    found = reader.read(run.path)
    shown = {
        int(name): group.sites["x"][at].tolist()
        for group in found.groups
        if "x" in group.sites
        for at, name in enumerate(group.names)
        if not group.hidden["x"][at]
    }
    wide = run.activations("x").select("row", "x").collect()
    assert shown == dict(wide.iter_rows())
    assert len(shown) == 2 * 5 * 4 - 1


def test_rows_of_every_site_are_gathered_by_their_names(tmp_path: Path) -> None:
    run = planted(tmp_path / "run")
    expected = {
        site: (run.rows(site, source=source).ids, run.rows(site, source=source).gather(range(5)))
        for site, source in (("x", None), ("probe", "validation"))
    }
    run.compact()
    for site, (ids, values) in expected.items():
        rows = run.rows(site, source="validation" if site == "probe" else None)
        at = {int(name): k for k, name in enumerate(rows.ids)}
        assert sorted(at) == sorted(map(int, ids))
        np.testing.assert_array_equal(rows.gather([at[int(name)] for name in ids[:5]]), values)
