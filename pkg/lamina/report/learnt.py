"""The section on examples: how many were learnt by when, and which came last."""

from __future__ import annotations

from typing import TYPE_CHECKING

import polars as pl

from lamina.plot import curves
from lamina.plot.steps import spread_steps
from lamina.report.choice import names_of
from lamina.report.section import Gallery, Item, Picture, Section
from lamina.text import number

if TYPE_CHECKING:
    from lamina.runs import Run

_SITE = "loss"
_SHOWN = 24
"""Examples in the gallery."""
_STEPS = 200
"""Points of the curve."""


def learnt_section(runs: list[Run]) -> Section | None:
    """Return when examples were learnt, or None unless a run holds a loss an example.

    Read from the site `loss` (one number a row, beside `example`), as `recorder.put("loss", …)` writes it. What the
    gallery shows of an example stands in the run's examples: `image` (a picture as a data URI), or else `text`,
    and `label`.
    """
    kept = [(run, name) for run, name in zip(runs, names_of(runs), strict=True) if _has_losses(run)]
    if not kept:
        return None
    learnt = pl.concat([learnt_frame(run).with_columns(run=pl.lit(name)) for run, name in kept])
    chart = curves(
        _shares(learnt),
        title="Share of the examples that are learnt, over training",
        y="examples learnt (percent)",
    )
    reading = (
        "An example counts as learnt from the first step at which its recorded loss lies below half the mean loss of "
        f"the first recorded step ({number(learnt['threshold'][0])}), if it then stays below to the end."
    )
    return Section(
        "Which examples were learnt last", [Picture(chart, reading), _gallery(learnt, kept[0][0], len(kept))]
    )


def learnt_frame(run: Run) -> pl.DataFrame:
    """Return example, learnt (a step, null if not by the end), loss (its last), last (step) and threshold.

    Losses of one example at one step, such as those of a text's positions, are averaged first.
    """
    losses = (
        run.activations(_SITE)
        .select("example", "step", loss=pl.col(_SITE).cast(pl.Float64))
        .drop_nulls()
        .group_by("example", "step")
        .agg(pl.col("loss").mean())
        .collect()
    )
    first = losses.filter(pl.col("step") == pl.col("step").min())
    threshold = float(first["loss"].mean() or 0.0) / 2  # pyright: ignore[reportArgumentType]
    step = pl.col("step")
    # NaN is no sign of having learnt.
    above = step.filter((pl.col("loss") >= threshold) | pl.col("loss").is_nan()).max().fill_null(-1)
    return (
        losses.group_by("example")
        .agg(learnt=step.filter(step > above).min(), loss=pl.col("loss").sort_by("step").last())
        .with_columns(last=pl.lit(losses["step"].max(), pl.Int64), threshold=pl.lit(threshold))
        .sort("example")
    )


def _has_losses(run: Run) -> bool:
    scalars = run.sites().filter(pl.col("site") == _SITE, pl.col("shape").list.len() == 0)
    return scalars.height == 1 and "example" in run.activations(_SITE).collect_schema().names()


def _shares(learnt: pl.DataFrame) -> pl.DataFrame:
    """Return run, step and value: percent of a run's examples that are learnt by that step; alike steps in all runs."""
    changes = sorted({0, *learnt["learnt"].drop_nulls().to_list(), *learnt["last"].to_list()})
    steps = pl.DataFrame({"step": spread_steps(changes, _STEPS)}, schema={"step": pl.Int64})
    by_then = (pl.col("learnt") <= pl.col("step")).fill_null(value=False)
    return (
        learnt.join(steps, how="cross")
        .group_by("run", "step", maintain_order=True)
        .agg(value=100 * by_then.mean())
        .sort("run", "step")
    )


def _gallery(learnt: pl.DataFrame, run: Run, count: int) -> Gallery:
    """Show the examples with the latest mean step over runs; not learnt counts as one step beyond the last."""
    ranked = (
        learnt.group_by("example")
        .agg(
            when=pl.col("learnt").fill_null(pl.col("last") + 1).mean(),
            never=pl.col("learnt").null_count(),
            loss=pl.col("loss").mean(),
        )
        .sort("when", "loss", descending=True)
        .head(_SHOWN)
    )
    examples = run.examples()
    shown = [name for name in ("image", "text", "label") if name in examples.collect_schema().names()]
    if shown:
        about = examples.filter(pl.col("example").is_in(ranked["example"].implode())).select("example", *shown)
        ranked = ranked.join(about.unique("example").collect(), on="example", how="left", maintain_order="left")
    items = [Item(row.get("image"), row.get("text"), _caption(row, count)) for row in ranked.iter_rows(named=True)]
    over = f" (mean of {count} runs)" if count > 1 else ""
    reading = f"The examples that were learnt last, hardest first, with the step from which they stayed learnt{over}."
    if "label" in shown:
        reading += " The label is the one that the network was to learn."
    return Gallery(items, reading)


def _caption(row: dict[str, object], count: int) -> str:
    name = f"example {row['example']}" if row.get("label") is None else f"label {row['label']}"
    if row["never"] == count:
        return f"{name}\nnever learnt"
    when = f"{name}\nstep {row['when']:,.0f}"
    return f"{when}, never in {row['never']} of {count}" if row["never"] else when
