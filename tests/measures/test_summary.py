"""Means over runs, and many tests at once."""

from __future__ import annotations

import math

import numpy as np
import polars as pl
import pytest

import lamina
from lamina.errors import SchemaError
from lamina.measures import benjamini_hochberg
from tests.faults import broken

VALUES = {"a": (0.1, 0.5), "b": (0.3, 0.5), "c": (0.2, float("nan"))}


def frame() -> pl.DataFrame:
    rows = [
        {"run": run, "site": site, "measure": "cka", "value": value, "stderr": 0.03, "n": 10 + len(run), "seed": None}
        for run, values in VALUES.items()
        for site, value in zip("xy", values, strict=True)
    ]
    return pl.DataFrame(rows)


def check_summary() -> None:
    found = lamina.summarize(frame())
    assert found.columns == ["site", "measure", "value", "stderr", "low", "high", "within", "count", "missing"]
    first, second = found.to_dicts()
    spread = np.std([0.1, 0.3, 0.2], ddof=1) / math.sqrt(3)
    assert (first["site"], first["count"], first["missing"]) == ("x", 3, 0)
    assert first["value"] == pytest.approx(0.2)
    assert first["stderr"] == pytest.approx(spread)
    assert first["high"] - first["value"] == pytest.approx(4.302653 * spread, rel=1e-5)  # t of 2 degrees of freedom
    assert first["within"] == pytest.approx(0.03 / math.sqrt(3))
    assert (second["count"], second["missing"], second["value"], second["stderr"]) == (2, 1, 0.5, 0.0)


def test_the_mean_over_runs() -> None:
    check_summary()


def test_normal_quantiles_would_be_noticed() -> None:
    with broken("intervals_are_normal"), pytest.raises(AssertionError):
        check_summary()


def test_a_single_run_has_no_interval() -> None:
    found = lamina.summarize(frame().filter(run="a"))
    assert found["low"].to_list() == [None, None]
    assert found["value"].to_list() == [0.1, 0.5]


def test_frames_of_sweeps() -> None:
    sweep = frame().with_columns(pl.col("run").alias("run_b")).rename({"run": "run_a"})
    assert lamina.summarize(sweep.lazy())["value"].to_list() == pytest.approx([0.2, 0.5])
    one_sided = sweep.with_columns(run_b=pl.lit(None, pl.String))
    assert lamina.summarize(one_sided)["value"].to_list() == pytest.approx([0.2, 0.5])
    with pytest.raises(SchemaError, match="pairs that share a run"):
        lamina.summarize(sweep.with_columns(run_b=pl.lit("a")))


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (pl.DataFrame({"value": [1.0], "stderr": [0.1]}), "no column 'run'"),
        (pl.DataFrame({"run": ["a"], "stderr": [0.1]}), "no column 'value'"),
        (pl.DataFrame({"run": ["a", "a"], "value": [1.0, 2.0], "stderr": [0.1, 0.1]}), "a run occurs twice"),
    ],
)
def test_frames_that_are_refused(given: pl.DataFrame, message: str) -> None:
    with pytest.raises(SchemaError, match=message):
        lamina.summarize(given)


def check_false_discoveries() -> None:
    # by the definition: the largest i with p_(i) <= q i / m, and all that are smaller
    p = np.random.default_rng(0).random(200) ** 2
    for q in (0.01, 0.05, 0.2):
        ranked = np.sort(p)
        passing = np.flatnonzero(ranked <= q * np.arange(1, 201) / 200)
        most = ranked[passing.max()] if passing.size else -1.0
        assert ((benjamini_hochberg(p) <= q) == (p <= most)).all()
    grid = benjamini_hochberg([[0.01, np.nan], [0.04, 0.03]])
    assert grid.tolist()[0][0] == pytest.approx(0.03)
    assert np.isnan(grid[0, 1])


def test_false_discoveries() -> None:
    check_false_discoveries()


def test_adjusting_one_by_one_is_noticed() -> None:
    with broken("discoveries_are_adjusted_one_by_one"), pytest.raises(AssertionError):
        check_false_discoveries()


def test_what_is_no_p_value() -> None:
    with pytest.raises(SchemaError, match="not between 0 and 1"):
        benjamini_hochberg([0.5, 1.5])
