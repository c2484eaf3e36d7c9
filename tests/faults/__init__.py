"""Named faults, by the room that they break: see `tests.faults.table`."""

from __future__ import annotations

# importing a room registers its faults
from tests.faults import (
    attention,
    bench,
    editing,
    geometry,
    gram,
    heads,
    information,
    interchange,
    kernels,
    measures,
    numbers,
    recording,
    report,
    rows,
    runs,
    scan,
    similarity,
    sweeps,
)
from tests.faults.table import broken, fault

__all__ = [
    "attention",
    "bench",
    "broken",
    "editing",
    "fault",
    "geometry",
    "gram",
    "heads",
    "information",
    "interchange",
    "kernels",
    "measures",
    "numbers",
    "recording",
    "report",
    "rows",
    "runs",
    "scan",
    "similarity",
    "sweeps",
]
