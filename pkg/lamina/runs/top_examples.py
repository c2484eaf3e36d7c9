"""Where a feature of sparse codes is most active, with what stands around it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import polars as pl

from lamina import _core
from lamina.runs.columns import RESERVED_ORDER
from lamina.runs.scan.around import around
from lamina.runs.scan.cells import as_frame, rows_of, together
from lamina.runs.scan.features import gathered
from lamina.runs.scan.hits import Hits
from lamina.runs.scan.indexed import Indexed

if TYPE_CHECKING:
    from lamina.runs.scan import Features


_WAITING = 1 << 20
"""Units that wait at most before all but the strongest are dropped."""


def top_examples(codes: Features, feature: int, k: int, context: int) -> pl.DataFrame:
    """The strongest activations of a feature and the rows around them; see `Run.top_examples`.

    Args:
        codes: The long frame.
        feature: Which.
        k: How many activations.
        context: How many positions on either side.
    """
    keys = [name for name in RESERVED_ORDER if name in codes.columns]
    hits = _strongest(codes, feature, k, ["row", *keys])
    # one that has no example or no position is near to nothing, and stands alone
    names, near = hits["row"].to_numpy(), np.arange(hits.height)
    if "position" in keys and "example" in keys and context > 0:
        more, to = around(codes.scan.cells, codes.scan.groups, hits, context)
        other = more != names[to]
        names, near = np.append(names, more[other]), np.append(near, to[other])
    rows = _rows(codes, np.unique(names), feature)
    known = rows["row"].to_numpy()
    at = np.searchsorted(known, names)
    there = np.flatnonzero(np.append(known, -1)[at] == names)
    rank = pl.Series("rank", near[there] + 1)
    hit = [series.alias(f" {series.name}") for series in rows_of(hits, near[there]).drop("value").get_columns()]
    is_hit = pl.col("row") == pl.col(" row")
    alike = [pl.col(name).eq_missing(pl.col(f" {name}")) for name in keys if name != "position"]
    offset = pl.when(is_hit).then(0)
    offset = offset.otherwise(pl.col("position") - pl.col(" position")) if "position" in keys else offset
    both = as_frame([rank, *rows_of(rows, at[there]).get_columns(), *hit]).lazy()
    shown = both.filter(pl.any_horizontal(is_hit, pl.all_horizontal(alike)) if alike else is_hit)
    columns = "rank", offset.cast(pl.Int64).alias("offset"), "value", *codes.columns
    return shown.select(*columns).sort("rank", "offset", "row").collect()


def _strongest(codes: Features, feature: int, k: int, columns: list[str]) -> pl.DataFrame:
    """The k greatest values of a feature, the greatest first: columns of their rows, `row` among them, and `value`.

    NaN comes last, and of equal values the row that was named first.
    """
    mask, asked = codes.only([feature]), k
    while True:
        groups, batch = _core.top_units(codes.snapshot, codes.site, feature, asked)
        top = pl.DataFrame(batch).with_columns(feature=pl.lit(feature, pl.Int64))
        indexed = Indexed(groups, top.sort("group", "position"))
        codes.tell_of_indexes(indexed.answered)
        kept, waiting = [], 0
        for units in codes.walk(None, columns, mask, indexed):
            kept.append(units)
            waiting += units.height
            if waiting > _WAITING:
                kept, waiting = [_best(together(kept), k)], 0
        best = _best(together(kept), k) if kept else codes.empty()
        # several writers may have given a row codes, of which one counts: what is left of the units must suffice
        if top.height < asked or (best.height == k and _ranks(best)[-1] <= _ranks(top)[-1]):
            return best
        asked *= 2


def _rows(codes: Features, names: np.ndarray, feature: int) -> pl.DataFrame:
    """Metadata of those rows of some names (ascending) that have codes, and the `value` of a feature, 0 for none."""
    hits = Hits(codes.scan.cells, codes.site, names)
    mask, places = codes.only([feature]), codes.scan.places(None, codes.columns, hits)
    for metadata, groups, positions in gathered(places, names.size):
        _, units = codes.units_of(groups, positions, mask, None, names.size + 1)
        values = pl.Series("value", np.zeros(metadata.height), dtype=units.schema["value"])
        return metadata.with_columns(values.scatter(units["at"], units["value"]))
    return codes.empty()


def _ranks(units: pl.DataFrame) -> list[tuple[bool, float, int]]:
    """What units are sorted by."""
    values = units["value"].cast(pl.Float64).to_numpy()
    missing = np.isnan(values)
    return list(zip(missing.tolist(), np.where(missing, 0, -values).tolist(), units["row"].to_list(), strict=True))


def _best(units: pl.DataFrame, k: int) -> pl.DataFrame:
    values = units["value"].cast(pl.Float64).to_numpy()
    missing = np.isnan(values)
    return rows_of(units, np.lexsort((units["row"].to_numpy(), np.where(missing, 0, -values), missing))[:k])
