from __future__ import annotations

from tests.meter import peak_bytes

MB = 10**6


def peak_beyond_arguments_and_result(n: int, call: str) -> int:
    """Bytes that the op held at its peak beside its arguments and its result, in a process of its own."""
    setup = f"""
        import torch
        from lamina_kernels.gram import Linear, product
        product(torch.ones(2, 8), None, torch.ones(2, 4), kernel=Linear())
        x, v = torch.ones({n}, 8), torch.ones({n}, 4)
    """
    return peak_bytes(f"{setup}\n        {call}") - peak_bytes(f"{setup}\n        torch.ones({n}, 4)")


def test_the_blocked_form_needs_no_more_memory_for_more_rows():
    # The matrix of 400,000 rows would take 640 GB.
    assert peak_beyond_arguments_and_result(400_000, "product(x, None, v, kernel=Linear())") < 8 * MB


def test_the_same_meter_sees_the_matrix_of_the_reference():
    seen = peak_beyond_arguments_and_result(8_000, "product(x, None, v, kernel=Linear(), impl='reference')")
    assert seen > 0.9 * 4 * 8_000**2
