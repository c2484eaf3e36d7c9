"""The section on the size of activations and of their gradients, site by site."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import polars as pl

from lamina.plot import curves
from lamina.plot.steps import spread_steps
from lamina.report.choice import is_wide, names_of, rows_at, source_of, steps_of, vector_sites
from lamina.report.section import Picture, Section

if TYPE_CHECKING:
    from lamina.runs import Run

_STEPS = 48
"""Most steps read a site."""
_ROWS = 1000
"""Most rows read a step."""
_SITES = 24
"""Most sites shown, spread over all of them."""


def norms_section(runs: list[Run]) -> Section | None:
    """Return charts of the mean L2 norm of a row over steps, or None if no site holds vectors at two steps."""
    section = Section("Size of the activations")
    for gradients in (False, True):
        frame = pl.concat(
            [norms_frame(run, name, gradients=gradients) for run, name in zip(runs, names_of(runs), strict=True)]
        )
        # A site that is not finite at a step has no norm there.
        frame = frame.filter(pl.col("value").is_finite())
        if frame["step"].n_unique() < 2:
            continue
        what = "gradients" if gradients else "activations"
        chart = curves(
            frame,
            title=f"Norm of the {what} at each site over training",
            y=f"mean L2 norm of a row ({'loss per activation unit' if gradients else 'activation units'})",
            by="site",
            log=is_wide(frame["value"]),
        )
        reading = (
            "A line that rises tells that the vectors at this site grow longer, whatever their direction; where lines "
            "bend at different steps, layers change at different times."
        )
        section.parts.append(Picture(chart, reading))
    return section if section.parts else None


def norms_frame(run: Run, name: str, *, gradients: bool) -> pl.DataFrame:
    """Return run, site, source, step and value, the mean L2 norm of at most 1000 rows, at up to 48 steps a site."""
    sites = vector_sites(run).filter((pl.col("kind") == "grad") == gradients)["site"].to_list()
    sites = [sites[k * len(sites) // _SITES] for k in range(_SITES)] if len(sites) > _SITES else sites
    records = []
    for site in sites:
        source = source_of(run, site)
        for step in spread_steps(steps_of(run, site, source), _STEPS):
            vectors = rows_at(run, site, step, source, limit=_ROWS)[site].to_numpy()
            norm = float(np.linalg.norm(vectors.astype(np.float64), axis=1).mean())
            records.append((name, site, source, step, norm))
    schema = {"run": pl.String, "site": pl.String, "source": pl.String, "step": pl.Int64, "value": pl.Float64}
    return pl.DataFrame(records, schema=schema, orient="row")
