"""Where a feature of sparse codes is most active, with what stands around it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import polars as pl

from lamina.runs.columns import RESERVED_ORDER
from lamina.runs.scan.around import around
from lamina.runs.scan.cells import as_frame, rows_of, taken, together
from lamina.runs.scan.hits import Hits
from lamina.runs.scan.indexed import Indexed
from lamina.runs.scan.units import gathered

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
    names = _strongest(codes, feature, k, early)["row"].to_numpy()
    # one that has no example or no position is near to nothing, and stands alone
    found, near = names, np.arange(names.size)
    if "position" in keys and "example" in keys and context > 0 and names.size:
        columns = [name for name in ("example", "position", "step") if name in keys]
        more, to = around(codes.scan.cells, codes.scan.groups, _described(codes, names, columns), context)
        other = more != names[to]
        found, near = np.append(names, more[other]), np.append(near, to[other])
    rows = _rows(codes, np.unique(found), feature)
    known = rows["row"].to_numpy()
    at = np.searchsorted(known, found)
    there = np.flatnonzero(np.append(known, -1)[at] == found)
    at, near = at[there], near[there]
    hit = np.searchsorted(known, names)[near]
    shown = is_hit = at == hit
    if alike := [_alike(rows[name], at, hit) for name in keys if name != "position"]:
        shown = is_hit | np.logical_and.reduce(alike)
    offset = np.zeros(at.size)
    if "position" in keys:
        # where a position is missing it is NaN
        positions = rows["position"].to_numpy()
        offset = np.where(is_hit, 0, positions[at] - positions[hit])
    order = np.lexsort((known[at], offset, near))
    order = order[shown[order]]
    columns = [pl.Series("rank", near[order] + 1), pl.Series("offset", offset[order].astype(np.int64))]
    shown = at[order]
    return as_frame([*columns, *(taken(rows[name], shown) for name in ("value", *codes.columns))])


def _alike(column: pl.Series, some: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Where some cells of a column are like others, or both are missing."""
    if column.dtype == pl.Int64 and not column.null_count():
        values = column.to_numpy()
        return values[some] == values[others]
    return column[some].eq_missing(column[others]).to_numpy()


def _described(codes: Features, names: np.ndarray, columns: list[str]) -> pl.DataFrame:
    """Columns of rows, one at least, by their names."""
    order = np.argsort(names)
    found = together([frame for frame, _ in codes.scan.found(None, columns, names[order])])
    back = np.empty_like(order)
    back[order] = np.arange(order.size)
    return rows_of(found, back)


def _strongest(codes: Features, feature: int, k: int, early: pl.Expr | None) -> pl.DataFrame:
    """The k greatest values of a feature, the greatest first: `row` and `value`.

    NaN comes last, and of equal values the row that was named first.
    """
    wanted, asked = np.array([feature]), k
    while True:
        top, answered = codes.indexes.strongest(feature, asked)
        if early is None and codes.indexes.are_all(answered):
            return top
        kept, waiting = [], 0
        for units in codes.units.walk(early, ["row"], wanted, _indexed(top, answered, feature)):
            kept.append(units)
            waiting += units.height
            if waiting > _WAITING:
                kept, waiting = [_best(together(kept), k)], 0
        best = _best(together(kept), k) if kept else codes.empty().select("row", "value")
        # what is left must suffice: of codes that several writers gave a row one counts, and some rows are not meant
        if top.height < asked or (best.height == k and _ranks(best)[-1] <= _ranks(top)[-1]):
            return best
        asked *= 8


def _indexed(top: pl.DataFrame, answered: list[int], feature: int) -> Indexed:
    """The strongest units as if they were all: in order of groups, and of places there."""
    top = as_frame([*top.get_columns(), pl.Series("feature", np.full(top.height, feature))])
    order = np.lexsort((top["position"].to_numpy(), top["group"].to_numpy()))
    sizes = np.bincount(np.searchsorted(answered, top["group"].to_numpy()), minlength=len(answered))
    return Indexed(answered, sizes, rows_of(top, order))


def _rows(codes: Features, names: np.ndarray, feature: int) -> pl.DataFrame:
    """Metadata of those rows of some names (ascending) that have codes, and the `value` of a feature, 0 for none."""
    hits = Hits(codes.scan.cells, codes.site, names)
    places = codes.scan.places(None, codes.columns, hits)
    for metadata, groups, positions in gathered(places, names.size):
        _, units = codes.units.of(groups, positions, np.array([feature]), None, names.size + 1)
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
