"""How stored rows are read: mapped or not, checked or not, into memory that comes back."""

from __future__ import annotations

import gc
import pickle
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch

import lamina
from lamina.errors import DamagedError, SchemaError
from lamina.rows import pool
from tests.faults import broken
from tests.meter import peak_bytes


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """4,096 rows of 2 KiB that hold their number."""
    run = lamina.Run.create(tmp_path / "run")
    with run.writer() as writer:
        for start in range(0, 4096, 1024):
            x = np.repeat(np.arange(start, start + 1024, dtype=np.float32)[:, None], 512, axis=1)
            writer.append({"x": x}, step=start, example=np.arange(start, start + 1024))
            writer.flush()
    return run.path


@pytest.mark.parametrize("io", ["auto", "mmap", "pread"])
@pytest.mark.parametrize("verify", ["first", "always", "never"])
def test_options_travel_with_the_rows(path: Path, io: str, verify: str) -> None:
    run = lamina.open(path, io=io, verify=verify)  # type: ignore[arg-type]
    rows = pickle.loads(pickle.dumps(pickle.loads(pickle.dumps(run)).rows("x")))
    assert rows.gather([5, 4000, 4])[:, 0].tolist() == [5, 4000, 4]
    damage(path)
    if verify == "never":
        assert rows.gather([2000]).shape == (1, 512)
    else:
        with pytest.raises(DamagedError, match="checksum"):
            rows.gather([2000])


def damage(path: Path) -> None:
    """Flips a bit in each MiB of the segments, behind their headers."""
    for segment in (path / "segments").iterdir():
        data = bytearray(segment.read_bytes())
        for at in range((1 << 20) + 5000, len(data) - (1 << 14), 1 << 16):
            data[at] ^= 1
        segment.write_bytes(data)


def test_unknown_options_are_refused(path: Path) -> None:
    for options in ({"io": "fast"}, {"verify": "sometimes"}):
        with pytest.raises(SchemaError, match="it is"):
            lamina.open(path, **options)  # type: ignore[arg-type]


@pytest.mark.parametrize("threads", [1, 2, 5])
def test_threads_make_no_difference(path: Path, threads: int) -> None:
    rows = lamina.open(path).rows("x")
    wanted = np.random.default_rng(0).integers(0, 4096, 3000)
    assert rows.gather(wanted, threads=threads)[:, 0].tolist() == wanted.tolist()
    assert rows.gather(slice(3, 4090), threads=threads)[:, 0].tolist() == list(range(3, 4090))
    with pytest.raises(SchemaError, match="threads"):
        rows.gather([0], threads=0)


def test_some_of_the_rows_are_rows(path: Path) -> None:
    rows = lamina.open(path).rows("x", where=pl.col("example") % 2 == 1)
    some = rows[10:500]
    assert (some.shape, some.ids[0]) == ((490, 512), 21)
    assert some.gather([0, 489])[:, 0].tolist() == [21, 999]
    mask = np.zeros(490, dtype=bool)
    mask[[3, 7, 400]] = True
    few = pickle.loads(pickle.dumps(some[mask]))
    assert few.gather(slice(None))[:, 0].tolist() == [27, 35, 821]
    assert few.metadata(["example", "step"]).rows() == [(27, 0), (35, 0), (821, 0)]
    assert few[[2, 0, 2]].metadata(["example"])["example"].to_list() == [821, 27, 821]
    assert few[::-1].gather([0, 1, 2])[:, 0].tolist() == [821, 35, 27]
    assert len(few[5:]) == 0
    memory = lamina.Rows.of(torch.arange(5.0))
    assert memory[torch.tensor([True, False, False, False, True])].gather([1, 0]).tolist() == [[4], [0]]
    for wrong in (np.zeros(3, dtype=bool), 1, [0.5]):
        with pytest.raises(SchemaError):
            few[wrong if not isinstance(wrong, np.ndarray) else wrong[:2]]
    with pytest.raises(IndexError):
        few[[3]]


@pytest.mark.parametrize("wrong", [-1, 4096, 2**62, -(2**63)])
def test_a_position_that_is_not_there_is_refused_by_its_number(path: Path, wrong: int) -> None:
    rows, out = lamina.open(path).rows("x"), torch.zeros(3, 512)
    for given in (np.array([0, wrong, 1]), [0, wrong, 1], torch.tensor([0, wrong, 1])):
        with pytest.raises(IndexError, match=f"index {wrong} is outside of 0 to 4095"):
            rows.gather(given, out=out)
    assert not out.any()
    with pytest.raises(IndexError, match=f"{wrong} is outside of 0 to 4095"):
        rows[np.array([wrong])]
    with pytest.raises(IndexError):
        rows.to(dtype=torch.float64).gather(np.array([wrong]))


def test_positions_and_results_may_lie_in_any_way(path: Path) -> None:
    rows = lamina.open(path).rows("x")
    at = np.arange(300, dtype=np.int64)[::-3]
    frozen = at.copy()
    frozen.flags.writeable = False
    expected = rows.gather(at.tolist())
    for given in (at, frozen, at.astype(">i8"), at.astype(np.int32), at.astype(np.uint64)):
        assert torch.equal(rows.gather(given), expected)
        for out in (torch.zeros(512, 100).T, torch.zeros(100, 512, requires_grad=True), torch.zeros(200, 512)[::2]):
            filled = rows.gather(given, out=out)
            assert filled is out
            assert torch.equal(filled, expected)


def test_a_condition_that_compares_rows_sees_all_of_them(path: Path) -> None:
    run = lamina.open(path)
    assert run.rows("x", where=pl.col("example") > pl.col("example").mean()).shape[0] == 2048
    assert run.rows("x", where=pl.col("example").rank() <= 3).ids.tolist() == [0, 1, 2]


def test_names_are_made_when_they_are_asked_for(path: Path) -> None:
    rows = lamina.open(path).rows("x")
    assert "ids" not in vars(rows)
    assert rows.ids.tolist() == list(range(4096))


def check_pool(path: Path) -> None:
    rows = lamina.open(path).rows("x")
    pool._free.clear()
    first = rows.gather(range(1024))
    address = first.data_ptr()
    view = first[5:6].numpy()
    kept = first.clone()
    del first
    second = rows.gather(range(1024, 2048))
    assert second.data_ptr() != address
    assert view[0, 0] == kept[5, 0]
    storage = second.untyped_storage()
    del view, second
    gc.collect()
    third = rows.gather(range(1024))
    assert third.data_ptr() == address, "nobody sees it any more"
    fourth = rows.gather(range(1024))
    assert fourth.data_ptr() not in (address, storage.data_ptr())


def test_memory_is_used_again_when_nobody_sees_it(path: Path) -> None:
    check_pool(path)


def test_memory_that_is_seen_would_be_noticed(path: Path) -> None:
    with broken("pool_lends_what_is_seen"), pytest.raises(AssertionError):
        check_pool(path)


READ = """
import lamina, torch
run = lamina.open({path!r}, io="pread")
rows = run.rows("x")
out = torch.empty(512, 256)
for order in ("exact", "block"):
    batches = rows.batches(512, seed=0, order=order, window_bytes=8 << 20)
    total = sum(float(batch[:, 0].sum()) for batch in batches)
    assert total == len(rows), (order, total)
"""


def test_memory_of_an_epoch_does_not_grow_with_the_rows(tmp_path: Path) -> None:
    peaks = []
    for count in (10_000, 100_000):
        run = lamina.Run.create(tmp_path / str(count))
        with run.writer() as writer:
            for start in range(0, count, 10_000):
                writer.append({"x": np.ones((10_000, 256), np.float32)}, step=start)
        peaks.append(peak_bytes(READ.format(path=str(run.path))))
    assert (peaks[1] - peaks[0]) / 90_000 < 100, "bytes a row; a row has 1,024"
