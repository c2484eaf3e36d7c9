"""The section on checkpoints: what was saved, and how much of it was new."""

from __future__ import annotations

from typing import TYPE_CHECKING

import polars as pl

from lamina.plot import curves
from lamina.report.choice import is_wide, names_of
from lamina.report.section import Picture, Section, Table
from lamina.text import number, size

if TYPE_CHECKING:
    from lamina.runs import Run

_ALL = 95
"""Percent of its bytes from which a checkpoint counts as stored whole."""


def saved_section(runs: list[Run]) -> Section | None:
    """Return a table of the parts that were saved, and a chart of what each stored where that is less, or None."""
    frame = saved_frame(runs)
    if frame.is_empty():
        return None
    section = Section("Checkpoints", [Table(_by_part(frame), _reading(frame, len(runs)))])
    # a part that was saved once has no line
    drawn = frame.filter(pl.len().over("run", "part") > 1, pl.col("bytes") > 0)
    share = drawn.select("run", "step", "part", value=100 * pl.col("stored") / pl.col("bytes"))
    # where all of it was stored, the table says so, and an axis from 99.99 to 100 would say something else
    if (share["value"] < _ALL).any():
        section.parts.append(
            Picture(
                curves(
                    share,
                    title="What a checkpoint added to the run",
                    y="bytes stored / bytes saved (percent)",
                    by="part",
                    log=is_wide(share["value"]),
                ),
                "Tensors, or pieces of them of 1 MiB, that some earlier checkpoint holds are not stored again; what is "
                "coded takes less than its bytes. At 100 percent everything was new and lies as it is.",
            )
        )
    return section


def saved_frame(runs: list[Run]) -> pl.DataFrame:
    """Return run, step, part, tensors, bytes and stored of all checkpoints, ascending by step."""
    frames = [
        run.checkpoints()
        .group_by("step", "part")
        .agg(pl.len().alias("tensors"), pl.col("bytes").sum(), pl.col("stored").sum())
        .sort("step", "part")
        .select(pl.lit(name).alias("run"), "step", "part", "tensors", "bytes", "stored")
        .collect()
        for run, name in zip(runs, names_of(runs), strict=True)
    ]
    return pl.concat(frames)


def _by_part(frame: pl.DataFrame) -> pl.DataFrame:
    parts = frame.group_by("part", maintain_order=True).agg(
        pl.len().alias("checkpoints"),
        pl.col("step").min().alias("first step"),
        pl.col("step").max().alias("last step"),
        pl.col("tensors").max(),
        pl.col("bytes").max().alias("of one"),
        pl.col("bytes").sum().alias("saved"),
        pl.col("stored").sum(),
    )
    share = (100 * pl.col("stored") / pl.col("saved")).fill_nan(None)
    in_words = [pl.col(name).map_elements(size, return_dtype=pl.String) for name in ("of one", "saved", "stored")]
    return parts.with_columns(share.alias("percent")).with_columns(*in_words)


def _reading(frame: pl.DataFrame, count: int) -> str:
    over = f" over all {count} runs" if count > 1 else ""
    saved, stored = int(frame["bytes"].sum()), int(frame["stored"].sum())
    share = f": {number(100 * stored / saved)} percent" if saved else ""
    return (
        f"What was saved of each part{over}, with the most tensors and bytes of one checkpoint; of {size(saved)} in "
        f"all {size(stored)} were stored{share}. Hidden checkpoints are not counted."
    )
