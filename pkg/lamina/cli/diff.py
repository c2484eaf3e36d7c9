"""Two checkpoints of a run, compared on a terminal."""

from __future__ import annotations

import polars as pl
from rich.console import Console
from rich.text import Text

from lamina.cli.show import table
from lamina.runs import Run


def show_differences(run: Run, step: int, other: int, part: str, console: Console) -> None:
    """Print how far each tensor moved, the one that moved most (relative to its norm) first."""
    found = run.diff(step, other, part=part)
    shape = pl.col("shape").list.eval(pl.element().cast(pl.String)).list.join(" x ")
    percent = [(100 * pl.col(name)).round(2).alias(f"{name}, %") for name in ("unchanged", "bits")]
    shown = found.sort("relative", descending=True, nulls_last=True, maintain_order=True).select(
        "tensor", shape, "dtype", "norm", "change", "relative", *percent, "only"
    )
    console.print(table(shown if found["only"].count() else shown.drop("only")))
    moved = found.filter(pl.col("change") > 0).height
    console.print(Text(f"{moved} of {found.height} tensors of part {part!r} changed from step {step} to {other}"))
