"""Where a feature of sparse codes is most active, with what stands around it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import polars as pl

from lamina import _core
from lamina.runs.columns import RESERVED_ORDER
from lamina.runs.scan.around import around
from lamina.runs.scan.cells import as_frame, rows_of, taken, together
from lamina.runs.scan.features import gathered
from lamina.runs.scan.hits import Hits
from lamina.runs.scan.indexed import Indexed

if TYPE_CHECKING:
    from lamina.runs.scan import Features


_WAITING = 1 << 20
"""Units that wait at most before all but the strongest are dropped."""


def top_examples(codes: Features, feature: int, k: int, context: int, early: pl.Expr | None) -> pl.DataFrame:
    """The strongest activations of a feature and the rows around them; see `Run.top_examples`.

    Args:
        codes: The long frame.
        feature: Which.
        k: How many activations.
        context: How many positions on either side.
        early: What the metadata of the activations must satisfy.
    """
    keys = [name for name in RESERVED_ORDER if name in codes.columns]
    hits = _described(codes, _strongest(codes, feature, k, early), keys)
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
    at, near = at[there], near[there]
    is_hit = known[at] == hits["row"].to_numpy()[near]
    shown = is_hit
    alike = [_alike(rows[name], at, hits[name], near) for name in keys if name != "position"]
    if alike:
        shown = is_hit | np.logical_and.reduce(alike)
    offset = np.zeros(at.size)
    if "position" in keys:
        # where a position is missing it is NaN
        offset = np.where(is_hit, 0, rows["position"].to_numpy()[at] - hits["position"].to_numpy()[near])
    order = np.lexsort((known[at], offset, near))
    order = order[shown[order]]
    columns = [pl.Series("rank", near[order] + 1), pl.Series("offset", offset[order].astype(np.int64))]
    found = [taken(rows[name], at[order]) for name in ("value", *codes.columns)]
    return as_frame([*columns, *found])


def _alike(one: pl.Series, at: np.ndarray, other: pl.Series, near: np.ndarray) -> np.ndarray:
    """Where two columns have the same value, or both have none."""
    if one.dtype == pl.Int64 and not (one.null_count() or other.null_count()):
        return one.to_numpy()[at] == other.to_numpy()[near]
    return one[at].eq_missing(other[near]).to_numpy()


def _described(codes: Features, hits: pl.DataFrame, columns: list[str]) -> pl.DataFrame:
    """Some rows, with columns of theirs."""
    if not columns or hits.is_empty():
        return hits.with_columns(codes.empty().select(columns)) if columns else hits
    order = np.argsort(hits["row"].to_numpy())
    found = together([frame for frame, _ in codes.scan.found(None, columns, hits["row"].to_numpy()[order])])
    back = np.empty_like(order)
    back[order] = np.arange(order.size)
    return hits.hstack(rows_of(found, back))


def _strongest(codes: Features, feature: int, k: int, early: pl.Expr | None) -> pl.DataFrame:
    """The k greatest values of a feature, the greatest first: `row` and `value`.

    NaN comes last, and of equal values the row that was named first.
    """
    wanted, asked = np.array([feature]), k
    while True:
        groups, batch = _core.top_units(codes.snapshot, codes.site, feature, asked)
        top = pl.DataFrame(batch)
        top = as_frame([*top.get_columns(), pl.Series("feature", np.full(top.height, feature))])
        order = np.lexsort((top["position"].to_numpy(), top["group"].to_numpy()))
        sizes = np.bincount(np.searchsorted(groups, top["group"].to_numpy()), minlength=len(groups))
        indexed = Indexed(groups, sizes, rows_of(top, order))
        codes.tell_of_indexes(indexed)
        kept, waiting = [], 0
        for units in codes.walk(early, ["row"], wanted, indexed):
            kept.append(units)
            waiting += units.height
            if waiting > _WAITING:
                kept, waiting = [_best(together(kept), k)], 0
        best = _best(together(kept), k) if kept else codes.empty().select("row", "value")
        # what is left must suffice: of codes that several writers gave a row one counts, and some rows are not meant
        if top.height < asked or (best.height == k and _ranks(best)[-1] <= _ranks(top)[-1]):
            return best
        asked *= 8


def _rows(codes: Features, names: np.ndarray, feature: int) -> pl.DataFrame:
    """Metadata of those rows of some names (ascending) that have codes, and the `value` of a feature, 0 for none."""
    hits = Hits(codes.scan.cells, codes.site, names)
    mask, places = codes.only([feature]), codes.scan.places(None, codes.columns, hits)
    for metadata, groups, positions in gathered(places, names.size):
        _, units = codes.units_of(groups, positions, mask, None, names.size + 1)
        values = pl.Series("value", np.zeros(metadata.height), dtype=units.schema["value"])
        return as_frame([*metadata.get_columns(), values.scatter(units["at"], units["value"])])
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
