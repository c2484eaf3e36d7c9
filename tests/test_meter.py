from __future__ import annotations

import pytest

from tests.meter import peak_bytes

TENSOR_BYTES = 400 * 10**6


def test_the_meter_sees_a_tensor_of_400_mb_and_its_baseline_does_not():
    baseline = peak_bytes("import torch")
    with_tensor = peak_bytes(f"""
        import torch
        torch.ones({TENSOR_BYTES}, dtype=torch.uint8)
    """)
    assert with_tensor - baseline == pytest.approx(TENSOR_BYTES, rel=0.05)


def test_the_meter_does_not_inherit_the_peak_of_its_parent():
    before = peak_bytes("pass")
    ballast = bytearray(b"x") * (300 * 10**6)
    assert abs(peak_bytes("pass") - before) < len(ballast) / 30


def test_a_snippet_that_fails_is_an_error_and_not_a_figure():
    with pytest.raises(RuntimeError, match="no such thing"):
        peak_bytes("raise ValueError('no such thing')")
    with pytest.raises(RuntimeError, match="exited with 3"):
        peak_bytes("import os; os._exit(3)")
