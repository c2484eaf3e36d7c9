"""More than 2^33 rows in a file with holes: no number of rows and no offset is cut to 32 bits."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

import lamina
from tests.store import forge

GROUP = 1 << 20
GROUPS = (1 << 13) + 1
ROWS = GROUP * GROUPS
PLANTED = [0, 2**31 - 1, 2**31, 2**32 - 1, 2**32, 2**32 + 12_345, 2**33 - 1, 2**33, ROWS - 1]
"""Rows whose value is their place in this list, counted from 1; all others are zero."""
OPEN, CLOSE, SITE, COLUMN, ROWS_OF = 1, 2, 3, 4, 5
FILE = "segments/000000-000000.safetensors"


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of one writer; its segment of 8 GiB holds a few pages. Step k holds the groups 1024 k to 1024 k + 1023."""
    path = tmp_path_factory.mktemp("huge") / "run"
    lamina.Run.create(path)
    planted = {row: number for number, row in enumerate(PLANTED, start=1)}
    empty = forge.crcs(bytes(GROUP))
    with (path / FILE).open("wb") as segment:
        segment.truncate(GROUP + ROWS)
        for row, value in planted.items():
            segment.seek(GROUP + row)
            segment.write(bytes([value]))
    groups = []
    for number in range(GROUPS):
        crcs, first = empty, number * GROUP
        if any(first <= row < first + GROUP for row in planted):
            data = bytearray(GROUP)
            for row in planted:
                if first <= row < first + GROUP:
                    data[row - first] = planted[row]
            crcs = forge.crcs(bytes(data))
        block = {0: 0, 1: 0, 2: GROUP + first, 3: GROUP, 4: crcs, 5: 0}
        record = {0: FILE, 1: number, 2: 0, 3: GROUP + first, 4: GROUP, 5: first, 6: GROUP, 7: [block]}
        groups.append([ROWS_OF, record | {8: [{0: 0, 1: number // 1024}], 9: []}])
    opened = [OPEN, {0: "elsewhere", 1: 1, 3: 0, 4: "0" * 32}]
    declared = [[SITE, {0: 0, 1: "x", 2: "u8", 3: []}], [COLUMN, {0: 0, 1: "step", 2: "int", 3: 0}]]
    bodies = [[opened], [*declared, *groups], [[CLOSE, {1: 0}]]]
    (path / "logs/000000.0000").write_bytes(forge.log([forge.encode(body) for body in bodies]))
    if (path / FILE).stat().st_blocks * 512 > 1 << 24:
        pytest.skip("this file system knows no holes")
    return path


@pytest.mark.parametrize("access", [{"io": "mmap"}, {"io": "pread"}, {"verify": "never"}])
def test_rows_beyond_2_to_32_are_gathered_each_from_its_place(path: Path, access: dict[str, Any]) -> None:
    rows = lamina.open(path, strict=True, **access).rows("x")
    assert len(rows) == ROWS > 2**33
    wanted = [*PLANTED, *(row - 1 for row in PLANTED[1:]), *(row % (1 << 32) + 7 for row in PLANTED)]
    planted = {row: number for number, row in enumerate(PLANTED, start=1)}
    order = np.random.default_rng(0).permutation(len(wanted))
    shuffled = np.array(wanted, dtype=np.int64)[order]
    expected = [planted.get(row, 0) for row in shuffled.tolist()]
    for threads in (1, 2):
        assert rows.gather(shuffled, threads=threads).ravel().tolist() == expected
    for first, values in ((2**32 - 1, [4, 5, 0]), (2**33 - 2, [0, 7, 8, 0])):
        span = rows[first : first + len(values)]
        assert span.gather(range(len(span))).ravel().tolist() == values
        assert span.ids.tolist() == list(range(first, first + len(values)))
    for beyond in (ROWS, ROWS + 2**32, 2**63 - 1):
        with pytest.raises((lamina.LaminaError, IndexError)):
            rows.gather([beyond])


# an exact order reads a page of the 8 GiB for each of four million rows at a time
@pytest.mark.parametrize("order", [pytest.param("exact", marks=pytest.mark.slow), "block"])
def test_an_epoch_goes_on_where_it_was_beyond_2_to_32(path: Path, order: Any) -> None:
    rows = lamina.open(path).rows("x")
    size = 1 << 12
    batches = rows.batches(size, seed=3, order=order)
    assert len(batches) == -(-ROWS // size)
    first = next(iter(batches))
    assert first.shape == (size, 1)
    place = (1 << 32) + size
    resumed = rows.batches(size, seed=3, order=order)
    resumed.load_state_dict(batches.state_dict() | {"position": place})
    assert next(iter(resumed)).shape == (size, 1)
    assert resumed.state_dict()["position"] == place + size


def test_a_query_finds_rows_beyond_2_to_32(path: Path) -> None:
    run = lamina.open(path)
    (count,) = run.sites().filter(pl.col("site") == "x")["rows"].to_list()
    assert count == ROWS
    # the last step has one group; zones pass over the others
    found = run.activations("x", step=8).filter(pl.col("x") > 0).select("row", "x").collect()
    assert found.rows() == [(2**33, 8), (ROWS - 1, 9)]
    chosen = run.rows("x", where=(pl.col("step") == 8) & (pl.col("row") >= 2**33 + 5))
    assert len(chosen) == GROUP - 5
    assert int(chosen.gather([len(chosen) - 1])[0]) == len(PLANTED)
