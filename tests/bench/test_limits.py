from __future__ import annotations

from pathlib import Path

import pytest
import torch

from bench import limits
from bench.machine import all_limits


def test_work_is_counted_and_the_precision_stays_as_it_was():
    gemm = limits.gemm("fp32", "cpu", 64)
    before = torch.get_float32_matmul_precision()
    assert gemm.run() > 0
    assert torch.get_float32_matmul_precision() == before
    assert (gemm.name, gemm.unit, gemm.work) == ("GEMM fp32", "FLOP", 2 * 64**3)
    assert limits.copy("cpu", 4096).work == 4096


def test_files_are_written_and_read_whole(tmp_path: Path):
    size = limits.PIECE + 12345
    assert limits.durable_write(tmp_path / "new", size).run() > 0
    assert not list((tmp_path / "new").iterdir())
    assert limits.read(tmp_path, cold=False, size=size).run() > 0
    assert limits.read(tmp_path, cold=True, size=size).run() > 0
    assert (tmp_path / "limit-read").stat().st_size == size


def test_a_speed_is_work_over_seconds():
    assert limits.Limit("reading", "B", 5e9, lambda: 0.0).speed(2.0) == "2.5 GB/s"


def test_a_machine_without_a_gpu_has_these_limits():
    names = [limit.name for limit in all_limits("cpu", quick=True)]
    assert names == ["memcpy", "read, cold", "read, warm", "write + fdatasync", "exp fp32", "GEMM fp32", "GEMM fp64"]


@pytest.mark.gpu
def test_a_gpu_multiplies_faster_in_bfloat16():
    single, half = (limits.gemm(kind, "cuda", 4096).run() for kind in ("fp32", "bf16"))
    assert half < single
