"""How the axes of a tensor become rows.

One and two dimensions are B rows; three are B x T rows with `position` filled; four and more are B rows whose
item has a shape. Sites of one call with other leading shapes form row sets of their own.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from functools import lru_cache
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from lamina.errors import SchemaError
from lamina.runs.buffers import dtype_name, flatten
from lamina.runs.columns import RESERVED_ORDER, as_values, column, constants, is_blank, rank
from lamina.runs.staging import LARGE

if TYPE_CHECKING:
    from lamina._core import Column, Memory
    from lamina.runs.staging import Staging

Site = tuple[str, str, tuple[int, ...], "np.ndarray | Memory"]


class RowSet(NamedTuple):
    """Rows that share their metadata: one append of the store."""

    rows: int
    sites: list[Site]
    columns: list[Column]
    names: np.ndarray | None = None
    """Names of rows that exist, to which the sites are attached; then there are no columns."""


def row_sets(
    sites: Mapping[str, Any], metadata: Mapping[str, Any], mask: Any = None, *, staging: Staging | None = None
) -> list[RowSet]:
    """Splits one append into row sets.

    Args:
        sites: Tensors by site.
        metadata: Columns: a scalar, [B], or [B, T].
        mask: [B] or [B, T]; rows where it is false are dropped.
        staging: Where what cannot be stored as it lies is put in order.

    Raises:
        SchemaError: A tensor without rows, a ragged column, or one that fits no site.
    """
    if mask is None and (columns := constants(metadata)) is not None:
        plain = _plain(sites, columns)
        if plain is not None:
            return [plain]
    leads: dict[tuple[int, ...], list[Site]] = {}
    for name, value in sites.items():
        if not isinstance(name, str):
            raise SchemaError(f"the site {name!r} is a {type(name).__name__}", hint="the names of sites are texts")
        flat = flatten(value, f"site {name!r}", staging)
        if not flat.shape:
            raise SchemaError(f"site {name!r} has no rows: it is a single number", hint="log() takes single numbers")
        lead = flat.shape[:2] if len(flat.shape) == 3 else flat.shape[:1]
        leads.setdefault(lead, []).append((name, flat.dtype, flat.shape[len(lead) :], flat.bytes))
    given = {name: as_values(name, value) for name, value in metadata.items()}
    mask = None if mask is None else _mask(mask)
    _check_fits(given if mask is None else given | {"mask": mask}, leads)
    return [_row_set(lead, members, given, mask, staging) for lead, members in leads.items()]


def _plain(sites: Mapping[str, Any], columns: list[Column]) -> RowSet | None:
    """The one row set of arrays that can be stored as they lie, two dimensions at most; None of any others.

    Most appends are such. Between the steps of a training the caches hold other things, and to fetch the code of the
    general way takes a tenth of a millisecond, as long as to copy a megabyte.
    """
    rows, members = -1, []
    for name, value in sites.items():
        if type(value) is not np.ndarray or type(name) is not str or not value.flags.c_contiguous:
            return None
        shape, dtype = value.shape, dtype_name(value.dtype)
        if dtype is None or not 1 <= len(shape) <= 2 or rows not in (-1, shape[0]):
            return None
        rows = shape[0]
        members.append((name, dtype, shape[1:], value.reshape(-1).view(np.uint8)))
    return RowSet(rows, members, columns)


def attached(sites: Mapping[str, Any], row: Any, *, staging: Staging | None = None) -> list[RowSet]:
    """Sites that are attached to rows that exist, row by row in the order of their names.

    Raises:
        SchemaError: Names that are no integers, or not as many as a site has rows.
    """
    names = row_names(row)
    sets = row_sets(sites, {}, staging=staging)
    for rows, members, _, _ in sets:
        if rows != names.size:
            raise SchemaError(f"site {members[0][0]!r} has {rows} rows, row= names {names.size}")
    return [RowSet(rows, members, [], names.view(np.uint8)) for rows, members, _, _ in sets]


def row_names(row: Any) -> np.ndarray:
    """Names of rows, int64.

    Raises:
        SchemaError: They are no integers.
    """
    names = np.array(row) if isinstance(row, list | tuple) else as_values("row", row)
    if not isinstance(names, np.ndarray) or (names.size and names.dtype.kind not in "iu"):
        raise SchemaError(f"row= is given as {type(row).__name__}", hint="give names of rows, such as run.rows(…).ids")
    return np.ascontiguousarray(names.reshape(-1), dtype=np.int64)


def rows_of(lead: tuple[int, ...], metadata: Mapping[str, Any]) -> RowSet:
    """Rows [B] or [B, T] with metadata, for sites to come.

    Raises:
        SchemaError: A ragged column, or one of another shape.
    """
    given = {name: as_values(name, value) for name, value in metadata.items()}
    _check_fits(given, [lead])
    return _row_set(lead, [], given, None, None)


def _mask(mask: Any) -> Any:
    values = as_values("mask", mask)
    found = np.asarray(values)
    if found.dtype.kind not in "biuf" or not ((found == 0) | (found == 1)).all():
        raise SchemaError(f"mask= holds {found.dtype} other than 0 and 1", hint="give booleans, true for rows to keep")
    return values


def _check_fits(given: Mapping[str, Any], leads: Collection[tuple[int, ...]]) -> None:
    """Every array must have one entry an example, or an example and position, of some site."""
    fitting = {*leads, *(lead[:1] for lead in leads)}
    for name, values in given.items():
        if isinstance(values, np.ndarray) and values.shape not in fitting:
            rows = " or ".join(str(list(lead)) for lead in leads)
            raise SchemaError(f"column {name!r} has the shape {list(values.shape)}, the sites have rows {rows}")


def _row_set(
    lead: tuple[int, ...], sites: list[Site], given: Mapping[str, Any], mask: Any, staging: Staging | None
) -> RowSet:
    spread = {name: _spread(values, lead, name) for name, values in given.items()}
    spread = {name: values for name, values in spread.items() if values is not _OTHER}
    if len(lead) == 2 and "position" not in spread:
        spread["position"] = _few(*lead) if math.prod(lead) <= _FEW else _positions(*lead)
    rows = math.prod(lead)
    keep = _OTHER if mask is None else _spread(mask, lead, "mask")
    if keep is not _OTHER:
        keep = np.broadcast_to(np.asarray(keep, dtype=bool), (rows,))
        spread = {name: values[keep] if isinstance(values, np.ndarray) else values for name, values in spread.items()}
        sites = [(name, dtype, item, _kept(data, keep, staging)) for name, dtype, item, data in sites]
        rows = int(keep.sum())
    names = sorted(spread, key=rank)
    columns = [column(name, spread[name]) for name in names if not is_blank(spread[name])]
    return RowSet(rows, sites, columns)


def _positions(examples: int, positions: int) -> np.ndarray:
    """0, 1, … for each example; nobody writes to it."""
    return np.tile(np.arange(positions, dtype=np.int64), examples)


_FEW = 2**16
_few = lru_cache(maxsize=8)(_positions)  # they are mostly those of the append before

_OTHER = object()  # a column of another row set of the same call


def _spread(values: Any, lead: tuple[int, ...], name: str) -> Any:
    """The values, one a row; scalars stay."""
    if not isinstance(values, np.ndarray):
        return values
    if values.shape == lead:
        return values.reshape(-1)
    if values.shape == lead[:1]:
        return np.repeat(values, lead[1])
    if name in RESERVED_ORDER[:2]:
        raise SchemaError(f"column {name!r} has the shape {list(values.shape)}, a site has rows {list(lead)}")
    return _OTHER


def _kept(data: np.ndarray | Memory, keep: np.ndarray, staging: Staging | None) -> np.ndarray | Memory:
    data = np.asarray(data)
    if staging and data.size and data.nbytes // keep.size * int(keep.sum()) >= LARGE:
        return staging.of_rows(data, keep)
    return np.ascontiguousarray(data.reshape(keep.size, -1)[keep] if keep.size else data).reshape(-1)
