from __future__ import annotations

import pytest

from tests.meter import peak_bytes

MB = 10**6


def peak_beyond_rows(n: int, options: str) -> int:
    """Bytes that `hsic_sums` held at its peak beside its arguments and its result, in a process of its own."""
    setup = f"""
        import torch
        from lamina_kernels.gram import RBF, Linear, hsic_sums
        groups = torch.arange({n}) % 7
        hsic_sums(torch.ones(600, 8), torch.ones(600, 8), kernel_x=RBF(1.0))
        x = torch.rand({n}, 8)
    """
    without = peak_bytes(f"{setup}\n        torch.ones(3, {n}, dtype=torch.float64)")
    return peak_bytes(f"{setup}\n        hsic_sums(x, x, {options})") - without


@pytest.mark.parametrize("options", ["kernel_x=RBF(1.0)", "groups=groups"])
def test_the_blocked_form_needs_no_more_memory_for_more_rows(options):
    # Each matrix of 20,000 rows would take 1,600 MB; the result with groups takes 3.4.
    assert peak_beyond_rows(20_000, options) < 12 * MB


def test_the_same_meter_sees_the_matrices_of_the_reference():
    assert peak_beyond_rows(3_000, "kernel_x=RBF(1.0), impl='reference'") > 2 * 8 * 3_000**2
