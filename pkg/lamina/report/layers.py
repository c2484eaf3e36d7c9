"""The section on a single pass over data: how alike a network's layers are, with error bars by group."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

import polars as pl

from lamina.plot import heatmap, intervals
from lamina.report.alike import (
    MEANING,
    compared,
    groups_of,
    layers_of,
    missing,
    selection,
)
from lamina.report.choice import source_of, steps_of, vector_sites
from lamina.report.section import Picture, Section

if TYPE_CHECKING:
    from lamina.runs import Run

_RUNS = 4
"""Most runs shown."""
_WORK = 5e11
"""Most rows times squared width, over all comparisons: about a minute on two cores."""
_ROWS = 600
"""Rows compared in any case."""


def layers_section(runs: list[Run], *, progress: bool = False) -> Section | None:
    """Return two charts a run whose layers were recorded at one step, or None if there is no such run.

    Cost: about a minute on two cores at most; where a run's rows would take more, a part of them is compared.
    """
    section = Section("How alike the layers are")
    for run in runs[:_RUNS]:
        found = _sites(run)
        if found is None:
            continue
        sites, step, source = found
        rows = run.rows(sites[0], step=step, source=source)
        where, count = selection(rows, _limit(run, sites))
        frame = compared([run], sites, step, source=source, where=where, progress=progress)
        if frame is not None and frame["value"].is_not_null().any():
            part = "" if where is None else f" Of {len(rows):,} rows, {count:,} were compared."
            section.parts.extend(_pictures(run, frame, sites, part=part))
    return section if section.parts else None


def _sites(run: Run) -> tuple[list[str], int, str | None] | None:
    """Return the layers to compare, their step and their source; None if there are not two, or several steps."""
    outputs = vector_sites(run).filter(pl.col("kind") == "output")["site"].to_list()
    if not outputs:
        return None
    source = source_of(run, outputs[0])
    steps = steps_of(run, outputs[0], source)
    sites = layers_of(run, steps[0], source) if len(steps) == 1 else []
    return (sites, steps[0], source) if len(sites) > 1 else None


def _limit(run: Run, sites: list[str]) -> int:
    widths = (
        vector_sites(run).filter(pl.col("site").is_in(sites))["shape"].list.eval(pl.element().product()).list.first()
    )
    squares = sum(one * other for one, other in itertools.combinations(widths.to_list(), 2))
    return max(_ROWS, int(_WORK / squares))


def _pictures(run: Run, frame: pl.DataFrame, sites: list[str], *, part: str) -> list[Picture]:
    column = groups_of(run)
    neighbors = pl.DataFrame({"site_a": sites[:-1], "site_b": sites[1:]})
    chain = neighbors.join(frame, on=["site_a", "site_b"], how="left", maintain_order="left")
    changes = chain.select(pl.exclude("site_a", "site_b"), site="site_b")
    return [
        Picture(
            heatmap(frame, title="How alike the layers are to each other"),
            f"{MEANING.format(rows='rows')} Below each value is its standard error: rows of one {column} are not "
            f"independent of each other, so all rows of one {column}, or of several, are left out at a time."
            f"{part}{missing(frame)}",
        ),
        Picture(
            intervals(
                changes,
                title="How alike each layer is to the one before it",
                x="CKA to the layer before (1 = alike)",
            ),
            f"The cells beside the diagonal: the further to the left, the more a layer rearranges what it was given. "
            f"The first layer, {sites[0]}, has none before it.",
        ),
    ]
