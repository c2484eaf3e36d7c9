"""The Triton kernels of attention's second pass, in Triton's interpreter."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from tests.kernels import attention_mass as checks
from tests.kernels.forms import Form


def small_tiles(*arguments):
    from lamina_kernels.attention.tiling import Tiling

    return Tiling(64, 64, 4, 1)


TRITON = Form(checks.mass, "triton", {"lamina_kernels.attention.tiling.received": small_tiles}, "interpreter")


@pytest.mark.parametrize("case", checks.CASES, ids=lambda case: " ".join(map(str, case.values())))
def test_agrees_with_the_reference(case):
    TRITON.run(checks.agrees_with_the_reference, case)


@pytest.mark.parametrize("check", checks.CHECKS, ids=lambda check: check.__name__)
def test(check):
    TRITON.run(check)


PLAIN: dict[str, Any] = {
    "width": 16, "queries": 129, "keys": 150, "window": "all", "places": "plain", "score": "plain", "group": 2,
    "sigmoid": False, "dtype": torch.float32, "wanted": "all",
}  # fmt: skip


@pytest.mark.parametrize(
    ("fault", "changes"),
    [
        ("attention_mass_skips_a_program", {}),
        ("attention_mass_forgets_the_share", {}),
        ("attention_mass_drops_the_mask", {"score": "terms", "window": "causal", "places": "blocks", "width": 80}),
    ],
)
def test_a_fault_is_noticed(fault, changes):
    with pytest.raises(AssertionError):
        TRITON.run(checks.agrees_with_the_reference, {**PLAIN, **changes}, fault=fault)


def test_addresses_of_32_bits_are_noticed():
    # A wild address reads anything, or ends the process.
    with pytest.raises((AssertionError, RuntimeError)):
        TRITON.run(checks.addresses_take_64_bits, fault="hsic_kernel_counts_in_32_bits")
