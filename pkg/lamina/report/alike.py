"""What the pictures of similarity share: which layers and rows they compare, and the sweep that does."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import polars as pl

from lamina.report.choice import vector_sites
from lamina.report.swept import swept

if TYPE_CHECKING:
    from lamina.rows import Rows
    from lamina.runs import Run
    from lamina.sweeps.pairs import Pairs

SITES = 8
"""Most sites compared with each other, spread over all of them."""
MEANING = (
    "Centered kernel alignment (CKA) compares what two layers make of the same {rows}: 1 if they place them alike up "
    "to a rotation and a scale, 0 if what one does says nothing about the other."
)


def layers_of(run: Run, step: int, source: str | None) -> list[str]:
    """Return the outputs with two or more units that were recorded on the same rows, at most `SITES` of them.

    Where sites were recorded on different rows, such as tokens and whole texts, those that most sites share.
    """
    units = pl.col("shape").list.eval(pl.element().product()).list.first()
    by_rows: dict[bytes, list[str]] = {}
    for site in vector_sites(run).filter(pl.col("kind") == "output", units > 1)["site"]:
        if step in _steps(run, site):
            ids = run.rows(site, step=step, source=source).ids
            by_rows.setdefault(ids.tobytes(), []).append(site)
    sites = max(by_rows.values(), key=len, default=[])
    return spread(sites, SITES)


def selection(rows: Rows, limit: int) -> tuple[pl.Expr | None, int]:
    """Return a condition that chooses at most `limit` rows, alike in every run and step, and how many it chooses.

    It chooses examples spread over all of them, and where these have more rows than `limit`, positions spread over
    all of those. None if all rows are few enough, or name no example to choose by.
    """
    keys = [name for name in ("example", "position") if name in rows.columns]
    if len(rows) <= limit or "example" not in keys:
        return None, len(rows)
    frame = rows.metadata(keys)
    examples = frame["example"].drop_nulls().unique().sort()
    where = pl.col("example").is_in(pl.Series(spread(examples.to_list(), limit)).implode())
    frame = frame.filter(where)
    if frame.height > limit and "position" in keys:
        positions = frame["position"].drop_nulls().unique().sort().to_list()
        each = max(1, limit // frame["example"].n_unique())
        where = where & pl.col("position").is_in(pl.Series(spread(positions, each)).implode())
        frame = frame.filter(where)
    return where, frame.height


def groups_of(run: Run) -> str:
    """Return the column whose values are independent of each other: `config["groups"]` if it is one, or `example`."""
    named = run.config.get("groups")
    if not isinstance(named, str):
        return "example"
    known = {*run.activations().collect_schema().names(), *run.examples().collect_schema().names()}
    return named if named in known else "example"


def grouped(run: Run, rows: Rows) -> dict[str, str]:
    """Return the option `groups` of a measure of rows, if it is another column than `example` and known of all rows."""
    groups = groups_of(run)
    named = groups != "example" and not rows.metadata([groups])[groups].null_count()
    return {"groups": groups} if named else {}


def compared(
    runs: list[Run],
    sites: list[str],
    steps: int | list[int],
    *,
    source: str | None,
    where: pl.Expr | None,
    pairs: Pairs = "same-step",
    progress: bool,
) -> pl.DataFrame | None:
    """Return a sweep of debiased linear CKA over `groups_of` the first run, or None if it leaves no pair.

    A value is null where there is none, because a layer does not vary, there are fewer than four groups, or the two
    were recorded on other examples.
    """
    from lamina import similarity

    first = runs[0].rows(sites[0], step=steps if isinstance(steps, int) else steps[-1], source=source, where=where)
    return swept(
        similarity.cka,
        runs,
        sites=sites,
        steps=steps,
        source=source,
        where=where,
        pairs=pairs,
        options=grouped(runs[0], first),
        progress=progress,
    )


def missing(frame: pl.DataFrame) -> str:
    """Return a sentence on comparisons without a value; nothing if there is none."""
    count = frame["value"].null_count()
    what = "a layer that does not vary, or fewer than four groups of examples in common"
    return f" Left out: {count:,} comparisons without a value ({what})." if count else ""


def spread(items: Sequence, count: int) -> list:
    """Return at most `count` of the items, evenly spread, first and last among them."""
    if len(items) <= count:
        return list(items)
    return [items[round(k * (len(items) - 1) / max(count - 1, 1))] for k in range(count)]


def _steps(run: Run, site: str) -> set[int]:
    return set(run.activations(site).select("step").unique().collect()["step"].to_list())
