"""The forms of `attend` that the checks run against."""

from __future__ import annotations

from typing import Any

from lamina_kernels.attention import attend
from lamina_kernels.attention.tiling import Tiling
from tests.kernels.forms import Form


def tiny(*arguments: Any) -> Tiling:
    """Tiles of few rows and columns, so that small problems have several of both."""
    return Tiling(32, 32, 4, 1)


_VISITS = "lamina_kernels.attention.blocked_visits"
_SMALL = {f"{_VISITS}.QUERIES": 32, f"{_VISITS}.KEYS": 24, f"{_VISITS}.SCORES": 3000}
_TILING = "lamina_kernels.attention.tiling"
TINY = {f"{_TILING}.{name}": tiny for name in ("forward", "top", "of_queries", "of_keys", "received")}

FORMS = {
    "reference": Form(attend, "reference"),
    "blocked": Form(attend, "blocked"),
    # Many tiles, few of them whole.
    "tiles": Form(attend, "blocked", {**_SMALL, "lamina_kernels.attention.blocked_top.GROUP": 4}),
    "triton": Form(attend, "triton", TINY, "interpreter"),
}
