"""Which groups are chosen: by a hash of their labels, so that a group's lot is the same wherever it turns up."""

from __future__ import annotations

from operator import index
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl

from lamina.errors import SchemaError
from lamina.rows.groups import Groups, groups_of

if TYPE_CHECKING:
    from lamina.rows.rows import Rows


def lots(groups: Groups, seed: int) -> np.ndarray:
    """Return each group's lot, float64 [groups] in [0, 1): a function of the group's label and the seed alone."""
    try:
        seed = index(seed)
    except TypeError:
        raise SchemaError(f"seed={seed!r}", hint="give an integer") from None
    mixed = groups.hashes() + np.uint64(seed * 0x9E3779B97F4A7C15 % 2**64)
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        mixed = (mixed ^ (mixed >> np.uint64(shift))) * np.uint64(factor)
    return ((mixed ^ (mixed >> np.uint64(31))) >> np.uint64(11)).astype(np.float64) * 2.0**-53


def split(rows: Rows, fraction: float, seed: int, groups: Any) -> tuple[np.ndarray, np.ndarray]:
    """Return the mask of the first side, whose groups have lots below the fraction, and of the second."""
    if not 0 < fraction < 1:
        raise SchemaError(f"a split at {fraction}", hint="give a fraction between 0 and 1, for example 0.8")
    of_rows = independent(rows, groups)
    first = lots(of_rows, seed) < fraction
    if first.all() or not first.any():
        raise SchemaError(
            f"all {len(of_rows)} groups fall on one side of a split at {fraction}",
            hint="give more groups or another seed; a split never divides a group",
        )
    mask = first[of_rows.codes]
    return mask, ~mask


def sample(rows: Rows, n: int, seed: int, groups: Any) -> np.ndarray:
    """Return the mask of whole groups in the order of their lots, up to n rows."""
    if n < 1:
        raise SchemaError(f"a sample of {n} rows", hint="give at least 1")
    of_rows = independent(rows, groups)
    order = np.argsort(lots(of_rows, seed), kind="stable")
    fit = int(np.searchsorted(np.cumsum(of_rows.sizes[order]), n, side="right"))
    if not fit and len(rows):
        raise SchemaError(
            f"a sample of {n} rows has no room for a group of {of_rows.sizes[order[0]]}",
            hint="a sample never divides a group: give a larger n, or groups= another column",
        )
    chosen = np.zeros(len(of_rows), bool)
    chosen[order[:fit]] = True
    return chosen[of_rows.codes]


def independent(rows: Rows, groups: Any) -> Groups:
    """Return the groups of rows as in `groups_of`; rows that are each by themselves are called by their own names."""
    if groups is None and ("example" not in rows.columns or rows.metadata(["example"])["example"].is_null().all()):
        return Groups.of(pl.Series("row", rows.ids))
    return groups_of(rows, groups)
