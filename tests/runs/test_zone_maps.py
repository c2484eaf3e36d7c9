"""Zone maps pass over groups, and never over a row: with them off the rows are identical."""

from __future__ import annotations

import math
import operator
import os
import random
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import lamina
from lamina.runs.scan.zones import may_pass
from tests.faults import broken

BIG = 2**53
INTS = [None, 0, 1, -1, 7, BIG - 1, BIG, BIG + 1, BIG + 2, -BIG - 1, 2**63 - 1, -(2**63)]
FLOATS = [None, math.nan, 0.0, -0.0, 1.5, -1.5, math.inf, -math.inf, 5e-324, float(BIG), 1e308]
TEXTS = [
    *(
        None,
        "",
        "a",
        "b",
        "A",
        "\x00",
        "é",
        "a" * 31,
        "a" * 32,
        "a" * 33,
        "a" * 31 + "é",
        "a" * 31 + "éb",
        "a" * 32 + "b",
    ),
    *("\U0010ffff" * 8, "\U0010ffff" * 9, "a" * 31 + "\U0010ffff", "a" * 31 + "\U0010ffff" * 2),
]
BOOLS = [None, True, False]
TIMES = [
    None,
    *(datetime(year, 1, 1, tzinfo=UTC) for year in (1970, 1971, 2026, 9999)),
    datetime(1969, 12, 31, tzinfo=UTC),
]
TYPES: dict[str, Any] = {"t": pl.Datetime("us", "UTC"), "i": pl.Int64, "f": pl.Float64, "s": pl.String, "b": pl.Boolean}
POOLS: dict[str, list[Any]] = {"t": TIMES, "i": INTS, "f": FLOATS, "s": TEXTS, "b": BOOLS}
GROUPS = 90


def planted(path: Path) -> tuple[lamina.Run, pl.DataFrame]:
    """Small groups, each of few values that zone maps find hard, and what was put in."""
    draw = random.Random(5)
    run = lamina.Run.create(path)
    parts = []
    with run.writer() as writer:
        for number in range(GROUPS):
            count = draw.randint(1, 4)
            cells = {name: draw.choices(draw.sample(pool, draw.randint(1, 2)), k=count) for name, pool in POOLS.items()}
            given = {name: values for name, values in cells.items() if any(value is not None for value in values)}
            writer.append({"x": np.full((count, 2), number, np.float32)}, step=number // 10, **given)
            writer.flush()
            parts.append(pl.DataFrame(cells, schema=TYPES).with_columns(step=pl.lit(number // 10, pl.Int64)))
    truth = pl.concat(parts).with_row_index("row").cast({"row": pl.Int64})
    return run.refresh(), truth


@pytest.fixture(scope="module")
def nasty(tmp_path_factory: pytest.TempPathFactory) -> tuple[lamina.Run, pl.DataFrame]:
    return planted(tmp_path_factory.mktemp("zones") / "run")


def literals(name: str) -> st.SearchStrategy[Any]:
    own = st.sampled_from([value for value in POOLS[name] if value is not None])
    if name == "i":
        return own | st.sampled_from([0.5, float(BIG), -1.5, math.nan, math.inf, 2**62])
    if name == "f":
        return own | st.sampled_from([0, 1, BIG + 1, 3])
    return own


@st.composite
def terms(draw: st.DrawFn) -> pl.Expr:
    name = draw(st.sampled_from(list(POOLS)))
    column, value = pl.col(name), draw(literals(name))
    compare = draw(st.sampled_from(["__lt__", "__le__", "__gt__", "__ge__", "__eq__", "__ne__"]))
    members = pl.Series(draw(st.lists(st.sampled_from(POOLS[name]), max_size=4)), dtype=TYPES[name]).implode()
    low, high = (pl.lit(draw(st.sampled_from(POOLS[name][1:]))) for _ in range(2))
    closed: Any = draw(st.sampled_from(["both", "left", "right", "none"]))
    shapes = [
        getattr(column, compare)(value),
        getattr(pl.lit(value), compare)(column),
        column.is_in(members, nulls_equal=draw(st.booleans())),
        column.is_null(),
        column.is_not_null(),
        column.eq_missing(value),
        column.ne_missing(value),
        pl.col("step") % 3 == draw(st.integers(0, 2)),
        pl.col("row") >= draw(st.integers(0, 250)),
    ]
    special = {
        "t": [column.is_between(low, high, closed=closed), column.dt.year() > 1970],
        "i": [column.is_between(low, high, closed=closed), -column < value],
        "f": [column.is_between(low, high, closed=closed), column.is_nan(), column.is_not_nan(), (1 / column) > 0],
        "s": [column.is_between(low, high, closed=closed), column.str.len_bytes() > 32, column.str.starts_with("a")],
        "b": [column, ~column, column | pl.col("i").is_null()],
    }
    return draw(st.sampled_from([*shapes, *special[name]]))


def both(inner: st.SearchStrategy[pl.Expr]) -> st.SearchStrategy[pl.Expr]:
    return st.builds(operator.and_, inner, inner) | st.builds(operator.or_, inner, inner)


predicates = st.recursive(terms(), both, max_leaves=4)


def rows_that_pass(run: lamina.Run, predicate: pl.Expr) -> list[int]:
    return run.activations("x").filter(predicate).select("row").collect()["row"].to_list()


@given(predicate=predicates)
@settings(max_examples=300, deadline=None, derandomize=True)
def test_with_zone_maps_the_rows_are_those_of_a_plain_filter(nasty: Any, predicate: pl.Expr) -> None:
    run, truth = nasty
    expected = truth.filter(predicate)["row"].to_list()
    assert rows_that_pass(run, predicate) == expected
    with broken("zone_maps_off"):
        assert rows_that_pass(run, predicate) == expected


@pytest.mark.parametrize(
    ("fault", "predicate"),
    [
        ("zones_forget_nulls", pl.col("i").is_null()),
        ("zones_forget_nan", pl.col("f") > 1e308),
        ("zones_cut_the_greatest", pl.col("s") > "a" * 32),
    ],
)
def test_zones_that_say_too_little_lose_rows(nasty: Any, fault: str, predicate: pl.Expr) -> None:
    _, truth = nasty
    with broken(fault):
        run = lamina.open(nasty[0].path)
        assert rows_that_pass(run, predicate) != truth.filter(predicate)["row"].to_list()


@pytest.fixture(scope="module")
def ordered(tmp_path_factory: pytest.TempPathFactory) -> lamina.Run:
    """Ten groups of ten rows; everything ascends from group to group."""
    run = lamina.Run.create(tmp_path_factory.mktemp("zones") / "run")
    with run.writer() as writer:
        for group in range(10):
            number = np.arange(10 * group, 10 * group + 10)
            writer.append(
                {"x": np.zeros((10, 2), np.float32)},
                step=group,
                i=number,
                f=number / 2,
                s=[f"{n:03}" for n in number],
                b=number >= 50,
                g=[None if group == 3 and n % 2 else math.nan if group == 4 else 1.0 * n for n in number],
            )
            writer.flush()
    return run.refresh()


@pytest.mark.parametrize(
    ("predicate", "kept"),
    [
        (pl.col("i") < 20, [0, 1]),
        (pl.col("i") <= 20, [0, 1, 2]),
        (pl.col("i").cast(pl.Float64) > 89.5, [9]),
        (pl.lit(89) <= pl.col("i"), [8, 9]),
        (pl.col("i") == 34, [3]),
        (pl.col("i") != 34, list(range(10))),
        (pl.col("i").is_in([1, 55, 1000]), [0, 5]),
        (pl.col("i").is_between(19, 21), [1, 2]),
        (pl.col("f").is_between(9.75, 10, closed="right"), [2]),
        ((pl.col("i") > 20) & (pl.col("f") < 20), [2, 3]),
        ((pl.col("i") < 5) | (pl.col("s") > "094"), [0, 9]),
        (pl.col("s") == "040", [4]),
        (pl.col("s").is_in(["000", "099"]), [0, 9]),
        (pl.col("b"), [5, 6, 7, 8, 9]),
        (~pl.col("b"), [0, 1, 2, 3, 4]),
        (pl.col("g").is_null(), [3]),
        (pl.col("g").is_nan(), [4]),
        (pl.col("g") > 90, [4, 9]),
        (pl.col("step") % 4 == 1, [1, 5, 9]),
        (pl.col("row").is_in([0, 99]), [0, 9]),
        (pl.col("i") > 1000, []),
        (pl.col("i") * 2 > 1000, list(range(10))),
    ],
)
def test_groups_are_passed_over(ordered: lamina.Run, predicate: pl.Expr, kept: list[int]) -> None:
    scanned, _ = ordered._wide.scan(["x"], None, None)
    seen: list[list[int]] = []
    inner = scanned._promising
    scanned._promising = lambda early: seen.append(inner(early).numbers.tolist()) or inner(early)  # type: ignore[method-assign]
    scanned.frame().filter(predicate).select("row").collect()
    assert seen == [kept]


def test_a_group_that_is_passed_over_is_not_read(ordered: lamina.Run) -> None:
    run = lamina.open(ordered.path)
    run.activations("x").filter(pl.col("i") == 34).select("row").collect()
    assert run._snapshot.bytes_read == (80, 0)


def test_what_was_decided_is_remembered_by_the_whole_term(ordered: lamina.Run) -> None:
    frame = lamina.open(ordered.path).activations("x")
    for _ in range(2):
        assert [frame.filter(pl.col("i") < end).select(pl.len()).collect().item() for end in (7, 25, 70)] == [7, 25, 70]
        assert frame.filter(pl.col("i").is_in(range(0, 100, 3))).select(pl.len()).collect().item() == 34


def test_a_frame_that_is_asked_for_again_is_the_same_one_until_the_run_grows(run: lamina.Run) -> None:
    with run.writer() as writer:
        writer.append({"x": np.ones((3, 2), np.float32), "y": np.ones((3, 2), np.float32)}, step=0)
    run.refresh()
    frame = run.activations("x")
    assert run.activations("x") is frame
    assert run.activations("y").collect().columns == ["row", "step", "y"]
    assert run.activations().collect().columns == ["row", "step", "x", "y"]
    assert run.activations("x", bits=True) is not frame
    with run.writer() as writer:
        writer.append({"x": np.ones((2, 2), np.float32)}, step=1)
    assert run.activations("x").collect().height == 3
    run.refresh()
    assert run.activations("x").collect().height == 5
    assert frame.collect().height == 3
    for number in range(40):  # more than are remembered
        assert run.activations("x" + "*" * (number % 2)).filter(pl.col("step") == number).collect().height in (0, 2, 3)


def test_a_function_may_say_something_else_when_it_is_asked_again(
    ordered: lamina.Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    frame = lamina.open(ordered.path).activations("x").select("row", "step")
    for wanted in (3, 5, 3):
        asked = pl.col("step").map_elements(lambda step: str(step) == os.environ["WANTED"], return_dtype=pl.Boolean)
        monkeypatch.setenv("WANTED", str(wanted))
        assert frame.filter(asked).collect()["step"].to_list() == [wanted] * 10


def test_what_cannot_be_evaluated_passes_over_nothing(ordered: lamina.Run) -> None:
    zones = ordered._wide._cells.zones
    assert may_pass(pl.col("i").str.len_bytes() > 3, zones) is None
    assert may_pass(pl.col("i") < pl.col("f"), zones) is None
    assert may_pass(pl.lit(False), zones) is None
