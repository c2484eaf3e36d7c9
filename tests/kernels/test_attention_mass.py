"""The Triton kernels of attention's second pass, in Triton's interpreter."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from tests.kernels import attention_mass as checks
from tests.kernels.forms import Form


def _mass(*arguments, impl):
    assert impl == "triton"
    from lamina_kernels.attention.mass_launch import mass

    return mass(*arguments)


def small_tiles(*arguments):
    from lamina_kernels.attention.tiling import Tiling

    return Tiling(32, 64, 4, 1)


TRITON = Form(_mass, "triton", {"lamina_kernels.attention.tiling.received": small_tiles}, "interpreter")

PLAIN: dict[str, Any] = {
    "width": 16, "queries": 129, "keys": 150, "value_width": 16, "window": "all", "places": "plain", "score": "plain",
    "group": 2, "sigmoid": False, "dtype": torch.float32,
}  # fmt: skip
CASES = [
    {},
    {"score": "capped", "window": "both", "dtype": torch.float16},
    {"score": "terms", "window": "causal", "places": "blocks", "width": 80},
    {"score": "slopes", "window": "left", "places": "packed"},
    {"score": "factors", "window": "top-left", "sigmoid": True},
    {"queries": 1, "keys": 1},
]


@pytest.mark.parametrize("changes", CASES, ids=str)
def test_agrees_with_the_reference(changes):
    TRITON.run(checks.agrees_with_the_reference, {**PLAIN, **changes})


@pytest.mark.parametrize(
    ("fault", "changes"),
    [
        ("attention_mass_skips_a_program", {}),
        ("attention_mass_forgets_the_share", {}),
        ("attention_mass_drops_the_mask", CASES[2]),
    ],
)
def test_a_fault_is_noticed(fault, changes):
    with pytest.raises(AssertionError):
        TRITON.run(checks.agrees_with_the_reference, {**PLAIN, **changes}, fault=fault)
