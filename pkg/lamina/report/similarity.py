"""The section on similarity over training: layer by layer, each layer to its own end, and across runs."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import TYPE_CHECKING

import polars as pl

from lamina.plot import curves, heatmap, intervals
from lamina.plot.steps import spread_steps
from lamina.report.alike import MEANING, Layer, compared, groups_of, layers_of, missing, selection
from lamina.report.choice import names_of, source_of, steps_of, vector_sites
from lamina.report.section import Picture, Section

if TYPE_CHECKING:
    from lamina.runs import Run

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
    """Runs that reached the last step, by name; the sites that all of them hold; which of their `rows` rows."""

    runs: dict[str, Run]
    sites: list[str]
    last: int
    source: str | None
    where: pl.Expr | None
    rows: int

    def layer(self, name: str, site: str, step: int) -> Layer:
        return Layer(name, self.runs[name], site, step, self.source, self.where)


def similarity_section(runs: list[Run], *, progress: bool = False) -> Section | None:
    """Return up to three charts of CKA over training, or None if no run holds two layers at two steps.

    Cost: at most about a thousand comparisons of 600 rows.
    """
    plan = _plan(runs)
    if plan is None:
        return None
    parts = {"layers": _between_layers(plan), "end": _to_the_end(plan), "runs": _across_runs(plan)}
    frame = compared([one for part in parts.values() for one in part], progress=progress)
    kinds = pl.Series([kind for kind, part in parts.items() for _ in part])
    section = Section("How alike the layers are")
    for kind, draw in (("layers", _layers_picture), ("end", _end_picture), ("runs", _runs_picture)):
        numbers = frame.filter(kinds == kind)
        if numbers["value"].is_not_null().any():
            section.parts.append(draw(plan, numbers))
    return section if section.parts else None


def _plan(runs: list[Run]) -> _Plan | None:
    reached: dict[tuple[int, str | None], dict[str, Run]] = {}
    for run, name in zip(runs, names_of(runs), strict=True):
        outputs = vector_sites(run).filter(pl.col("kind") == "output")["site"].to_list()
        source = source_of(run, outputs[0]) if outputs else None
        steps = steps_of(run, outputs[0], source) if outputs else []
        if len(steps) > 1:
            reached.setdefault((steps[-1], source), {})[name] = run
    if not reached:
        return None
    last, source = max(reached, key=lambda end: end[0])
    kept = dict(itertools.islice(reached[last, source].items(), _RUNS))
    first = next(iter(kept.values()))
    sites = layers_of(first, last, source)
    sites = [site for site in sites if all(site in run.sites()["site"] for run in kept.values())]
    if len(sites) < 2:
        return None
    rows = [first.rows(site, step=last, source=source) for site in sites]
    if "example" not in rows[0].columns:
        return None
    widest = max(each.shape[1] for each in rows)
    where, _ = selection(rows[0], max(4, min(_ROWS, _BYTES // (4 * widest))))
    return _Plan(kept, sites, last, source, where, len(rows[0]))


def _between_layers(plan: _Plan) -> list[tuple[Layer, Layer]]:
    return [
        pair
        for name in plan.runs
        for pair in itertools.combinations([plan.layer(name, site, plan.last) for site in plan.sites], 2)
    ]


def _to_the_end(plan: _Plan) -> list[tuple[Layer, Layer]]:
    return [
        (plan.layer(name, site, step), plan.layer(name, site, plan.last))
        for name, run in plan.runs.items()
        for site in plan.sites
        for step in spread_steps(steps_of(run, site, plan.source), _STEPS)
    ]


def _across_runs(plan: _Plan) -> list[tuple[Layer, Layer]]:
    return [
        (plan.layer(one, site, plan.last), plan.layer(other, site, plan.last))
        for one, other in itertools.combinations(plan.runs, 2)
        for site in plan.sites
    ]


def _layers_picture(plan: _Plan, frame: pl.DataFrame) -> Picture:
    chart = heatmap(frame, title=f"How alike the layers are to each other at step {plan.last:,}")
    how = f"Below each value is its standard error, by {_group(plan)}."
    if len(plan.runs) > 1:
        how = f"Each value is the mean of {len(plan.runs)} runs; below it stands the standard error of that mean."
    return Picture(
        chart, f"{MEANING.format(rows='examples')} {how} The diagonal is 1 by definition.{_rest(plan, frame)}"
    )


def _end_picture(plan: _Plan, frame: pl.DataFrame) -> Picture:
    chart = curves(
        frame, title="How alike each layer is to its own end", y=f"CKA to step {plan.last:,} (1 = alike)", by="site"
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
    of = "" if plan.where is None else f" Compared are {frame['n'].max():,} of {plan.rows:,} rows{source}."
    return of + missing(frame)


def _group(plan: _Plan) -> str:
    return groups_of(next(iter(plan.runs.values())))
