"""The section that looks at a layer: its rows on their two leading principal directions, at four steps."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import polars as pl

from lamina.plot import scatter
from lamina.plot.steps import spread_steps
from lamina.report.choice import rows_at, source_of, steps_of, vector_sites
from lamina.report.section import Picture, Section

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from lamina.runs import Run

_PANELS = 4
_ROWS = 800
"""Most rows shown in one panel."""


def principal_section(runs: list[Run]) -> Section | None:
    """Return the last hidden layer of the first run at four steps, or None if no site holds vectors at two steps."""
    run = runs[0]
    site = last_hidden(run)
    if site is None:
        return None
    source = source_of(run, site)
    steps = spread_steps(steps_of(run, site, source), _PANELS)
    if len(steps) < 2:
        return None
    frame = principal_frame(run, site, steps, source)
    if frame["step"].n_unique() < 2:
        return None
    percent = (100 * pl.col("share")).round().cast(pl.Int64)
    rows = f"rows of the source {source}" if source else "all rows"
    chart = scatter(
        frame.with_columns(panel=pl.format("step {} ({} % of the variance)", "step", percent)).drop("share"),
        title=f"{site} on its two leading principal directions",
        subtitle=f"run {run.name}, {rows}; each picture has its own scale",
        unit="activation units",
    )
    # tokens, patches: an example has a row at each position
    tokens = "position" in frame.columns and frame["position"].count() > 0
    reading = (
        f"Each mark is {'one position of an example' if tokens else 'one example'}; marks that stand together are "
        "alike for this layer. Every picture shows the two directions in which the layer varies most at that step, "
        "turned or mirrored as a whole (orthogonal Procrustes on the examples) so that it lines up with the picture "
        "after it."
    )
    if "label" in frame.columns:
        reading += " The color is the example's label."
    return Section("What the last hidden layer sees", [Picture(chart, reading)])


def last_hidden(run: Run) -> str | None:
    """Return the last declared output of a module with two or more units, but the root's own only if it is alone."""
    units = pl.col("shape").list.eval(pl.element().product()).list.first()
    names = vector_sites(run).filter(pl.col("kind") == "output", units > 1)["site"].to_list()
    inner = [name for name in names if name != "output"]
    return next(reversed(inner or names), None)


def principal_frame(run: Run, site: str, steps: list[int], source: str | None) -> pl.DataFrame:
    """Return step, share (of the variance), x, y, and where the run has them example, position and label.

    Rows that are not finite are left out, and steps at which fewer than three are.
    """
    frames: list[pl.DataFrame] = []
    keys = ("example", "position")
    for step in reversed(steps):
        rows = rows_at(run, site, step, source, limit=_ROWS, keys=keys)
        vectors = rows[site].to_numpy().astype(np.float64)
        finite = np.asarray(np.isfinite(vectors).all(axis=1))
        if finite.sum() < 3:
            continue
        plane, share = leading_plane(vectors[finite])
        frame = rows.drop(site).filter(finite).with_columns(x=pl.Series(plane[:, 0]), y=pl.Series(plane[:, 1]))
        if frames:
            frame = _line_up(frame, frames[-1], [name for name in keys if name in frame.columns])
        frames.append(frame.with_columns(step=pl.lit(step, pl.Int64), share=pl.lit(share)))
    schema = {"step": pl.Int64, "share": pl.Float64, "x": pl.Float64, "y": pl.Float64}
    return _with_labels(pl.concat(frames[::-1]), run) if frames else pl.DataFrame(schema=schema)


def leading_plane(rows: NDArray[np.float64]) -> tuple[NDArray[np.float64], float]:
    """Return the coordinates of centered rows on their two leading principal directions, and their share of variance.

    Args:
        rows: Shape (n, d).

    Returns:
        Coordinates of shape (n, 2), in the units of `rows`, and a number from 0 to 1.
    """
    centered = rows - rows.mean(axis=0)
    left, values, _ = np.linalg.svd(centered, full_matrices=False)
    plane = np.zeros((len(rows), 2))
    kept = min(2, len(values))
    plane[:, :kept] = left[:, :kept] * values[:kept]
    total = float((values**2).sum())
    return plane, float((values[:kept] ** 2).sum()) / total if total > 0 else 0.0


def rotation_onto(points: NDArray[np.float64], target: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the 2 x 2 orthogonal R, a turn or a mirror image, that brings `points @ R` nearest to `target`.

    Both are (n, 2), row i of one belonging to row i of the other (Schoenemann 1966).
    """
    left, _, right = np.linalg.svd(points.T @ target)
    return left @ right


def _line_up(frame: pl.DataFrame, after: pl.DataFrame, keys: list[str]) -> pl.DataFrame:
    """Turn the points of `frame` towards the same examples in `after`; by order where rows have no names."""
    if keys:
        pairs = frame.unique(keys).join(after.unique(keys), on=keys, suffix="_after")
    elif frame.height == after.height:
        pairs = frame.hstack(after.select(pl.col("x", "y").name.suffix("_after")))
    else:
        return frame
    points = pairs.select("x", "y").to_numpy()
    # Scales differ by orders of magnitude between steps; the turn does not depend on them.
    turned = frame.select("x", "y").to_numpy() @ rotation_onto(points, pairs.select("x_after", "y_after").to_numpy())
    return frame.with_columns(x=pl.Series(turned[:, 0]), y=pl.Series(turned[:, 1]))


def _with_labels(frame: pl.DataFrame, run: Run) -> pl.DataFrame:
    examples = run.examples()
    names = examples.collect_schema().names()
    if "label" not in names or "example" not in frame.columns:
        return frame
    keys = [name for name in ("example", "position") if name in names and name in frame.columns]
    labels = examples.select(*keys, pl.col("label").cast(pl.String)).drop_nulls("label").unique(keys).collect()
    return frame.join(labels, on=keys, how="left")
