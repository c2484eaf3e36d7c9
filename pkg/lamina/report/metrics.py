"""The section on metrics: one chart a quantity, with the sources that share it in one picture."""

from __future__ import annotations

from typing import TYPE_CHECKING

import polars as pl

from lamina.plot import curves
from lamina.report.choice import is_wide, names_of
from lamina.report.section import Picture, Section

if TYPE_CHECKING:
    from lamina.runs import Run

_CHARTS = 16
"""Most quantities shown."""


def metrics_section(runs: list[Run]) -> Section | None:
    """Return a chart for each quantity that was logged, or None if nothing was.

    A quantity is a metric's name behind its last slash, so that `train/loss` and `validation/loss` share a chart;
    its unit is read from `config["units"]`. Metrics under `recording/` belong to the section on storage.
    """
    frame = metrics_frame(runs).filter(~pl.col("name").str.starts_with("recording/"))
    if frame.is_empty():
        return None
    units = {name: unit for run in runs for name, unit in dict(run.config.get("units", {})).items()}
    quantities = frame["quantity"].unique(maintain_order=True).to_list()
    section = Section("Metrics over steps")
    for quantity in quantities[:_CHARTS]:
        section.parts.append(_chart(frame.filter(pl.col("quantity") == quantity), quantity, units))
    return section


def metrics_frame(runs: list[Run]) -> pl.DataFrame:
    """Return run, step, name, quantity, metric and value of all metrics; of several values at one place, the last."""
    frames = [
        run.metrics().select("step", "name", "site", "source", "rank", "value").collect().with_columns(run=pl.lit(name))
        for run, name in zip(runs, names_of(runs), strict=True)
    ]
    place = ["run", "step", "name", "site", "source", "rank"]
    frame = pl.concat(frames).unique(place, keep="last", maintain_order=True)
    quantity = pl.col("name").str.extract(r"([^/]+)$").fill_null(pl.col("name"))
    metric = pl.concat_str(["name", "source", "site"], separator=" ", ignore_nulls=True)
    return frame.with_columns(quantity=quantity, metric=metric).select(
        "run", "step", "name", "quantity", "metric", "value"
    )


def _chart(frame: pl.DataFrame, quantity: str, units: dict[str, str]) -> Picture:
    several = frame["metric"].n_unique() > 1
    chart = curves(
        frame,
        title=f"{quantity[0].upper()}{quantity[1:]} over training",
        y=f"{quantity} ({units.get(quantity, 'as logged')})",
        by="metric" if several else None,
        log=is_wide(frame["value"]),
    )
    reading = "Steps are spaced logarithmically: the first ten take as much room as those from a hundred to a thousand."
    return Picture(chart, reading)
