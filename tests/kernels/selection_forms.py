"""The forms of `nearest` and `argmin` that the checks run against."""

from __future__ import annotations

from functools import partial

from lamina_kernels.gram import argmin, nearest
from tests.kernels.forms import Form, always

_SELECTION = "lamina_kernels.gram.selection"
# Many tiles of few rows; short lists that fill up often.
TILES = {
    f"{_SELECTION}.blocked.ROWS": 48,
    f"{_SELECTION}.blocked.COLUMNS": 40,
    f"{_SELECTION}.blocked.TOGETHER": 2,
    f"{_SELECTION}.shortlist.ROOM": 5,
}

FORMS = {
    "reference": Form(nearest, "reference"),
    "blocked": Form(nearest, "blocked"),
    "tiles": Form(nearest, "blocked", TILES),
    # Each program takes a tile of columns, or all of them.
    "triton": Form(nearest, "triton", {}, "interpreter"),
    "loop": Form(nearest, "triton", {f"{_SELECTION}.launch.PROGRAMS": 1}, "interpreter"),
}
# As on Hopper and Blackwell, where six products of bfloat16 are loaded by addresses.
DESCRIBED = Form(
    partial(nearest, precision="tf32"),
    "triton",
    {"lamina_kernels.tiles.descriptors.takes_descriptors": always, f"{_SELECTION}.launch.PROGRAMS": 1},
    "interpreter",
)
ASSIGNING = {name: form._replace(op=argmin) for name, form in FORMS.items()}
