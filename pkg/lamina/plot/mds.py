"""Networks in the plane: points as far from each other as a measure says that they differ."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl

from lamina.errors import SchemaError
from lamina.plot.classical import classical
from lamina.plot.frames import SIDES, alone, read
from lamina.plot.theme import altair, chart_of, line_scale, square, titled
from lamina.plot.words import declared, named, shared

if TYPE_CHECKING:
    from numpy.typing import NDArray

_SIDE = 460
_WRITTEN = 24
"""Most points that have their names beside them."""
_SHAPES = 6


def mds(frame: pl.DataFrame | pl.LazyFrame, *, title: str | None = None, subtitle: str | None = None) -> Any:
    """Draw networks as points, as far from each other as they are unlike (classical multidimensional scaling).

    A point is a site of a run at a step; those of several steps are joined by a line that ends in a large point. A
    distance is the value of a measure that is one, and 1 - value of a measure of similarity, as the register says
    (`lamina.list_measures()`); where a frame has both directions of a pair, their mean. What share of the distances the
    plane shows is said under the title: near 100 %, distances on paper are those of the measure; else points may be
    farther from each other than they look.

    Args:
        frame: Rows of a sweep over all pairs (`pairs="all"`): run_a, site_a, step_a, run_b, site_b, step_b, value and
            `measure`. Pairs of a thing with itself are not needed.
        title: What the chart shows; by default the measure's name.
        subtitle: A line under the title; by default what distances are, the share, and what all values have in common.

    Returns:
        An Altair chart with equal units on both axes; it may be turned and mirrored as a whole.

    Raises:
        MissingExtraError: If altair is not installed.
        SchemaError: A pair is missing, has no value or several, or the measure is neither a distance nor a similarity.

    Example:
        >>> frame = pl.DataFrame({"site_a": ["a", "a", "b"], "site_b": ["b", "c", "c"], "value": [0.9, 0.2, 0.3],
        ...                       "measure": "similarity.cka"})
        >>> chart = mds(frame)
    """
    alt = altair()
    frame = read(frame)
    names, distances = _distances(frame)
    points, share = classical(distances)
    data = names.with_columns(x=pl.Series(points[:, 0]), y=pl.Series(points[:, 1]))
    data = data.select("x", "y", *(side for side in SIDES if data[side].n_unique() > 1))
    told = [side for side in ("run", "site") if side in data.columns]
    paths = "step" in data.columns
    x, y = square(data, f"{'1 - ' if _similar(frame) else ''}{named(frame)}")
    base = chart_of(data).encode(x=x, y=y)
    tips = [alt.Tooltip(f"{name}:{'Q' if name == 'step' else 'N'}") for name in (*told, "step") if name in data.columns]
    written = len(told) == 1 and not paths and data.height <= _WRITTEN
    color = alt.value(line_scale([""]).range[0])
    if "site" in told or (told and not written):
        by = "site" if "site" in told else "run"
        values = data[by].unique(maintain_order=True).to_list()
        legend = None if written else alt.Legend(orient="right", symbolLimit=40)
        color = alt.Color(f"{by}:N", title=by, scale=line_scale(values), legend=legend)
    marks = base.encode(color=color, tooltip=tips)
    if len(told) == 2 and data["run"].n_unique() <= _SHAPES:
        marks = marks.encode(shape=alt.Shape("run:N", title="run", sort=None))
    layers = []
    if paths:
        grouped = {"detail": [f"{name}:N" for name in told]} if told else {}
        layers.append(base.mark_line(strokeWidth=1.2, opacity=0.6).encode(color=color, order="step:Q", **grouped))
        last = data["step"].max()
        marks = marks.encode(size=alt.condition(f"datum.step == {last}", alt.value(110), alt.value(22)))
        layers.append(marks.mark_point(filled=True, opacity=1))
    else:
        layers.append(marks.mark_point(filled=True, size=80, opacity=1))
    if written:
        layers.append(base.mark_text(align="left", dx=8, fontSize=11, color="#444").encode(text=f"{told[0]}:N"))
    if subtitle is None:
        kind = f"values of {named(frame)}" if not _similar(frame) else f"1 - {named(frame)}"
        ends = f"lines go along the steps, to a large point at step {data['step'].max():,}" if paths else ""
        plane = f"the plane shows {100 * share:.0f} % of the distances"
        subtitle = shared(frame, f"distances are {kind}", plane, ends)
    chart = alt.layer(*layers).properties(width=_SIDE, height=_SIDE)
    return titled(chart, title or f"Networks in the plane by {named(frame)}", subtitle, letters=92)


def _distances(frame: pl.DataFrame) -> tuple[pl.DataFrame, NDArray[np.float64]]:
    """Return run, site and step of each point, and the matrix of their distances."""
    if frame.select(pl.all_horizontal(pl.col(f"{side}_b").is_null().all() for side in SIDES)).item():
        raise SchemaError("the frame compares nothing", hint='lamina.sweep(…, pairs="all") compares all with all')
    frame = frame.with_columns(pl.col(f"{side}_b").fill_null(pl.col(f"{side}_a")) for side in SIDES)
    alone(frame, [f"{side}_{end}" for end in "ab" for side in SIDES])
    sides = [frame.select(pl.col(f"{side}_{end}").alias(side) for side in SIDES) for end in "ab"]
    names = pl.concat(sides).unique(maintain_order=True)
    place = {name: k for k, name in enumerate(names.rows())}
    found = np.full((len(names), len(names)), np.nan)
    for one, other, value in zip(sides[0].rows(), sides[1].rows(), frame["value"], strict=True):
        found[place[one], place[other]] = math.nan if value is None else value
    distances = 1 - found if _similar(frame) else found
    other = np.where(np.isnan(distances.T), distances, distances.T)
    distances = (np.where(np.isnan(distances), other, distances) + other) / 2
    np.fill_diagonal(distances, 0)
    missing = np.argwhere(np.isnan(np.triu(distances)))
    if len(names) < 2 or len(missing):
        some = " and ".join(_text(names.row(int(k))) for k in missing[0]) if len(missing) else "no two networks"
        raise SchemaError(
            f"{len(missing)} of {len(names) * (len(names) - 1) // 2} pairs have no value, such as {some}",
            hint='the plane needs all pairs: lamina.sweep(…, pairs="all")',
        )
    return names, np.maximum(distances, 0)


def _similar(frame: pl.DataFrame) -> bool:
    """Whether 1 - value is the distance; a measure that the register does not know is taken for a distance."""
    known = declared(frame)
    if known is None or known.metric or known.larger_is_more_similar is False:
        return False
    if known.larger_is_more_similar is None:
        raise SchemaError(f"{known.name} is neither a distance nor a similarity", hint="such as similarity.cka")
    return True


def _text(name: tuple[object, ...]) -> str:
    return " ".join(str(part) for part in name if part is not None)
