"""Points in time as metadata: to the microsecond, in UTC, whatever they were given as."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta, timezone
from typing import Any

import numpy as np
import polars as pl
import pytest

import lamina
from lamina.errors import SchemaError
from tests.store import reader

NOON = datetime(2026, 7, 1, 12, 0, 0, 123_456, tzinfo=UTC)
BEFORE = datetime(1931, 2, 3, 4, 5, 6, 7, tzinfo=UTC)
FAR = datetime(9999, 12, 31, 23, 59, 59, 999_999, tzinfo=UTC)
X = np.ones((3, 2), np.float32)


@pytest.mark.parametrize(
    "given",
    [
        [NOON, BEFORE, FAR],
        [NOON.astimezone(timezone(timedelta(hours=5, minutes=30))), BEFORE, FAR],
        np.array([NOON, BEFORE, FAR], dtype=object),
        np.array([t.replace(tzinfo=None) for t in (NOON, BEFORE, FAR)], "datetime64[us]"),
        [np.datetime64(t.replace(tzinfo=None)) for t in (NOON, BEFORE, FAR)],
        pl.Series([NOON, BEFORE, FAR]),
        pl.Series([NOON, BEFORE, FAR]).dt.convert_time_zone("Asia/Kathmandu"),
    ],
)
def test_every_way_to_give_a_time_gives_the_same(run: lamina.Run, given: Any) -> None:
    with run.writer() as writer:
        writer.append({"x": X}, step=0, seen=given)
    frame = run.refresh().activations("x").select("seen").collect()
    assert frame.schema["seen"] == pl.Datetime("us", "UTC")
    assert frame["seen"].to_list() == [NOON, BEFORE, FAR]
    (group,) = reader.read(run.path).groups
    epoch = datetime(1970, 1, 1, tzinfo=UTC)
    assert group.columns["seen"] == [(t - epoch) // timedelta(microseconds=1) for t in (NOON, BEFORE, FAR)]


def test_constants_nulls_and_coarse_or_fine_units(run: lamina.Run) -> None:
    with run.writer() as writer:
        writer.append({"x": X}, step=0, seen=NOON, day=np.array(["2026-07-01", "NaT", "1969-12-31"], "datetime64[D]"))
        writer.append({"x": X}, step=1, seen=[None, NOON, None], fine=np.datetime64(1_999, "ns"))
        writer.append({"x": X}, step=2)
        writer.examples({"example": [1, 2], "born": [NOON, None]})
    rows = run.refresh().activations("x").collect()
    assert rows["seen"].to_list() == [NOON] * 3 + [None, NOON, None] + [None] * 3
    days = [datetime(2026, 7, 1, tzinfo=UTC), None, datetime(1969, 12, 31, tzinfo=UTC)]
    assert rows["day"].to_list() == days + [None] * 6
    assert rows["fine"].to_list()[3:6] == [datetime(1970, 1, 1, 0, 0, 0, 1, tzinfo=UTC)] * 3, "cut to the microsecond"
    assert run.examples().collect()["born"].to_list() == [NOON, None]
    assert run.activations("x").filter(pl.col("seen") == NOON).collect().height == 4
    assert run.activations("x").filter(pl.col("seen") > NOON).collect().height == 0


@pytest.mark.parametrize(
    ("given", "says"),
    [
        (NOON.replace(tzinfo=None), "without a zone"),
        ([NOON, NOON.replace(tzinfo=None), NOON], "without a zone"),
        (pl.Series([NOON] * 3).dt.replace_time_zone(None), "without a zone"),
        (date(2026, 7, 1), "is a date"),
        ([NOON, 1, NOON], "mixes|holds a datetime"),
        (np.array(["300000-01-01"] * 3, "datetime64[Y]"), "beyond what microseconds"),
        ([1, 2, 3], 'column "seen" holds time, now given int'),
    ],
)
def test_what_is_no_time_is_refused(run: lamina.Run, given: Any, says: str) -> None:
    with run.writer() as writer:
        writer.append({"x": X}, step=0, seen=NOON)
        with pytest.raises(SchemaError, match=says):
            writer.append({"x": X}, step=1, seen=given)
