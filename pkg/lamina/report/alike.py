"""What the pictures of similarity share: which layers and rows they compare, and the CKA of two layers."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import polars as pl

from lamina.errors import NotFoundError, SchemaError
from lamina.progress import track
from lamina.report.choice import vector_sites

if TYPE_CHECKING:
    from lamina.rows import Rows
    from lamina.runs import Run

SITES = 8
"""Most sites compared with each other, spread over all of them."""
_AT_ONCE = 2
"""Comparisons made side by side."""
MEANING = (
    "Centered kernel alignment (CKA) compares what two layers make of the same {rows}: 1 if they place them alike up "
    "to a rotation and a scale, 0 if what one does says nothing about the other."
)

_SCHEMA = {
    "run_a": pl.String,
    "site_a": pl.String,
    "step_a": pl.Int64,
    "run_b": pl.String,
    "site_b": pl.String,
    "step_b": pl.Int64,
    "value": pl.Float64,
    "stderr": pl.Float64,
    "n": pl.Int64,
    "n_groups": pl.Int64,
}


@dataclass(frozen=True)
class Layer:
    """What one site of one run makes of its rows at a step."""

    name: str
    run: Run
    site: str
    step: int
    source: str | None
    where: pl.Expr | None

    def rows(self) -> Rows:
        """Return the rows; none of their vectors is read yet."""
        return self.run.rows(self.site, step=self.step, source=self.source, where=self.where)


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


def labels_of(run: Run, rows: Rows) -> pl.Series | None:
    """Return the group of each row; None for the example, and where a row has none."""
    column = groups_of(run)
    labels = None if column == "example" else rows.metadata([column])[column]
    return None if labels is None or labels.null_count() else labels


def compared(pairs: Sequence[tuple[Layer, Layer]], *, progress: bool) -> pl.DataFrame:
    """Return a row a pair: run, site and step of both, value, stderr, n and n_groups.

    The value is the debiased linear CKA; it is null where there is none, because a layer does not vary, there are
    fewer than four groups, or the two were recorded on other examples.
    """
    with _one_thread_each() as workers:
        numbers = workers.map(lambda pair: _cka(*pair), pairs)
        shown = track(numbers, "Comparing layers", total=len(pairs), progress=progress)
        records = [
            (x.name, x.site, x.step, y.name, y.site, y.step, *found) for (x, y), found in zip(pairs, shown, strict=True)
        ]
    frame = pl.DataFrame(records, schema=_SCHEMA, orient="row")
    return frame.with_columns(measure=pl.lit("cka"), estimator=pl.lit("debiased linear CKA"), unit=pl.lit("1"))


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


@contextmanager
def _one_thread_each() -> Iterator[ThreadPoolExecutor]:
    """Make `_AT_ONCE` comparisons side by side, each on one thread: they are many small products.

    Each takes up to about 1.3 GB, so there are never more of them, however many cores there are.
    """
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    workers = ThreadPoolExecutor(_AT_ONCE)
    try:
        yield workers
    finally:
        workers.shutdown(cancel_futures=True)
        torch.set_num_threads(threads)


def _cka(one: Layer, other: Layer) -> tuple[float | None, ...]:
    from lamina import similarity

    try:
        x, y = one.rows(), other.rows()
        found = similarity.cka(x, y, groups=labels_of(one.run, x))
    except (NotFoundError, SchemaError):
        return (None, None, None, None)
    numbers = [None if math.isnan(number) else number for number in (found.value, found.stderr)]
    return (*numbers, found.n, found.n_groups)


def _steps(run: Run, site: str) -> set[int]:
    return set(run.activations(site).select("step").unique().collect()["step"].to_list())
