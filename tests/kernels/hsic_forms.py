"""The forms of `hsic_sums` that the checks run against."""

from __future__ import annotations

from lamina_kernels.gram import hsic_sums
from tests.kernels.forms import Form, never

_HSIC = "lamina_kernels.gram.paired"

FORMS = {
    "reference": Form(hsic_sums, "reference"),
    "blocked": Form(hsic_sums, "blocked"),
    # Many tiles of few rows, and no shortcut for linear kernels.
    "tiles": Form(hsic_sums, "blocked", {f"{_HSIC}.blocked.BLOCK": 32, f"{_HSIC}.moments.cheaper": never}),
    # Each program sums one tile, or all of them.
    "triton": Form(hsic_sums, "triton", {}, "interpreter"),
    "loop": Form(hsic_sums, "triton", {f"{_HSIC}.launch.PROGRAMS": 1}, "interpreter"),
}
