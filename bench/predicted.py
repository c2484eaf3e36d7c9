"""What counted instructions say of the speed of a compiled kernel on an H100, where no GPU is at hand.

Nothing is measured here: the counts are those of the committed tables of compiled code, the speeds those of the chip
(132 multiprocessors at 1.83 GHz), and nothing is taken to overlap.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Mapping

from bench import paths

TABLES = paths.ROOT / "tests" / "kernels" / "aot"
TARGET = "cuda:90"

# Of one multiprocessor, a clock: operations of half precision, exponentials, other instructions of a thread.
PRODUCTS, EXPONENTIALS, INSTRUCTIONS = 4096, 16, 128
PROCESSORS, HERTZ = 132, 1.83e9

NOTES = [
    "a prediction: nothing here was measured",
    f"{PROCESSORS} multiprocessors at {HERTZ / 1e9} GHz; counts of {TARGET} in tests/kernels/aot",
]


def clocks(operations: float, exponentials: float, instructions: float) -> float:
    """Return the clocks of a multiprocessor, one kind of work behind the other."""
    return operations / PRODUCTS + exponentials / EXPONENTIALS + instructions / INSTRUCTIONS


def counts(family: str) -> dict[str, float]:
    """Return the instructions a score of each compiled configuration, by the newest Triton of the table."""
    with (TABLES / f"{family}.tsv").open(newline="") as file:
        rows = [row for row in csv.DictReader(file, delimiter="\t") if row["target"] == TARGET]
    newest = max(tuple(map(int, row["triton"].split("."))) for row in rows)
    return {
        row["configuration"]: float(row["instructions"])
        for row in rows
        if tuple(map(int, row["triton"].split("."))) == newest
    }


def at_width(counts: Mapping[str, float], row: str, d: int) -> float:
    """Return the instructions a score at any width, on the line through those of two widths.

    Args:
        counts: See `counts`.
        row: What the table calls them, with "{}" where the width stands.
        d: The width.

    Raises:
        ValueError: The table has not two such widths.
    """
    before, after = row.split("{}")
    known = {
        int(name.removeprefix(before).removesuffix(after)): count
        for name, count in counts.items()
        if re.fullmatch(re.escape(before) + r"\d+" + re.escape(after), name)
    }
    low, high = sorted(known)[-2:]
    return known[low] + (known[high] - known[low]) * (d - low) / (high - low)
