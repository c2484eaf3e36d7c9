"""Predicates that are Python functions, and columns that do not exist."""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
import polars as pl
import pytest

import lamina
from lamina.errors import NotFoundError

ENGINES: list[Any] = ["in-memory", "streaming"]


@pytest.fixture
def few(run: lamina.Run) -> lamina.Run:
    with run.writer() as writer:
        for step in range(4):
            x = np.arange(step, step + 10, dtype=np.float32)[:, None]
            writer.append({"x": x}, step=step, example=list(range(10)), source=["train", "probe"][step % 2])
            writer.flush()
    return run.refresh()


def odd(number: int) -> bool:
    return bin(number).count("1") % 2 == 1


@pytest.mark.parametrize("engine", ENGINES)
def test_a_function_of_metadata_filters_before_vectors_are_read(few: lamina.Run, engine: Any) -> None:
    asked = pl.col("example").map_elements(odd, return_dtype=pl.Boolean)
    found = few.activations().filter(asked, pl.col("step") == 1).collect(engine=engine)
    assert found["example"].to_list() == [1, 2, 4, 7, 8]
    assert found["x"].to_list() == [[1.0 + example] for example in (1, 2, 4, 7, 8)]


@pytest.mark.parametrize("engine", ENGINES)
def test_a_function_of_a_vector_filters_too(few: lamina.Run, engine: Any) -> None:
    asked = pl.col("x").arr.first().map_elements(lambda x: odd(int(x)), return_dtype=pl.Boolean)
    found = few.activations().filter(asked, pl.col("step") == 0).collect(engine=engine)
    assert found["example"].to_list() == [1, 2, 4, 7, 8]


def test_a_function_of_many_rows_at_once_is_not_pushed_down_and_right(few: lamina.Run) -> None:
    asked = pl.col("example").map_batches(lambda s: s == s.max(), return_dtype=pl.Boolean)
    assert few.activations().filter(asked).collect()["example"].to_list() == [9] * 4
    assert few.activations().filter(pl.col("row") == pl.col("row").max()).collect().height == 1
    assert few.activations().filter(pl.col("row").cum_count() > 38).collect().height == 2


def test_without_cloudpickle_the_error_names_it(few: lamina.Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cloudpickle", None)
    asked = pl.col("example").map_elements(odd, return_dtype=pl.Boolean)
    with pytest.raises(pl.exceptions.ComputeError, match="cloudpickle"):
        few.activations().filter(asked).collect()


def test_an_error_of_the_function_reaches_who_asked(few: lamina.Run) -> None:
    def broken(number: int) -> bool:
        raise ZeroDivisionError(f"planted at {number}")

    with pytest.raises(Exception, match="planted at"):
        few.activations().filter(pl.col("example").map_elements(broken, return_dtype=pl.Boolean)).collect()


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("ask", ["select", "filter", "with both"])
def test_unknown_columns_raise(few: lamina.Run, ask: str, engine: Any) -> None:
    frame = few.activations()
    query = {
        "select": lambda: frame.select("nowhere"),
        "filter": lambda: frame.filter(pl.col("nowhere") > 1),
        "with both": lambda: frame.select("row", pl.col("x"), "nowhere"),
    }[ask]
    with pytest.raises(pl.exceptions.ColumnNotFoundError, match="nowhere"):
        query().collect(engine=engine)


def test_a_source_that_does_not_exist_is_answered_with_those_that_do(few: lamina.Run) -> None:
    assert few.activations(source="probe").collect()["step"].unique().sort().to_list() == [1, 3]
    with pytest.raises(NotFoundError, match=r"'porbe'.*probe"):
        few.activations(source="porbe")
    with pytest.raises(NotFoundError, match="'tets'"):
        few.activations(source=["train", "tets"])
    with pytest.raises(NotFoundError, match="'porbe'"):
        lamina.open_runs([few]).activations(source="porbe")
