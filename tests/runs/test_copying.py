"""A copy is the run, bit for bit, or it is not there."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from threading import Thread

import numpy as np
import polars as pl
import pytest
import torch
from polars.testing import assert_frame_equal

import lamina
from lamina import _core
from lamina.errors import DamagedError, LaminaError, NotARunError
from tests.faults import broken
from tests.runs.planted_groups import attach
from tests.runs.test_keeping_compact import assert_alike, everything, planted
from tests.store import reader
from tests.store import test_both_readers as readers
from tests.store import test_independent_reader as document
from tests.store.planted import Planted, plant


@pytest.fixture(scope="module")
def full(tmp_path_factory: pytest.TempPathFactory) -> tuple[Planted, lamina.Run]:
    """A run that uses everything that a run can hold, and a copy of it."""
    folder = tmp_path_factory.mktemp("full")
    planted = plant(folder / "run")
    return planted, lamina.open(folder / "run").copy(folder / "copies" / "copy")


def test_a_copy_holds_what_was_put_in_bit_for_bit(full: tuple[Planted, lamina.Run]) -> None:
    planted, copy = full
    found = reader.read(copy.path)
    document.test_the_reader_finds_the_configuration(found)
    document.test_the_reader_finds_every_cell_and_every_bit_of_every_site(found, planted)
    document.test_the_reader_finds_every_declared_site(found, planted)
    document.test_the_reader_finds_the_metrics(found, planted)
    document.test_the_reader_finds_of_each_example_what_was_written_last(found, planted)
    document.test_the_reader_finds_the_checkpoints(found, planted)
    document.test_the_reader_finds_what_became_of_each_writer(found)
    readers.test_lamina_finds_every_cell(copy, planted)
    readers.test_lamina_gives_every_site_bit_for_bit(copy, planted)
    readers.test_lamina_counts_what_the_reader_counts(copy, planted)
    assert copy.verify().ok


def test_a_copy_keeps_row_names_and_says_what_it_was_copied_from(full: tuple[Planted, lamina.Run]) -> None:
    _, copy = full
    run = lamina.open(copy.path.parent.parent / "run")
    assert_frame_equal(
        copy.activations().select("row", "uid").collect(), run.activations().select("row", "uid").collect()
    )
    assert copy.id != run.id
    said = copy.sources().drop("config").row(0)
    assert said == ("run", run.id, run.created, 0, 0)
    assert run.sources().is_empty()
    assert copy.copy(copy.path.parent / "again").sources()["id"].to_list() == [copy.id, run.id]


def kept(run: lamina.Run) -> None:
    """Everything that keeping does to a run: rows attached, deleted, gone back, compacted, cold."""
    attach(run.path, 7, "code", [([13, 2, 1, 4], np.arange(8, dtype=np.float32).reshape(4, 2))])
    run.refresh().delete("loss", steps=slice(2, 4)).delete(rows=[0, 2, (1 << 40) + 1]).rewind(5)


def shown(run: lamina.Run) -> dict[str, pl.DataFrame]:
    # `steps` of a site counts whole groups, which a copy cuts anew where something of them is hidden
    found = everything(run)
    return found | {"sites": found["sites"].drop("steps")}


@pytest.mark.parametrize("when", ["before", "after", "both"])
def test_what_is_hidden_stays_behind_and_the_rest_is_the_same(tmp_path: Path, when: str) -> None:
    run = planted(tmp_path / "run")
    if when != "after":
        kept(run)
    if when != "before":
        run.compact(cold="x")
        run.gc(grace=0)
        run.gc(grace=0)
    if when == "after":
        kept(run)
    copy = run.copy(tmp_path / "copy")
    assert_alike(shown(copy), shown(run))
    assert_alike(shown(lamina.open(copy.path, hidden=True)), shown(run))
    assert copy.verify().ok
    found = reader.read(copy.path)
    cold = [any(6 in block for block in group.record[7]) for group in found.groups if "x" in group.sites]
    assert all(cold) == (when != "before"), "what is cold stays so"
    assert copy.compact().working == ()
    assert_alike(shown(copy), shown(run))


def test_the_comparison_notices_a_lost_row(tmp_path: Path) -> None:
    run = planted(tmp_path / "run")
    with broken("copying_loses_a_row"):
        copy = run.copy(tmp_path / "copy")
    with pytest.raises(AssertionError):
        assert_alike(everything(copy), everything(run))


def test_a_run_that_grows_is_copied_as_it_was_when_it_was_opened(tmp_path: Path) -> None:
    run = lamina.Run.create(tmp_path / "run")
    with run.writer(rank=4) as writer:
        for step in range(5):
            writer.append({"x": np.full((10, 4), step, np.float32)}, step=step)
            writer.log({"loss": float(step)}, step=step)
        writer.flush()
        run.refresh()
        done: list[bool] = []

        def go_on() -> None:
            step = 5
            while not done:
                writer.append({"x": np.full((10, 4), step, np.float32)}, step=step).wait()
                step += 1

        thread = Thread(target=go_on)
        thread.start()
        try:
            copies = [run.copy(tmp_path / f"copy-{k}") for k in range(3)]
            later = run.refresh().steps()
            last = run.copy(tmp_path / "last")
        finally:
            done.append(True)
            thread.join()
    for copy in copies:
        assert copy.steps() == [0, 1, 2, 3, 4]
        assert copy.rows("x").gather(range(50))[:, 0].tolist() == np.repeat(range(5), 10).tolist()
        assert copy.metrics().select("rank", "value").collect().rows() == [(4, float(step)) for step in range(5)]
        assert copy.status.state == "failed"
        assert "had not ended" in str(copy.status)
    assert last.steps() == later
    with copies[0].writer() as writer:
        writer.append({"x": np.ones((1, 4), np.float32)}, step=9)
    assert copies[0].refresh().activations("x").collect()["row"][-1] == 1 << 40


def test_nothing_is_overwritten(tmp_path: Path) -> None:
    run = planted(tmp_path / "run")
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").write_text("mine")
    for taken in ("run", "empty", "file"):
        with pytest.raises(NotARunError, match="already exists"):
            run.copy(tmp_path / taken)
    assert not any((tmp_path / "empty").iterdir())
    assert (tmp_path / "file").read_text() == "mine"
    assert run.verify().ok


def test_a_run_is_not_put_inside_of_another_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = planted(tmp_path / "run")
    held = sorted((tmp_path / "run").rglob("*"))
    monkeypatch.chdir(tmp_path / "run")
    for place in (tmp_path / "run" / "copies" / "one", Path("one")):
        with pytest.raises(NotARunError, match=r"lies inside of the run .*run .*beside it"):
            run.copy(place)
        with pytest.raises(NotARunError, match="lies inside of the run"):
            lamina.Run.create(place)
    assert sorted((tmp_path / "run").rglob("*")) == held


@pytest.mark.parametrize("hidden", [False, True])
def test_damage_is_found_and_nothing_remains(tmp_path: Path, hidden: bool) -> None:
    run = lamina.Run.create(tmp_path / "run")
    with run.writer() as writer:
        writer.append({"x": np.zeros((4, 3), np.float32)}, step=0)
    if hidden:
        run.refresh().delete(rows=[1])
    (segment,) = (run.path / "segments").iterdir()
    data = bytearray(segment.read_bytes())
    data[(1 << 20) + 40] ^= 1
    segment.write_bytes(data)
    for verify in ("first", "never"):
        with pytest.raises(DamagedError, match=r"checksum.*rows 0 to 3"):
            lamina.open(run.path, verify=verify).copy(tmp_path / "copy")
    assert [path.name for path in tmp_path.iterdir()] == ["run"]
    assert run.refresh().delete(rows=range(4)).copy(tmp_path / "copy").steps() == []


def test_a_flipped_bit_of_a_checkpoint_is_found(tmp_path: Path) -> None:
    run = lamina.Run.create(tmp_path / "run")
    with run.writer() as writer:
        writer.save({"model": {"weight": torch.arange(1000.0)}}, step=3)
    (pack,) = (run.path / "chunks").iterdir()
    data = bytearray(pack.read_bytes())
    data[17] ^= 4
    pack.write_bytes(data)
    with pytest.raises(DamagedError, match="weight"):
        run.refresh().copy(tmp_path / "copy")
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


def test_a_copy_that_is_stopped_leaves_nothing(tmp_path: Path) -> None:
    run = planted(tmp_path / "run")
    state = _core.Progress()
    state.stop()
    with pytest.raises(LaminaError, match="stopped"):
        _core.merge([("run", run._snapshot)], str(tmp_path / "copy"), "{}", state)
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


def test_a_copy_that_is_killed_is_not_there_or_is_whole(tmp_path: Path) -> None:
    run = lamina.Run.create(tmp_path / "run")
    with run.writer() as writer:
        for step in range(200):
            writer.append({"x": np.full((50, 64), step, np.float32)}, step=step)
            if step % 20 == 0:
                writer.flush()
    program = "import lamina, sys; run = lamina.open(sys.argv[1]); print('.', flush=True); run.copy(sys.argv[2])"
    absent = 0
    for attempt in range(6):
        target = tmp_path / f"copy-{attempt}"
        arguments = [sys.executable, "-c", program, str(run.path), str(target)]
        with subprocess.Popen(arguments, stdout=subprocess.PIPE) as process:
            assert process.stdout is not None
            process.stdout.read(1)
            time.sleep(0.004 * attempt)
            os.kill(process.pid, signal.SIGKILL)
        if target.exists():
            copy = lamina.open(target, strict=True)
            assert copy.verify().ok
            assert len(copy.rows("x")) == 10_000
        else:
            absent += 1
        assert all(path.name.startswith((".", "run", "copy-")) for path in tmp_path.iterdir())
    assert absent > 0
