"""Collecting the garbage of a run frees space, and changes nothing that a reader can ask for."""

from __future__ import annotations

import multiprocessing
from pathlib import Path

import numpy as np
import pytest

import lamina
from lamina.errors import ExpiredError, SchemaError
from tests.faults import broken
from tests.runs.test_keeping_compact import assert_alike, everything, planted
from tests.store import reader


def size(path: Path) -> int:
    return sum(file.stat().st_size for file in path.rglob("*") if file.is_file())


def segments(run: lamina.Run) -> list[str]:
    return sorted(f"segments/{path.name}" for path in (run.path / "segments").iterdir())


def test_after_compaction_the_replaced_files_wait_for_their_grace_and_go(tmp_path: Path) -> None:
    run = planted(tmp_path / "run")
    run.delete("loss", steps=slice(2, 4))
    before, old = everything(run), segments(run)
    run.compact()
    done = run.gc()
    assert (done.condemned, done.removed, done.bytes_freed) == (tuple(old), (), 0)
    assert done.left["file"].to_list() == old
    assert done.left["reason"].str.contains("its grace ends in 86").all()
    assert "2 files condemned; left: 2 files" in str(done)
    held = size(run.path)
    done = run.gc(grace=0)
    assert done.removed == tuple(old)
    assert size(run.path) < held - done.bytes_freed + 1000
    assert_alike(everything(run), before)
    assert run.verify().ok
    assert str(run.gc(grace=0)) == "nothing to collect"
    found = reader.read(run.path)
    assert sum(len(group.names) for group in found.groups if "x" in group.sites) == 2 * 6 * 4


def test_deleting_half_of_the_rows_halves_the_folder(tmp_path: Path) -> None:
    run = lamina.Run.create(tmp_path / "run")
    with run.writer() as writer:
        for step in range(8):
            writer.append({"x": np.full((256, 1024), step, np.float32)}, step=step).wait()
    held, rows = size(run.path), 8 << 20
    run.refresh().delete(steps=slice(0, 4)).compact()
    assert size(run.path) > held
    done = run.gc(grace=0)
    assert done.bytes_freed > rows
    assert size(run.path) < held - rows // 2 + (1 << 20)
    np.testing.assert_array_equal(run.rows("x").gather([0, 1023]), np.repeat([[4.0], [7.0]], 1024, 1))


def test_a_run_that_reads_files_open_before_goes_on_and_a_late_one_is_told(tmp_path: Path) -> None:
    run = planted(tmp_path / "run")
    expected = run.rows("x").gather(range(8))
    early, late = lamina.open(run.path), lamina.open(run.path)
    rows, unread = early.rows("x"), late.rows("x")
    np.testing.assert_array_equal(rows.gather(range(48))[:8], expected)
    run.compact()
    run.gc(grace=0)
    np.testing.assert_array_equal(rows.gather(range(8)), expected)
    with pytest.raises(ExpiredError, match=r"reclaimed since the run was opened.*refresh"):
        unread.gather(range(8))
    np.testing.assert_array_equal(late.refresh().rows("x").gather(range(8)), expected)


def test_checkpoints_that_were_rewound_free_their_packs(tmp_path: Path) -> None:
    run = lamina.Run.create(tmp_path / "run")
    state = [{"w": np.random.default_rng(step).normal(size=(512, 512))} for step in range(3)]
    for step in range(3):
        with run.writer() as writer:
            writer.save({"model": state[step]}, step=step)
    done = run.refresh().rewind(1).gc(grace=0)
    assert done.removed == ("chunks/000002-000000.pack",)
    assert done.bytes_freed == 512 * 512 * 8
    for step in range(2):
        np.testing.assert_array_equal(run.load(step=step, part="model")["w"], state[step]["w"])
    with run.writer() as writer:
        writer.save({"model": state[2]}, step=2)
    np.testing.assert_array_equal(run.refresh().load(step=2, part="model")["w"], state[2]["w"])
    assert run.verify().ok
    assert sorted(reader.read(run.path).checkpoints) == [0, 1, 2]


def test_a_checkpoint_whose_chunks_are_gone_is_not_shown_even_if_hidden_ones_are(tmp_path: Path) -> None:
    run = lamina.Run.create(tmp_path / "run")
    with run.writer() as writer:
        writer.save({"model": {"w": np.ones(1000)}}, step=3)
    run.refresh().rewind(1)
    assert lamina.open(run.path, hidden=True).checkpoints().collect()["step"].to_list() == [3]
    run.gc(grace=0)
    assert lamina.open(run.path, hidden=True, strict=True).checkpoints().collect().is_empty()
    assert reader.read(run.path).checkpoints == {}


@pytest.mark.parametrize("grace", [-1, float("nan"), "1h"])
def test_a_grace_that_is_no_time_is_refused(tmp_path: Path, grace: float) -> None:
    run = lamina.Run.create(tmp_path / "run")
    with pytest.raises(SchemaError, match="grace="):
        run.gc(grace=grace)
    assert run.gc(grace=float("inf")).removed == ()


def _write(path: Path, steps: int) -> None:
    run = lamina.open(path)
    with run.writer() as writer:
        for step in range(steps):
            writer.append({"x": np.full((2, 3), step, np.float32)}, step=step).wait()
            writer.save({"model": {"w": np.full(10, step % 3)}}, step=step).wait()


def test_collections_beside_writers_of_other_processes_touch_nothing_of_theirs(tmp_path: Path) -> None:
    run = lamina.Run.create(tmp_path / "run")
    context = multiprocessing.get_context("forkserver")
    writers = [context.Process(target=_write, args=(run.path, 8)) for _ in range(2)]
    for writer in writers:
        writer.start()
    while any(writer.is_alive() for writer in writers):
        run.compact()
        run.gc(grace=0)
        lamina.open(run.path, strict=True)
    assert [writer.exitcode for writer in writers] == [0, 0]
    run.compact()
    run.gc(grace=0)
    wide = run.activations("x").collect()
    assert sorted(wide["step"].to_list()) == sorted(4 * list(range(8)))
    assert all(float(row[0]) == step for step, row in wide.select("step", "x").iter_rows())
    assert all(run.load(step=step, part="model")["w"].tolist() == [step % 3] * 10 for step in range(8))


def test_a_collection_that_took_too_much_would_be_noticed(tmp_path: Path) -> None:
    with broken("gc_removes_a_segment_that_counts"), pytest.raises((AssertionError, lamina.LaminaError)):
        test_after_compaction_the_replaced_files_wait_for_their_grace_and_go(tmp_path)
