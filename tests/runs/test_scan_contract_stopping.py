"""The wide frame reads no more than Polars asks for, and counts over all of its batches."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import polars as pl
import pytest

import lamina
from lamina.runs.scan import scan

ENGINES: list[Any] = ["in-memory", "streaming"]
OLD = tuple(map(int, pl.__version__.split(".")[:2])) < (1, 41)
GROUPS, ROWS, WIDTH = 24, 8, 16
GROUP_BYTES = ROWS * WIDTH * 4


@pytest.fixture
def many(run: lamina.Run, monkeypatch: pytest.MonkeyPatch) -> lamina.Run:
    """Many groups, of which a batch holds one."""
    with run.writer() as writer:
        for step in range(GROUPS):
            x = np.full((ROWS, WIDTH), step, np.float32)
            writer.append({"x": x}, step=step, example=list(range(ROWS)))
            writer.flush()
    monkeypatch.setattr(scan, "BATCH_BYTES", GROUP_BYTES)
    return run.refresh()


@pytest.fixture
def sources(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """What Polars asked of each source, how many batches it took, and how it ended."""
    calls: list[dict[str, Any]] = []
    whole = scan.Scan._batches

    def watched(
        self: scan.Scan, columns: list[str] | None, predicate: pl.Expr | None, rows: int | None, size: int | None
    ) -> Iterator[pl.DataFrame]:
        call = {"columns": columns, "predicate": predicate, "rows": rows, "batches": 0, "end": "open"}
        calls.append(call)
        try:
            for batch in whole(self, columns, predicate, rows, size):
                call["batches"] += 1
                yield batch
            call["end"] = "drained"
        except GeneratorExit:
            call["end"] = "closed"
            raise

    monkeypatch.setattr(scan.Scan, "_batches", watched)
    return calls


def test_a_closed_generator_reads_nothing_more(many: lamina.Run) -> None:
    batches = many._wide.scan(["x"], None, None)[0]._batches(["x"], None, None, None)
    assert next(batches)["x"].to_list() == [[0.0] * WIDTH] * ROWS
    read = many._snapshot.bytes_read
    assert read[1] == GROUP_BYTES
    batches.close()
    assert many._snapshot.bytes_read == read


def test_the_streaming_engine_leaves_the_generator_and_most_is_never_read(
    many: lamina.Run, sources: list[dict[str, Any]]
) -> None:
    found = many.activations().filter(pl.col("x").arr.first() >= 0).head(2).collect(engine="streaming")
    assert found["x"].to_list() == [[0.0] * WIDTH] * 2
    (call,) = sources
    assert call["end"] != "drained"
    assert call["rows"] is None, "a number of rows is not pushed below a predicate"
    assert many._snapshot.bytes_read[1] < GROUPS * GROUP_BYTES / 2


@pytest.mark.parametrize("engine", ENGINES)
def test_a_number_of_rows_is_counted_over_batches_and_no_more_is_read(
    many: lamina.Run, sources: list[dict[str, Any]], engine: Any
) -> None:
    asked = 2 * ROWS + 3
    found = many.activations().head(asked).collect(engine=engine)
    assert found["step"].to_list() == [0] * ROWS + [1] * ROWS + [2] * 3
    (call,) = sources
    assert call["rows"] == asked
    assert many._snapshot.bytes_read[1] <= 3 * GROUP_BYTES


@pytest.mark.parametrize("engine", ENGINES)
def test_two_branches_are_two_questions_or_one_and_agree(many: lamina.Run, engine: Any) -> None:
    frame = many.activations()
    low, high, count = pl.collect_all(
        [frame.filter(pl.col("step") < 3), frame.filter(pl.col("x").arr.first() > 20), frame.select(pl.len())],
        engine=engine,
    )
    assert low["step"].unique().sort().to_list() == [0, 1, 2]
    assert high["step"].unique().sort().to_list() == [21, 22, 23]
    assert count.item() == GROUPS * ROWS


@pytest.mark.skipif(OLD, reason="before 1.41 Polars chose another column to count by")
@pytest.mark.parametrize("engine", ENGINES)
def test_counting_asks_for_the_first_column_which_is_never_a_vector(
    many: lamina.Run, sources: list[dict[str, Any]], engine: Any
) -> None:
    assert many.activations().select(pl.len()).collect(engine=engine).item() == GROUPS * ROWS
    assert all(call["columns"] == ["row"] for call in sources)
    assert many._snapshot.bytes_read == (0, 0)


@pytest.mark.parametrize("engine", ENGINES)
def test_a_join_and_a_slice_read_every_row_of_what_they_need_and_are_right(many: lamina.Run, engine: Any) -> None:
    keys = pl.LazyFrame({"step": [3, 5]})
    frame = many.activations()
    joined = frame.join(keys, on="step", how="semi").collect(engine=engine)
    assert sorted(joined["step"].to_list()) == [3] * ROWS + [5] * ROWS
    assert frame.slice(ROWS * 4 + 1, 2).collect(engine=engine)["step"].to_list() == [4, 4]
    assert frame.tail(1).collect(engine=engine)["step"].to_list() == [GROUPS - 1]


@pytest.mark.parametrize("engine", ENGINES)
def test_a_predicate_arrives_whole_and_is_not_checked_again(
    many: lamina.Run, sources: list[dict[str, Any]], engine: Any
) -> None:
    asked = (pl.col("step") == 7) & (pl.col("example") > 5)
    assert many.activations().filter(asked).select("row").collect(engine=engine)["row"].to_list() == [62, 63]
    (call,) = sources
    assert call["predicate"] is not None
    assert {"step", "example"} <= set(call["predicate"].meta.root_names())
