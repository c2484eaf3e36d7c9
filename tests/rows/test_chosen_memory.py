"""What an epoch of rows that a condition chose holds: a bit for each row that it was chosen from."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import polars as pl
import pytest

import lamina
from tests.meter import peak_bytes

GROUP = 1 << 20
GROUPS = 32
CHOSEN = pl.col("row") * 2654435761 % 7 < 3

EPOCH = """
import ctypes, pickle
from pathlib import Path
import numpy as np, torch
from lamina.rows import batches as gathering
gathering.STRETCH_BYTES = 1 << 16  # what is gathered ahead, and when, is nothing beside an order
rows = pickle.loads(Path({path!r}).read_bytes())
ctypes.CDLL(None).malloc_trim(0)
Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew, without what was unpickled
batches = rows.batches(4096, seed=0, order="exact")
epoch = iter(batches)
assert [len(next(epoch)) for _ in range(100)] == [4096] * 100
state = batches.state_dict()
{more}
"""


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """32 groups of 2^20 rows of a byte, a step each; and pickles of rows that were chosen from all, and from half."""
    path = tmp_path_factory.mktemp("chosen")
    run = lamina.Run.create(path / "run")
    byte = np.arange(GROUP, dtype=np.uint8)
    with run.writer() as writer:
        for step in range(GROUPS):
            writer.append({"x": byte}, step=step)
    run = lamina.open(run.path, io="pread")
    for steps in (GROUPS, GROUPS // 2):
        rows = run.rows("x", where=CHOSEN & (pl.col("step") < steps))
        assert abs(len(rows) / (steps * GROUP) - 3 / 7) < 0.001
        (path / f"{steps}.pickle").write_bytes(pickle.dumps(rows))
    return path


def peak(path: Path, steps: int, more: str = "") -> int:
    return peak_bytes(EPOCH.format(path=str(path / f"{steps}.pickle"), more=more))


@pytest.fixture(scope="module")
def half(path: Path) -> int:
    """The peak with half of the rows, where everything else costs the same."""
    return peak(path, GROUPS // 2)


def bits_a_row(more_bytes: int) -> float:
    return 8 * more_bytes / (GROUPS // 2 * GROUP)


@pytest.mark.timeout(240)
def test_an_order_over_chosen_rows_costs_a_bit_a_row(path: Path, half: int) -> None:
    assert bits_a_row(peak(path, GROUPS) - half) < 1.7


@pytest.mark.timeout(240)
def test_that_test_notices_a_list_of_the_chosen_rows(path: Path, half: int) -> None:
    # four bytes for each chosen row are 14 bits a row
    held = "held = np.ones(len(rows), np.uint32)"
    assert bits_a_row(peak(path, GROUPS, held) - half) > 10


def test_they_are_the_rows_that_were_chosen(path: Path) -> None:
    names = np.arange(3 * GROUP)
    expected = names[names * 2654435761 % 7 < 3]
    rows = lamina.open(path / "run").rows("x", where=CHOSEN & (pl.col("step") < 3))
    np.testing.assert_array_equal(rows.ids, expected)
    some = np.random.default_rng(0).integers(0, len(rows), 5000)
    np.testing.assert_array_equal(rows.gather(some).numpy()[:, 0], expected[some].astype(np.uint8))
