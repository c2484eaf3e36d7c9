"""Rows of a stored site and of memory."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch

import lamina
from lamina.errors import NotFoundError, SchemaError
from tests.faults import broken
from tests.meter import peak_bytes


def value(row: int) -> list[float]:
    return [float(row), row * 2.0, row * 3.0]


@pytest.fixture
def run(tmp_path: Path) -> lamina.Run:
    """Rows 0 to 99 in ten groups by two writers: rows of odd steps are the validation's."""
    run = lamina.Run.create(tmp_path / "run")
    with run.writer() as first, run.writer() as second:
        for step in range(10):
            writer = first if step < 6 else second
            x = np.array([value(10 * step + e) for e in range(10)], np.float32)
            source = "validation" if step % 2 else "train"
            writer.append({"x": x}, step=step, example=list(range(10)), source=source)
            writer.flush()
    return run.refresh()


def test_rows_in_order_and_in_blocks(run: lamina.Run) -> None:
    rows = run.rows("x", source="train")
    assert (rows.shape, len(rows), rows.dtype) == ((50, 3), 50, torch.float32)
    expected = [value(10 * step + e) for step in range(0, 10, 2) for e in range(10)]
    assert rows.gather(range(50)).tolist() == expected
    assert [list(block.shape) for block in rows.blocks(20)] == [[20, 3], [20, 3], [10, 3]]
    assert torch.cat(list(rows.blocks(7))).tolist() == expected


def test_names_are_permanent(run: lamina.Run) -> None:
    ids = run.rows("x", source="validation", where=pl.col("example") == 0).ids
    assert ids.tolist() == [10, 30, 50, 70, 90]


def check_any_order(run: lamina.Run) -> None:
    rows = run.rows("x", step=slice(None), source=["train", "validation"])  # type: ignore[arg-type]
    for wanted in ([99, 0, 50, 0, 3, 98, 51], list(range(99, -1, -1)), [5], [], list(range(0, 100, 13))):
        assert rows.gather(wanted).tolist() == [value(row) for row in wanted]
    assert rows.gather(torch.tensor([2, 1])).tolist() == [value(2), value(1)]
    assert rows.gather(slice(95, None)).tolist() == [value(row) for row in range(95, 100)]


def test_gathering_in_any_order(run: lamina.Run) -> None:
    check_any_order(run)


def test_stored_order_instead_would_be_noticed(run: lamina.Run) -> None:
    with broken("rows_ignore_the_order_asked"), pytest.raises(AssertionError):
        check_any_order(run)


def test_filling_a_tensor_of_the_caller(run: lamina.Run) -> None:
    rows = run.rows("x", step=4)
    out = torch.empty(2, 3)
    assert rows.gather([1, 0], out=out) is out
    assert out.tolist() == [value(41), value(40)]
    rows.gather([1, 0], out=torch.empty(3, 2).T)
    with pytest.raises(SchemaError, match="out is"):
        rows.gather([1], out=out)
    with pytest.raises(IndexError):
        rows.gather([10])


def test_metadata_and_where(run: lamina.Run) -> None:
    rows = run.rows("x", source="train", where=(pl.col("example") > 7) & (pl.col("step") >= 2))
    assert rows.metadata(["step", "example"]).rows() == [(s, e) for s in (2, 4, 6, 8) for e in (8, 9)]
    assert rows.metadata(["row"])["row"].to_list() == rows.ids.tolist()
    assert rows.gather(range(8)).tolist() == [value(10 * s + e) for s in (2, 4, 6, 8) for e in (8, 9)]


def test_several_sources_must_be_chosen_from(run: lamina.Run) -> None:
    with pytest.raises(SchemaError, match="train, validation"):
        run.rows("x")
    assert run.rows("x", step=3).shape == (10, 3), "one step has one source here"
    with pytest.raises(NotFoundError):
        run.rows("y")


def test_nothing_is_read_before_it_is_asked_for(run: lamina.Run) -> None:
    rows = run.rows("x", step=3)
    assert run._snapshot.bytes_read[1] == 0
    rows.gather([0])
    assert 0 < run._snapshot.bytes_read[1] <= 120


def test_rows_pickle_by_their_question(run: lamina.Run) -> None:
    rows = run.rows("x", step=4, where=pl.col("example") < 2)
    assert len(pickle.dumps(rows)) < 2000
    assert pickle.loads(pickle.dumps(rows)).gather([0, 1]).tolist() == [value(40), value(41)]


@pytest.mark.parametrize(
    "make", [torch.as_tensor, np.asarray, lambda x: torch.as_tensor(x).double()[:, :].requires_grad_()]
)
def test_rows_of_memory(make: Any) -> None:
    rows = lamina.Rows.of(make([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]]))
    assert rows.shape == (3, 2)
    assert rows.gather([2, 0]).tolist() == [[5, 6], [1, 2]]
    assert rows.ids.tolist() == [0, 1, 2]
    assert lamina.Rows.of(rows) is rows
    assert pickle.loads(pickle.dumps(rows)).gather([1]).tolist() == [[3, 4]]
    assert lamina.Rows.of(torch.arange(3)).shape == (3, 1)
    assert lamina.Rows.of(torch.ones(2, 3, 4)).shape == (2, 12)


READ = """
import lamina
rows = lamina.open({path!r}, io="pread").rows("x")
total = sum(float(block.sum()) for block in rows.blocks(4096))
assert total == rows.shape[0] * 64, total
"""


def test_memory_does_not_grow_with_the_rows(tmp_path: Path) -> None:
    peaks = []
    for count in (20_000, 200_000):
        run = lamina.Run.create(tmp_path / str(count))
        with run.writer() as writer:
            for start in range(0, count, 20_000):
                writer.append({"x": np.ones((20_000, 64), np.float32)}, step=start)
        peaks.append(peak_bytes(READ.format(path=str(run.path))))
    assert (peaks[1] - peaks[0]) / 180_000 < 100, "bytes a row; a row has 256"


def test_what_the_examples_say_reaches_the_rows(tmp_path: Path) -> None:
    run = lamina.Run.create(tmp_path / "labels")
    with run.writer() as writer:
        writer.examples({"example": [1, 0, 2], "label": ["one", "zero", "two"]})
        writer.append({"x": torch.zeros(4, 1)}, step=0, example=[2, 0, 2, 7])
    rows = run.refresh().rows("x")
    assert "label" in rows.columns
    frame = rows.metadata(["label", "example"])
    assert frame.rows() == [("two", 2), ("zero", 0), ("two", 2), (None, 7)]
    with pytest.raises(NotFoundError, match="labl"):
        rows.metadata(["labl"])


def test_positions_have_columns_of_their_own(tmp_path: Path) -> None:
    run = lamina.Run.create(tmp_path / "tokens")
    with run.writer() as writer:
        writer.examples({"example": [0, 1], "topic": ["a", "b"]})
        writer.examples({"example": [0, 0], "position": [0, 1], "token": ["the", "cat"]})
        writer.append({"x": torch.zeros(3, 1)}, step=0, example=[0, 0, 1], position=[1, 0, 0])
        writer.append({"pooled": torch.zeros(2, 1)}, step=0, example=[1, 0])
    run = run.refresh()
    assert run.rows("x").metadata(["topic", "token"]).rows() == [("a", "cat"), ("a", "the"), ("b", None)]
    assert run.rows("pooled").metadata(["topic"])["topic"].to_list() == ["b", "a"]
