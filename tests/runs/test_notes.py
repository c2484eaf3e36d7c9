"""Notes: they are told to everybody, whatever becomes of the run."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

import lamina
from lamina.errors import SchemaError


def texts(run: lamina.Run) -> list[str]:
    return lamina.open(run.path).notes()["text"].to_list()


def test_a_note_is_there_with_its_time_and_step(run: lamina.Run) -> None:
    assert run.notes().schema == {"time": pl.Datetime("us", "UTC"), "step": pl.Int64, "text": pl.String}
    step: Any = np.int64(17)
    run.note("the seed was wrong: ☃").note("batch 17 is corrupt\nas batch 3", step=step)
    assert run.notes().select("step", "text").rows() == [
        (None, "the seed was wrong: ☃"),
        (17, "batch 17 is corrupt\nas batch 3"),
    ]
    times = run.notes()["time"].to_list()
    assert run.created <= times[0] <= times[1]


@pytest.mark.parametrize(
    ("text", "step", "message"),
    [("", None, "a note of ''"), (" \n", None, "a note of"), (3, None, "run.attach"), ("x", -1, "the least")],
)
def test_what_is_no_note(run: lamina.Run, text: str, step: int | None, message: str) -> None:
    with pytest.raises(SchemaError, match=message):
        run.note(text, step=step)
    assert not texts(run)


def test_a_note_has_a_longest_length(run: lamina.Run) -> None:
    run.note("a" * (1 << 20))
    with pytest.raises(SchemaError, match=r"1048577 bytes.*attach it"):
        run.note("a" * (1 << 20) + "b")
    assert [len(text) for text in texts(run)] == [1 << 20]


def test_many_note_at_once_while_a_writer_is_at_work(run: lamina.Run) -> None:
    with run.writer() as writer, ThreadPoolExecutor(4) as pool:
        writer.append({"x": np.zeros((1, 2))}, step=0)
        list(pool.map(lambda number: lamina.open(run.path).note(f"note {number}"), range(12)))
        writer.append({"y": np.zeros((1, 2))}, step=1)
    assert sorted(texts(run)) == sorted(f"note {number}" for number in range(12))
    assert lamina.open(run.path, strict=True).steps() == [0, 1]


def test_nothing_hides_a_note(run: lamina.Run) -> None:
    with run.writer() as writer:
        for step in range(3):
            writer.append({"x": np.full((1, 2), step)}, step=step)
    run.refresh().note("at two", step=2).rewind(1).delete(steps=0)
    run.compact()
    run.gc(grace=0)
    assert texts(run) == ["at two"]
    assert run.verify().ok


def test_copies_and_merged_runs_have_the_notes_of_all(tmp_path: Path) -> None:
    runs = [lamina.Run.create(tmp_path / name) for name in "abc"]
    for number in range(20):
        runs[number % 2].note(f"note {number}", step=number)
    in_order = [(number, f"note {number}") for number in range(20)]
    merged = lamina.merge(runs, tmp_path / "all")
    assert merged.notes().select("step", "text").rows() == in_order
    copy = merged.copy(tmp_path / "copy")
    assert copy.notes().equals(merged.notes())
    together = lamina.open_runs(tmp_path / "?").notes()
    assert together.sort("step").select("step", "text").rows() == in_order
    assert set(together["run"]) == {"a", "b"}


def test_a_damaged_commit_loses_its_note_alone(run: lamina.Run) -> None:
    run.note("one").note("two").note("three")
    second = sorted((run.path / "commits").iterdir())[1]
    data = bytearray(second.read_bytes())
    data[20] ^= 1
    second.write_bytes(data)
    with pytest.warns(lamina.LaminaWarning, match="commits/"):
        assert texts(run) == ["one", "three"]
