"""The pictures of features: how often all of them fire, and how many are dead over a training."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import polars as pl

from lamina.plot import curves
from lamina.plot.steps import spread_steps
from lamina.plot.theme import WIDTH, altair, chart_of, line_scale, titled
from lamina.report.feature_measures import Coded
from lamina.report.metrics import metrics_frame

if TYPE_CHECKING:
    from lamina.runs import Run

_BINS = 10
"""Bins of the histogram for each factor of ten."""
_STEPS = 32
"""Most steps at which dead features are counted."""
_EXPLAINED = r"(?i)explained[ _-]?variance|variance[ _-]?explained"
"""Names of metrics that say how much of the variance a reconstruction explains."""


def density_chart(fired: pl.DataFrame, subtitle: str) -> Any:
    """Draw how many features fire in which share of the rows: a bar a tenth of a factor of ten, dead ones apart.

    Args:
        fired: Columns count and density, a row a feature.
        subtitle: What stands under the title.
    """
    alt = altair()
    bins = density_bins(fired)
    dead = int((fired["count"] == 0).sum())
    scale = alt.Scale(domain=[0, max(1, *bins["features"], dead)], nice=True)
    ticks = [10.0**k for k in range(-9, 1)]
    alive = chart_of(bins).encode(
        x=alt.X(
            "low:Q",
            title="density (share of the rows in which a feature fires, logarithmic)",
            scale=alt.Scale(type="log", domain=[bins["low"].min(), 1.0], nice=False),
            axis=alt.Axis(values=ticks, format="~g", grid=False),
        ),
        x2="high:Q",
        y=alt.Y("features:Q", title="features (number)", scale=scale, axis=alt.Axis(tickCount=5)),
        tooltip=[alt.Tooltip("features:Q"), *(alt.Tooltip(f"{end}:Q", format=".2~g") for end in ("low", "high"))],
    )
    alive = alive.mark_rect(color=line_scale([""]).range[0], stroke="white", strokeWidth=0.5)
    gone = chart_of(pl.DataFrame({"what": ["dead"], "features": [dead]})).encode(
        x=alt.X("what:N", title=None, axis=alt.Axis(labelAngle=0, ticks=False)),
        y=alt.Y("features:Q", title="features (number)", scale=scale, axis=alt.Axis(tickCount=5)),
        tooltip=["features:Q"],
    )
    gone = gone.mark_bar(color="#999999")
    size = {"height": 220}
    alive = alive.encode(y=alt.Y("features:Q", title=None, scale=scale, axis=alt.Axis(tickCount=5, labels=False)))
    both = alt.hconcat(gone.properties(width=50, **size), alive.properties(width=WIDTH - 90, **size), spacing=8)
    return titled(both, "How often the features fire", subtitle)


def density_bins(fired: pl.DataFrame) -> pl.DataFrame:
    """Return low, high (densities) and features (how many), ascending, of the features that fire."""
    tenths = (pl.col("density").log10() * _BINS).floor().clip(upper_bound=-1).cast(pl.Int64)
    counts = fired.filter(pl.col("count") > 0).group_by(tenth=tenths).agg(features=pl.len().cast(pl.Int64))
    least = min(-3 * _BINS, math.floor(min(counts["tenth"], default=0) / _BINS) * _BINS)
    every = pl.DataFrame({"tenth": pl.int_range(least, 0, eager=True)})
    filled = every.join(counts, on="tenth", how="left", maintain_order="left").fill_null(0)
    ends = {name: 10.0 ** ((pl.col("tenth") + k) / _BINS) for k, name in enumerate(("low", "high"))}
    return filled.select(**ends, features="features")


def training_chart(found: list[tuple[str, Coded]]) -> Any | None:
    """Draw the share of dead features, and of explained variance where it was logged, over steps; None for one step."""
    if all(codes.rows["step"].n_unique() < 2 for _, codes in found):
        return None
    dead = pl.concat([dead_frame(codes).with_columns(run=pl.lit(name)) for name, codes in found])
    frames = [dead.select("run", "step", "value", share=pl.lit("features that are dead"))]
    logged = pl.concat([_explained(codes.run).with_columns(run=pl.lit(name)) for name, codes in found])
    frames.append(logged.select("run", "step", "value", share=pl.lit("variance that is explained")))
    return curves(
        pl.concat(frames),
        by="share",
        title="Dead features, and what the codes explain, over training",
        y="share (of 1)",
    )


def dead_frame(codes: Coded) -> pl.DataFrame:
    """Return step and value: the share of the features that fire in no row of that step.

    Cost: a pass over the codes of at most 32 steps.
    """
    steps = spread_steps(sorted(codes.rows["step"].unique()), _STEPS)
    units = codes.units_at(steps).filter(pl.col("value") != 0).select("step", "feature").unique()
    alive = units.group_by("step").agg(alive=pl.len()).collect()
    every = pl.DataFrame({"step": steps}, schema={"step": pl.Int64})
    counted = every.join(alive, on="step", how="left", maintain_order="left").fill_null(0)
    return counted.select("step", value=1 - pl.col("alive") / codes.width)


def _explained(run: Run) -> pl.DataFrame:
    """Return step and value of the explained variance: of what was held out, where both were logged."""
    logged = metrics_frame([run]).filter(pl.col("quantity").str.contains(_EXPLAINED), pl.col("value").is_between(0, 1))
    held_out = logged.filter(~pl.col("metric").str.contains("(?i)train"))
    chosen = held_out if held_out.height else logged
    return chosen.group_by("step").agg(pl.col("value").mean()).sort("step")
