"""What a report reads of a run that may be far larger than memory: which source, which steps, which rows."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import polars as pl

from lamina.recording.attention import STATISTICS

if TYPE_CHECKING:
    from lamina.runs import Run

_BYTES = 64 * 2**20
"""Most bytes of vectors read at once."""

_STATISTIC = pl.col("site").str.extract(r"([^.]+)$")
MODULE = pl.col("site").str.replace(r"\.?[^.]+$", "")
"""What stands before the last dot of `site`."""


def vector_sites(run: Run) -> pl.DataFrame:
    """Return the rows of `run.sites()` whose items are vectors of floating-point numbers, in the order declared.

    Without statistics of attention, whose items are numbers of heads, and without sparse codes.
    """
    vectors = (pl.col("shape").list.len() > 0) & pl.col("dtype").str.contains("^(f|bf)") & (pl.col("kind") != "sparse")
    return run.sites().filter(vectors, ~_STATISTIC.is_in(list(STATISTICS)))


def attention_sites(run: Run) -> pl.DataFrame:
    """Return the rows of `run.sites()` that are statistics of attention, with the columns `module` and `statistic`."""
    heads = run.sites().filter(_STATISTIC.is_in(list(STATISTICS)), pl.col("shape").list.len() == 1)
    return heads.with_columns(statistic=_STATISTIC, module=MODULE)


def source_of(run: Run, site: str) -> str | None:
    """Return the source to show a site on: the largest probe, whose examples are alike at every step, else any.

    None if the rows carry no source. Reads metadata only.
    """
    frame = run.activations(site)
    if "source" not in frame.collect_schema().names():
        return None
    counts = frame.group_by("source").agg(pl.len()).collect().sort("len", "source", descending=[True, False])
    names = counts["source"].drop_nulls().to_list()
    probes = [name for name in names if name not in ("train", "capture")]
    return next(iter(probes or names), None)


def steps_of(run: Run, site: str, source: str | None) -> list[int]:
    """Return the sorted steps at which a site was recorded on a source. Reads metadata only."""
    return run.activations(site, source=source).select("step").unique().sort("step").collect()["step"].to_list()


def rows_at(
    run: Run, site: str, step: int, source: str | None, *, limit: int, keys: tuple[str, ...] = ()
) -> pl.DataFrame:
    """Return the metadata `keys` that exist and the vectors of at most `limit` rows of a step, spread over all of them.

    Reads the metadata of the step, and the vectors of the chosen rows alone; never more than 64 MiB of them.
    """
    frame = run.activations(site, step=step, source=source)
    schema = frame.collect_schema()
    names = [name for name in keys if name in schema]
    width = math.prod(getattr(schema[site], "shape", ()))
    limit = max(3, min(limit, _BYTES // (4 * width)))
    rows = frame.select("row").collect()["row"]
    if len(rows) > limit:
        chosen = rows.gather([k * len(rows) // limit for k in range(limit)])
        frame = frame.filter(pl.col("row").is_in(chosen.implode()))
    return frame.select(*names, site).collect()


def names_of(runs: list[Run]) -> list[str]:
    """Return a name a run: its folder's, or the path where folders share a name."""
    names = [run.name for run in runs]
    return names if len(set(names)) == len(names) else [str(run.path) for run in runs]


def is_wide(values: pl.Series) -> bool:
    """Whether values want a logarithmic axis: all positive, and over more than a factor of 30."""
    finite = values.filter(values.is_finite())
    return finite.len() > 0 and finite.min() > 0 and finite.max() > 30 * finite.min()  # pyright: ignore
