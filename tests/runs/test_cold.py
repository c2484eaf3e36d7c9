"""The cold form: rows that are coded on disk come back bit for bit, by every way to read them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch

import lamina
from lamina.errors import DamagedError, NotFoundError
from lamina.runs import Run
from tests.store import reader

DTYPES = [torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.float8_e4m3fn, torch.float8_e5m2]


def planted(dtype: torch.dtype, rows: int, seed: int) -> torch.Tensor:
    """Small normal numbers, as activations are, with NaN, infinities and signed zeros among them."""
    values = 0.1 * torch.randn(rows, 96, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    values[::7, 3] = float("nan")
    values[::11, 5] = -0.0
    if dtype not in (torch.float8_e4m3fn,):
        values[::13, 8] = -float("inf")
    return values.to(dtype)


def same(found: torch.Tensor, expected: torch.Tensor) -> bool:
    return torch.equal(found.contiguous().view(torch.uint8), expected.contiguous().view(torch.uint8))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_cold_rows_come_back_bit_for_bit(tmp_path: Path, dtype: torch.dtype) -> None:
    run = Run.create(tmp_path / "run")
    parts = [planted(dtype, 3000, seed) for seed in range(3)]
    with run.writer() as writer:
        for step, part in enumerate(parts):
            writer.append({"a.output": part, "b.output": part[:, :2]}, step=step).wait()
    whole = torch.cat(parts)
    run.refresh().compact(cold="a.*")
    (group,) = reader.read(run.path).groups[-1:]
    assert [6 in block for block in group.record[7] if block[0] == 0].count(True) == 1, "one of two sites is coded"
    ways = [run, lamina.open(run.path, io="pread")]
    ways += [lamina.open(run.path, verify="always"), lamina.open(run.path, verify="never")]
    for way in ways:
        rows = way.rows("a.output")
        assert same(rows.gather(range(len(rows))), whole)
        some = torch.randperm(len(rows), generator=torch.Generator().manual_seed(1))[:500]
        assert same(rows.gather(some), whole[some])
        assert same(torch.cat(list(rows.blocks(1000))), whole)
    assert same(run.rows("b.output").gather(range(9000)), whole[:, :2])
    frame = run.activations("a.output", bits=True).filter(pl.col("step") == 1).collect()
    assert frame.height == 3000
    assert run.verify().ok
    assert run.sites().filter(site="a.output")["non_finite"].item() == int((~whole.double().isfinite()).sum())
    assert group.sites["a.output"].tobytes() == whole.view(torch.uint8).numpy().tobytes(), "by the document"


def test_what_is_cold_stays_cold_and_takes_less_space(tmp_path: Path) -> None:
    run = Run.create(tmp_path / "run")
    with run.writer() as writer:
        for step in range(3):
            writer.append({"a.output": planted(torch.bfloat16, 4000, step)}, step=step).wait()
    done = run.refresh().compact(cold="a.output")
    assert 1.35 < done.bytes_before / done.bytes_after < 1.65
    assert run.compact(cold="a.output").groups_before == 0, "nothing is done twice"
    run.delete(steps=1)
    again = run.compact()
    assert (again.rows_dropped, again.groups_after) == (4000, 1)
    assert again.bytes_before / again.bytes_after == pytest.approx(1.5, abs=0.1)
    expected = torch.cat([planted(torch.bfloat16, 4000, step) for step in (0, 2)])
    assert same(run.rows("a.output").gather(range(8000)), expected)


def test_a_flipped_byte_of_a_coded_piece_is_found(tmp_path: Path) -> None:
    run = Run.create(tmp_path / "run")
    with run.writer() as writer:
        writer.append({"a.output": planted(torch.bfloat16, 4000, 0)}, step=0).wait()
    run.refresh().compact(cold="a.output")
    block = next(block for block in reader.read(run.path).groups[-1].record[7] if block[0] == 0)
    path = run.path / reader.read(run.path).groups[-1].record[0]
    data = bytearray(path.read_bytes())
    pieces = np.frombuffer(block[6], "<u4")
    data[block[2] + int(pieces[:2].sum()) + 50] ^= 4
    path.write_bytes(data)
    rows = lamina.open(run.path).rows("a.output")
    first = (1 << 17) // 192
    assert same(rows.gather(range(first)), planted(torch.bfloat16, 4000, 0)[:first]), "other pieces are readable"
    with pytest.raises(DamagedError, match="checksum"):
        rows.gather(range(len(rows)))
    (problem,) = run.verify(progress=False).problems.rows(named=True)
    assert (problem["offset"], "a.output" in problem["affected"]) == (block[2] + int(pieces[:2].sum()), True)


def test_an_unknown_site_is_named(tmp_path: Path) -> None:
    run = Run.create(tmp_path / "run")
    with run.writer() as writer:
        writer.append({"a.output": np.ones((2, 2), np.float32)}, step=0)
    with pytest.raises(NotFoundError, match=r"c\.output"):
        run.refresh().compact(cold="c.output")
