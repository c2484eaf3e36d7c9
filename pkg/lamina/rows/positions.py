"""Positions of rows, as they may be asked for: a slice, a mask, or integers of any kind."""

from __future__ import annotations

from typing import Any

import numpy as np

from lamina.errors import SchemaError

_INT64 = np.dtype(np.int64)
_SOME = "give a slice, a mask or positions; gather([i]) reads a row, gather(slice(None)) all of them"


def chosen(index: Any, n: int, source_checks: bool) -> np.ndarray | range:
    """The positions, in 0 to n - 1, of `rows[index]`: of a slice, a mask of n booleans, or positions in any order.

    Raises:
        IndexError: A position is outside.
        SchemaError: A mask of another length, or positions that are no integers.
    """
    if isinstance(index, slice):
        span = range(*index.indices(n))
        return span if span.step == 1 else np.arange(span.start, span.stop, span.step)
    given = _as_array(index)
    if given.dtype == np.bool_:
        if given.shape != (n,):
            raise SchemaError(f"a mask of {list(given.shape)} for {n} rows", hint="give one boolean a row")
        return np.flatnonzero(given)
    if given.ndim != 1:
        raise SchemaError(f"rows[{index!r}]", hint=_SOME)
    return checked(given, n, source_checks)


def checked(indices: Any, n: int, source_checks: bool) -> np.ndarray | range:
    """Integers as positions in 0 to n - 1; neighbors that are given as a slice or range stay a range.

    Args:
        indices: A tensor, array, list, range or slice.
        n: How many rows there are.
        source_checks: Whether what reads them looks itself that each of an array is there.

    Raises:
        IndexError: A position is outside.
        SchemaError: They are no integers, or have several dimensions.
    """
    if isinstance(indices, slice):
        indices = range(*indices.indices(n))
    if isinstance(indices, range) and indices.step == 1:
        positions, least, greatest = indices, indices.start, indices.stop - 1
    elif type(indices) is np.ndarray and indices.dtype == _INT64 and indices.ndim == 1 and source_checks:
        return indices
    else:
        given = _as_array(indices)
        if given.size and given.dtype.kind not in "iu":
            raise SchemaError(
                f"the indices are {given.dtype}", hint="give positions; numpy.flatnonzero makes them of a mask"
            )
        if given.ndim > 1:
            raise SchemaError(
                f"the indices have the shape {list(given.shape)}",
                hint="give a list of positions; gather(indices.reshape(-1)) reads them one after the other",
            )
        positions = given.astype(np.int64, copy=False).reshape(-1)
        least, greatest = (positions.min(), positions.max()) if positions.size else (0, -1)
    if len(positions) and (least < 0 or greatest >= n):
        raise IndexError(f"index {least if least < 0 else greatest} is outside of 0 to {n - 1}")
    return positions


def _as_array(indices: Any) -> np.ndarray:
    try:
        return np.asarray(indices)
    except ValueError as error:
        raise SchemaError(f"the indices are no array: {error}", hint="give a list of positions") from None
