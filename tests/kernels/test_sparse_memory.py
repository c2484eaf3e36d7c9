"""What `encode` holds beside its arguments and its codes, as the operating system counts it."""

from __future__ import annotations

from functools import cache

import pytest

from tests.meter import peak_bytes

MB = 10**6


SETUP = """
    import torch
    from lamina_kernels.sparse import BatchTopK, TopK, encode
    encode(torch.rand(300, 8), torch.rand(5000, 8), torch.rand(5000))
"""


@cache
def without() -> int:
    return peak_bytes(SETUP)


def encoding(n: int, m: int, d: int, selections: tuple[str, ...]) -> tuple[int, int]:
    """Return the bytes that a process of its own needed for rows, weight, codes and all, and those of these alone."""
    calls = "".join(f"\n    encode(x, weight, bias, select={select})" for select in selections)
    peak = peak_bytes(
        f"{SETUP}\n    x, weight, bias = torch.rand({n}, {d}), torch.rand({m}, {d}), torch.rand({m}){calls}"
    )
    return peak - without(), 4 * (n * d + m * d + m) + 8 * 32 * n


def test_the_meter_sees_a_tensor() -> None:
    # It takes the place of what the first call held.
    assert 370 * MB < peak_bytes(f"{SETUP}\n    torch.ones(10**8)") - without() < 430 * MB


def test_no_matrix_of_pre_activations_is_held() -> None:
    # It would take 134 MB; what is there is a tile, and twice the codes that are kept.
    peak, own = encoding(1024, 32_768, 16, ("TopK(32)", "BatchTopK(32)"))
    assert peak < own + 32 * MB


@pytest.mark.slow
def test_a_large_encoder_stays_near_its_weight() -> None:
    # The matrix would take 4,300 MB.
    peak, own = encoding(8192, 131_072, 512, ("TopK(32)",))
    assert peak < 1.2 * own
