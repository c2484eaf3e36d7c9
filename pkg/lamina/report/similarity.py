"""The section on similarity over training: layer by layer, each layer to its own end, and across runs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import polars as pl

from lamina.plot import curves, heatmap, intervals
from lamina.plot.steps import spread_steps
from lamina.report.alike import MEANING, compared, groups_of, layers_of, missing, selection
from lamina.report.choice import source_of, steps_of, vector_sites
from lamina.report.section import Picture, Section
from lamina.sweeps.threads import torch_threads

if TYPE_CHECKING:
    from lamina.runs import Run
    from lamina.sweeps.pairs import Pairs
    from lamina.sweeps.subjects import Subject

_RUNS = 6
"""Most runs compared."""
_STEPS = 17
"""Most steps of a layer."""
_ROWS = 600
"""Most rows of a comparison."""
_BYTES = 64 * 2**20
"""Most bytes of vectors in a comparison."""


@dataclass(frozen=True)
class _Plan:
    """Runs that reached the last step; the sites that all of them hold; which of their `rows` rows."""

    runs: list[Run]
    sites: list[str]
    last: int
    source: str | None
    where: pl.Expr | None
    rows: int


_Draw = Callable[[_Plan, pl.DataFrame], Picture]


def similarity_section(runs: list[Run], *, progress: bool = False) -> Section | None:
    """Return up to three charts of CKA over training, or None if no run holds two layers at two steps.

    Cost: at most about a thousand comparisons of 600 rows.
    """
    plan = _plan(runs)
    if plan is None:
        return None
    steps = spread_steps(steps_of(plan.runs[0], plan.sites[0], plan.source), _STEPS)
    asked: list[tuple[_Draw, int | list[int], Pairs]] = [
        (_layers_picture, plan.last, "same-step"),
        (_end_picture, steps, partial(_is_end, plan.last)),
        (_runs_picture, plan.last, "same-site-across-runs"),
    ]
    section = Section("How alike the layers are")
    for draw, at, pairs in asked:
        chosen = {"source": plan.source, "where": plan.where}
        with torch_threads(1):  # many small products, for which several wait for each other
            frame = compared(plan.runs, plan.sites, at, pairs=pairs, progress=progress, **chosen)
        if frame is not None and frame["value"].is_not_null().any():
            section.parts.append(draw(plan, frame))
    return section if section.parts else None


def _is_end(last: int, one: Subject, other: Subject) -> bool:
    """Whether a pair is a layer, and the same layer at its end."""
    return (one.run, one.site) == (other.run, other.site) and other.step == last


def _plan(runs: list[Run]) -> _Plan | None:
    reached: dict[tuple[int, str | None], list[Run]] = {}
    for run in runs:
        outputs = vector_sites(run).filter(pl.col("kind") == "output")["site"].to_list()
        source = source_of(run, outputs[0]) if outputs else None
        steps = steps_of(run, outputs[0], source) if outputs else []
        if len(steps) > 1:
            reached.setdefault((steps[-1], source), []).append(run)
    if not reached:
        return None
    last, source = max(reached, key=lambda end: end[0])
    kept = reached[last, source][:_RUNS]
    first = kept[0]
    sites = layers_of(first, last, source)
    sites = [site for site in sites if all(site in run.sites()["site"] for run in kept)]
    if len(sites) < 2:
        return None
    rows = [first.rows(site, step=last, source=source) for site in sites]
    if "example" not in rows[0].columns:
        return None
    widest = max(each.shape[1] for each in rows)
    where, _ = selection(rows[0], max(4, min(_ROWS, _BYTES // (4 * widest))))
    return _Plan(kept, sites, last, source, where, len(rows[0]))


def _layers_picture(plan: _Plan, frame: pl.DataFrame) -> Picture:
    chart = heatmap(frame, title=f"How alike the layers are to each other at step {plan.last:,}")
    how = f"Below each value is its standard error, by {_group(plan)}."
    if len(plan.runs) > 1:
        how = f"Each value is the mean of {len(plan.runs)} runs; below it stands the standard error of that mean."
    return Picture(chart, f"{MEANING.format(rows='examples')} {how}{_rest(plan, frame)}")


def _end_picture(plan: _Plan, frame: pl.DataFrame) -> Picture:
    # A sweep does not compare a layer with itself: at its end it is 1 by definition.
    known = frame.filter(pl.col("value").is_not_null())
    ends = known.unique(["run_a", "site_a"], maintain_order=True).with_columns(step_a="step_b", value=1.0, stderr=0.0)
    chart = curves(
        pl.concat([frame, ends]),
        title="How alike each layer is to its own end",
        y=f"CKA to step {plan.last:,} (1 = alike)",
        by="site",
    )
    return Picture(
        chart,
        "A layer whose line is near 1 arranges the examples as it will at the end: the one that gets there first has "
        f"settled first.{_rest(plan, frame)}",
    )


def _runs_picture(plan: _Plan, frame: pl.DataFrame) -> Picture:
    chart = intervals(
        frame,
        title=f"How alike the same layer is in two runs at step {plan.last:,}",
        x="CKA (1 = alike)",
        by="run",
    )
    return Picture(
        chart,
        f"Each point is a pair of runs, its bar the 95 % interval, by {_group(plan)}. Where points stand near 1, the "
        f"runs found the same arrangement of the examples from different beginnings.{_rest(plan, frame)}",
    )


def _rest(plan: _Plan, frame: pl.DataFrame) -> str:
    """Say which rows were compared, and what has no value."""
    source = f" of the source {plan.source}" if plan.source else ""
    of = f" Compared are the rows{source}." if source else ""
    if plan.where is not None:
        of = f" Compared are {frame['n'].max():,} of {plan.rows:,} rows{source}."
    return of + missing(frame)


def _group(plan: _Plan) -> str:
    return groups_of(plan.runs[0])
