"""The section on the size of activations and of their gradients, site by site."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, Any

import polars as pl

from lamina.errors import SchemaError
from lamina.plot import curves
from lamina.plot.steps import spread_steps
from lamina.report.choice import is_wide, source_of, vector_sites
from lamina.report.section import Picture, Section
from lamina.report.swept import swept
from lamina.sweeps.threads import torch_threads

if TYPE_CHECKING:
    from lamina.measures import Estimate
    from lamina.runs import Run

_STEPS = 48
"""Most steps read a site."""
_ROWS = 1000
"""About the most rows read a step."""
_SITES = 24
"""Most sites shown, spread over all of them."""
_GOLDEN, _TURN = 40503, 65536
"""A fraction that is the golden ratio's: its multiples are spread evenly, whatever period rows have."""


def norms_section(runs: list[Run]) -> Section | None:
    """Return charts of the mean L2 norm of a row over steps, or None if no site holds vectors at two steps."""
    section = Section("Size of the activations")
    for gradients in (False, True):
        with torch_threads(1):  # many small products, for which several wait for each other
            frame = norms_frame(runs, gradients=gradients)
        # A site that is not finite at a step has no norm there.
        if frame is None or frame.filter(pl.col("value").is_not_null())["step_a"].n_unique() < 2:
            continue
        what = "gradients" if gradients else "activations"
        chart = curves(
            frame,
            title=f"Norm of the {what} at each site over training",
            y=f"mean L2 norm of a row ({'loss per activation unit' if gradients else 'activation units'})",
            by="site",
            log=is_wide(frame["value"].drop_nulls()),
        )
        reading = (
            "A line that rises tells that the vectors at this site grow longer, whatever their direction; where lines "
            "bend at different steps, layers change at different times."
        )
        section.parts.append(Picture(chart, reading))
    return section if section.parts else None


def norms_frame(runs: list[Run], *, gradients: bool) -> pl.DataFrame | None:
    """Return a sweep of the mean L2 norm of about 1000 rows, at up to 48 steps a site, and `source`; None without."""
    frames = []
    for run in runs:
        sites = vector_sites(run).filter((pl.col("kind") == "grad") == gradients)["site"].to_list()
        sites = [sites[k * len(sites) // _SITES] for k in range(_SITES)] if len(sites) > _SITES else sites
        alike: dict[tuple[Any, ...], list[str]] = defaultdict(list)
        for site in sites:
            source = source_of(run, site)
            rows = run.activations(site, source=source).group_by("step").agg(pl.len()).sort("step").collect()
            steps = spread_steps(rows["step"].to_list(), _STEPS)
            alike[source, tuple(steps), max([0, *rows["len"]])].append(site)
        for (source, steps, most), named in alike.items():
            where = pl.col("row") * _GOLDEN % _TURN < _TURN * _ROWS // most if most > _ROWS else None
            chosen = {"sites": named, "steps": list(steps), "source": source, "where": where}
            if (frame := swept(mean_norm, [run], progress=False, **chosen)) is not None:
                frames.append(frame.with_columns(source=pl.lit(source, pl.String)))
    return pl.concat(frames) if frames else None


def mean_norm(x: Any, *, groups: Any = None) -> Estimate:
    """The mean L2 norm of the rows, with its error by group."""
    import numpy as np
    import torch

    from lamina.measures import Estimate, Replicates
    from lamina.rows import Rows
    from lamina.rows.groups import groups_of

    rows = Rows.of(x)
    norms = torch.cat([torch.linalg.vector_norm(block.double(), dim=1) for block in rows.blocks(8192)]).numpy()
    finite = np.flatnonzero(np.isfinite(norms))
    if not finite.size:
        raise SchemaError("no row is finite")
    known = groups_of(rows, groups).take(finite)
    buckets, keys = known.buckets()
    sums = np.zeros((len(keys), 2))
    np.add.at(sums, buckets[known.codes], np.stack([np.ones(finite.size), norms[finite]], 1))
    value, left = Replicates.of_sums(keys, sums[:, 0], sums, lambda sums: sums[:, 1] / sums[:, 0])
    return Estimate(
        "mean norm",
        value,
        left.stderr(float(value)),
        unit="units of the features",
        n=finite.size,
        n_groups=len(known),
        dropped={"non_finite": norms.size - finite.size} if finite.size < norms.size else {},
        estimator="mean over rows",
        replicates=left,
    )
