"""Values over steps: a line for the mean over runs, a band from the least to the greatest run."""

from __future__ import annotations

from typing import Any

import polars as pl

from lamina.plot.steps import step_axis, thin, value_ticks
from lamina.plot.theme import WIDTH, altair, line_scale, titled

_STEPS = 250
"""Most steps drawn for one line."""
_POINTS = 4000
"""Most points drawn in one chart, over all its lines."""
_MARKED = 80
"""Most steps at which points are marked; with more they would hide the line."""


def curves(
    frame: pl.DataFrame,
    *,
    title: str,
    y: str,
    by: str | None = None,
    subtitle: str | None = None,
    log: bool = False,
) -> Any:
    """Draw values over logarithmic steps, averaged over runs, with the range of the runs as a band.

    Args:
        frame: Columns `step`, `value`, `run`, and the one named by `by`. Values that are not finite are left out,
            and so are values of 0 and less on a logarithmic axis.
        title: What the chart shows.
        y: The title of the y axis, with its unit.
        by: A text column with a line of its own for each value, colored in order of appearance.
        subtitle: A second line under the title.
        log: Whether the y axis is logarithmic.

    Returns:
        An Altair chart. Averaged within 250 bins of the step axis where there are more steps.

    Raises:
        MissingExtraError: If altair is not installed.

    Example:
        >>> frame = pl.DataFrame({"run": ["a", "b"] * 2, "step": [0, 0, 9, 9], "value": [2.0, 1.0, 1.0, 0.5]})
        >>> chart = curves(frame, title="Training loss", y="cross-entropy (nats)")
    """
    alt = altair()
    frame = frame.filter(pl.col("value").is_finite() & ((pl.col("value") > 0) if log else True))
    frame = frame.select("run", "step", "value", series=pl.col(by) if by else pl.lit(""))
    names = frame["series"].unique(maintain_order=True).to_list()
    data = _over_runs(frame, limit=min(_STEPS, max(_POINTS // max(len(names), 1), 2)))
    last = int(data.select(pl.col("step").max().fill_null(0)).item())
    scale = alt.Scale(type="log", nice=False) if log else alt.Scale(zero=False)
    reach = data.select(pl.col("low").min(), pl.col("high").max()).row(0)
    axis = alt.Axis(values=value_ticks(*reach)) if log else alt.Axis(tickCount=6)
    color = alt.value(line_scale([""]).range[0])
    if by:
        look = {"symbolType": "stroke", "symbolStrokeWidth": 3, "symbolOpacity": 1}
        legend = alt.Legend(orient="bottom", columns=min(len(names), 4), **look)
        color = alt.Color("series:N", title=by, scale=line_scale(names), legend=legend)
    base = alt.Chart(data).encode(x=step_axis(last), color=color)
    line = base.encode(
        y=alt.Y("mean:Q", title=y, scale=scale, axis=axis),
        tooltip=[
            *([alt.Tooltip("series:N", title=by)] if by else []),
            alt.Tooltip("step:Q"),
            *(alt.Tooltip(f"{name}:Q", format=".4~g") for name in ("mean", "low", "high")),
            alt.Tooltip("runs:Q"),
        ],
    )
    layers = [line.mark_line(strokeWidth=2)]
    if data["step"].n_unique() <= _MARKED:
        layers.append(line.mark_point(filled=True, size=22, opacity=1))
    if (data["runs"] > 1).any():
        band = base.mark_area(opacity=0.2).encode(y=alt.Y("low:Q", scale=scale, axis=axis), y2="high:Q")
        layers.insert(0, band)
    return titled(alt.layer(*layers).properties(width=WIDTH, height=260), title, subtitle)


def _over_runs(frame: pl.DataFrame, *, limit: int) -> pl.DataFrame:
    """Return series, step, mean, low, high and number of runs, at no more than `limit` steps."""
    value = pl.col("value")
    return (
        thin(frame, ["run", "series"], limit)
        .group_by("series", "step")
        .agg(mean=value.mean(), low=value.min(), high=value.max(), runs=pl.col("run").n_unique())
        .sort("series", "step")
    )
