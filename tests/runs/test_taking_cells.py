"""Where a mask is true, and the cells there: whatever chunks, nulls and offsets Polars has them in."""

from __future__ import annotations

from typing import Any

import numpy as np
import polars as pl
import pytest

import lamina
from lamina import _core
from lamina.errors import SchemaError
from lamina.runs.scan.cells import taken

GENERATOR = np.random.default_rng(0)


def drawn(rows: int, share: float) -> list[bool | None]:
    return [None if x < 0.1 else bool(x < 0.1 + share) for x in GENERATOR.random(rows)]


MASKS = [
    pl.Series([], dtype=pl.Boolean),
    pl.Series([None, None], dtype=pl.Boolean),
    *(pl.Series(drawn(rows, share), dtype=pl.Boolean) for rows in (1, 63, 64, 65, 5000) for share in (0.01, 0.5, 0.9)),
    pl.Series([True] * 130),
    pl.Series([False] * 130),
    pl.Series(drawn(5000, 0.3), dtype=pl.Boolean)[3:4001],
    pl.concat([pl.Series(drawn(rows, 0.4), dtype=pl.Boolean) for rows in (7, 0, 100, 64)], rechunk=False)[5:160],
]


@pytest.mark.parametrize("mask", MASKS, ids=len)
def test_a_mask_is_true_where_its_values_are(mask: pl.Series) -> None:
    found = np.frombuffer(_core.where_true(mask), np.int64)
    assert found.tolist() == [at for at, value in enumerate(mask.to_list()) if value]


def test_what_is_no_mask_is_refused() -> None:
    with pytest.raises(SchemaError, match="a mask of Int64"):
        _core.where_true(pl.Series([1, 0]))


CELLS: dict[str, pl.Series] = {
    "integers": pl.Series("c", GENERATOR.integers(-(2**62), 2**62, 50)),
    "floats": pl.Series("c", GENERATOR.integers(-(2**62), 2**62, 50).view(np.float64)),
    "signed zeros": pl.Series("c", [0.0, -0.0, float("nan"), float("inf")] * 10),
    "nulls": pl.Series("c", [None, 1, 2, None, 2**60] * 10),
    "chunks": pl.concat([pl.Series("c", [1.5, 2.5] * 10), pl.Series("c", [3.5] * 20)], rechunk=False),
    "a part": pl.Series("c", list(range(100)))[30:80],
    "texts": pl.Series("c", ["é", "", None, "a" * 40] * 10),
    "booleans": pl.Series("c", [True, None, False] * 20),
    "times": pl.Series("c", list(range(40)), dtype=pl.Datetime("us", "UTC")),
}


@pytest.mark.parametrize("name", CELLS)
@pytest.mark.parametrize("at", [[], [0], [3, 3, 0, 39], list(range(40))])
def test_cells_are_taken_as_polars_takes_them(name: str, at: Any) -> None:
    series = CELLS[name]
    found = taken(series, np.array(at, dtype=np.int64))
    expected = series.gather(at)
    assert (found.name, found.dtype, found.to_list().__repr__()) == ("c", expected.dtype, repr(expected.to_list()))
    if series.dtype == pl.Float64:
        assert found.to_numpy().tobytes() == expected.to_numpy().tobytes(), "NaN with its payload"


@pytest.mark.parametrize("order", ["one group behind another", "any"])
def test_cells_of_few_rows_are_those_of_their_groups(run: lamina.Run, order: str) -> None:
    with run.writer() as writer:
        for step in range(5):
            count = GENERATOR.integers(1, 30)
            known = [None if x < 0.1 * step else int(9 * x) for x in GENERATOR.random(count)]
            columns = {"example": GENERATOR.integers(0, 9, count), "known": known, "text": [f"{x}" for x in known]}
            writer.append({"x": np.ones(count)}, step=step, **columns).wait()
    cells, names = run.refresh()._wide._cells, ["text", "step", "known", "example"]
    whole = [cells.columns((group,), names) for group in range(5)]
    groups = GENERATOR.integers(0, 5, 40)
    groups = groups if order == "any" else np.sort(groups)[::-1]
    positions = np.array([GENERATOR.integers(0, len(whole[group][0])) for group in groups])
    for at in (slice(None), slice(1), slice(7, 9)):
        for series, column in zip(cells.at(groups[at], positions[at], names), range(4), strict=True):
            places = zip(groups[at], positions[at], strict=True)
            assert series.name == names[column]
            assert series.to_list() == [whole[group][column][int(position)] for group, position in places]
