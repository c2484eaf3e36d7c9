"""The cells of a matrix: which column of a frame makes its rows and columns, and what a cell averages."""

from __future__ import annotations

from dataclasses import dataclass

import polars as pl

from lamina.errors import SchemaError
from lamina.measures.summary import summarize
from lamina.plot.bands import averaged as of_runs
from lamina.plot.frames import SIDES, alone, differing, fold, joined, read, within
from lamina.plot.words import declared

_AXES = {"site": "layer (site)", "step": "step (optimizer updates)", "run": "run (name)"}
_ORDER = ("site", "step", "run")
"""What a matrix is drawn of: the first of these in which rows differ."""


@dataclass(frozen=True)
class Cells:
    """A matrix, or several.

    Attributes:
        data: panel, row, column (texts), value and error.
        frame: The rows that it was made from, as `read` returns them.
        rows: Names from top to bottom.
        columns: Names from left to right.
        titles: Of the vertical and the horizontal axis.
        what: What rows and columns are, in words.
        words: What a cell's numbers are.
        used: The columns that the picture shows.
    """

    data: pl.DataFrame
    frame: pl.DataFrame
    rows: list[str]
    columns: list[str]
    titles: tuple[str, str]
    what: str
    words: str
    used: list[str]


def cells(frame: pl.DataFrame | pl.LazyFrame, across: str | None = None) -> Cells:
    """Return the cells of the matrices that a frame of one measure holds.

    Args:
        frame: As in `lamina.plot.heatmap`.
        across: Of a measure of one side, the column that stands from left to right; None takes the step.
    """
    whole = frame = read(frame)
    paired = any(frame[f"{side}_b"].is_not_null().any() for side in SIDES)
    if across is not None and (paired or across not in frame.columns):
        why = "the frame compares" if paired else f"the frame has no column {across!r}"
        raise SchemaError(why, hint="columns= names a column of a frame that compares nothing")
    if paired:
        # A frame that names one side alone of a comparison, such as the run, means both.
        frame = frame.with_columns(pl.col(f"{side}_b").fill_null(pl.col(f"{side}_a")) for side in SIDES)
        main = next((side for side in _ORDER if _names(frame, side, "ab").len() > 1), "site")
        first, second = f"{main}_a", f"{main}_b"
        known, own = declared(frame), all(within(frame, side) for side in SIDES if side != main)
        if own and known is not None and known.symmetric:
            frame = _both_directions(frame)
        rows = columns = _names(frame, main, "ab")
        titles, what = (_AXES[main], _AXES[main]), f"pairs of {main}s"
    else:
        main, first, second = "", "site_a", across or "step_a"
        rows = _names(frame, "site", "a")
        columns = frame[across].drop_nulls().unique(maintain_order=True) if across else _names(frame, "step", "a")
        titles, what = (_AXES["site"], _title(columns) if across else _AXES["step"]), f"site and {across or 'step'}"
    averaged = within(frame, "run") or main == "run"
    kept = (main,) if paired else ("site",) if across else ("site", "step")
    others = [side for side in SIDES if side not in kept]
    frame = fold(frame, *others)
    used = [first, second, *(["run"] if "run" in frame.columns else [])]
    panels = differing(frame, used)
    data = frame.with_columns(
        panel=joined(frame, [*panels]) if len(panels) != 1 else pl.format(f"{panels[0]} {{}}", pl.col(panels[0])),
        row=pl.col(first).cast(pl.String),
        column=pl.col(second).cast(pl.String),
    )
    found, words = _averaged(data, averaged=averaged)
    shown = [*panels, *([main] if paired else [first, second])]
    return Cells(
        found,
        whole,
        [str(name) for name in rows],
        [str(name) for name in columns],
        titles,
        what,
        words,
        [name.removesuffix("_a") for name in shown],
    )


def _title(columns: pl.Series) -> str:
    """Return the title of an axis: what stands there, and whether these are numbers or names."""
    whole = columns.cast(pl.String).str.contains(r"^\d+$").all()
    return f"{columns.name} ({'number' if whole else 'name'})"


def _names(frame: pl.DataFrame, side: str, ends: str) -> pl.Series:
    """Return the names of one side or both, in order of appearance; steps ascending."""
    names = pl.concat([frame.select(pl.col(f"{side}_{end}").alias(side)) for end in ends])[side]
    names = names.drop_nulls().unique(maintain_order=True)
    return names.sort() if side == "step" else names


def _both_directions(frame: pl.DataFrame) -> pl.DataFrame:
    """Return the frame with a row b, a behind it for each row a, b whose other direction it does not have."""
    ends = {f"{side}_{end}": f"{side}_{'b' if end == 'a' else 'a'}" for side in SIDES for end in "ab"}
    turned = frame.rename(ends).select(frame.columns)
    keys = [*ends, *(name for name in ("measure", "part", "options", "estimator") if name in frame.columns)]
    return pl.concat([frame, turned.join(frame, on=keys, how="anti", nulls_equal=True)])


def _averaged(data: pl.DataFrame, *, averaged: bool) -> tuple[pl.DataFrame, str]:
    """Return panel, row, column, value and error, and in words what the two are."""
    keys = ["panel", "row", "column"]
    if "run" not in data.columns:
        data = data.with_columns(run=pl.lit(""))
    alone(data, [*keys, "run"])
    runs = data["run"].n_unique()
    error = pl.col("stderr") if "stderr" in data.columns else pl.lit(None, pl.Float64)
    if runs <= 1:
        known = "stderr" in data.columns and data["stderr"].is_not_null().any()
        found = data.select(*keys, "value", error=error.cast(pl.Float64).fill_nan(None))
        return found, "± its standard error" if known else ""
    if averaged and "stderr" in data.columns:
        mean = summarize(data.select("run", *keys, "value", "stderr"))
        words = f"{of_runs(mean['count'])} ± its standard error over runs"
        return mean.select(*keys, "value", error="stderr"), words
    value = pl.col("value")
    mean = data.group_by(keys, maintain_order=True).agg(value.mean(), count=value.count())
    words = of_runs(mean["count"], "runs" if averaged else "pairs of runs")
    return mean.select(*keys, "value", error=pl.lit(None, pl.Float64)), words
