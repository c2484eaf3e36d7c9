"""Spectra: values by rank, both axes logarithmic."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import polars as pl

from lamina.errors import SchemaError
from lamina.plot.bands import banded
from lamina.plot.frames import read, told_apart
from lamina.plot.lines import lines
from lamina.plot.steps import value_ticks
from lamina.plot.theme import altair
from lamina.plot.words import shared, with_unit

_RANKS = 200
"""Most ranks drawn for one line."""


def spectra(
    frame: pl.DataFrame | pl.LazyFrame,
    *,
    by: str | Sequence[str] | None = None,
    title: str | None = None,
    y: str | None = None,
    subtitle: str | None = None,
) -> Any:
    """Draw values over their rank, both axes logarithmic: a line for each site, step or whatever else rows differ in.

    A power law is a straight line, whose slope is its exponent. Several runs are averaged rank by rank; the band is
    that of `lamina.plot.curves`.

    Args:
        frame: Rows of estimates with one axis, such as eigenvalues, whose labels are numbers: they stand in `part`. The
            rank is the label; labels that begin with 0 count from 1.
        by: Columns with a line of their own for each of their values; by default all that differ but part and run.
        title: What the chart shows; by default the measure's name.
        y: The title of the y axis; by default the measure's name and unit.
        subtitle: A line under the title; by default what all values have in common, and the band.

    Returns:
        An Altair chart of at most 200 ranks a line, spread over the axis. Values of 0 and less are left out and counted
        under the title.

    Raises:
        MissingExtraError: If altair is not installed.
        SchemaError: The parts are no numbers, there are several values for one place, or several units.

    Example:
        >>> frame = pl.DataFrame({"part": ["1", "2", "3"], "value": [4.0, 2.0, 1.0], "measure": "eigenvalues"})
        >>> chart = spectra(frame)
    """
    alt = altair()
    frame = read(frame)
    if "part" not in frame.columns or frame["part"].cast(pl.Int64, strict=False).null_count():
        raise SchemaError("a spectrum's ranks are numbers in the column 'part'", hint="as of estimates with one axis")
    rank = pl.col("part").cast(pl.Int64)
    frame = frame.with_columns(rank=rank - rank.min() + 1 if frame.select(rank.min()).item() < 1 else rank).drop("part")
    frame, by = told_apart(frame, by, "rank")
    below = frame.filter(pl.col("value") <= 0).height
    kept = frame.filter(pl.col("value") > 0)
    ranks = sorted(kept["rank"].unique())
    if len(ranks) > _RANKS:
        places = {round(len(ranks) ** (k / (_RANKS - 1))) - 1 for k in range(_RANKS)}
        kept = kept.filter(pl.col("rank").is_in([ranks[place] for place in places]))
    data, words = banded(kept, ["series", "rank"])
    lost = f"{below:,} values of 0 or less left out" if below else ""
    ticks = [int(tick) for tick in value_ticks(1, max(ranks, default=1))]
    axis = alt.Axis(values=ticks, format=",d", grid=False)
    return lines(
        data,
        alt.X("rank:Q", title="rank (logarithmic)", scale=alt.Scale(type="log", nice=False), axis=axis),
        y=y or with_unit(frame),
        by=", ".join(by),
        log=True,
        title=title or f"Spectrum: {_named(frame)}",
        subtitle=shared(frame, words, lost, without=by) if subtitle is None else subtitle,
    )


def _named(frame: pl.DataFrame) -> str:
    measures = frame["measure"].unique().to_list() if "measure" in frame.columns else []
    return str(measures[0]) if len(measures) == 1 else "value"
