"""Which groups a term of a predicate can pass over, by what their records say of a column.

No expression is translated. A term is compared with what Polars builds from its own parts (`operand < literal`, …);
where it is equal, Polars evaluates it, or one of its comparisons, on the bounds of each group. Everything that is not
recognized passes over nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import polars as pl

from lamina.runs.scan.predicates import conjuncts

Zones = Callable[[str], pl.DataFrame]
"""What lies in a column of each group: least, greatest, nulls, nans, rows; null where that is not known."""

_CLOSED = ("both", "left", "right", "none")


def may_pass(term: pl.Expr, zones: Zones) -> pl.Series | None:
    """Group by group, whether some row may satisfy the term; None where the term tells nothing."""
    names = term.meta.root_names()
    if not names:
        return None
    try:
        either = _either(term, zones)
        if either is not None:
            return either
        frames = {name: zones(name) for name in set(names)}
        # every expression that Polars hands to a source takes rows one by one: one row decides for its equals
        constant = pl.select(pl.all_horizontal(_is_constant(frame) for frame in frames.values())).to_series()
        result = pl.Series([True]).new_from_index(0, constant.len())
        if len(frames) == 1:
            ((name, frame),) = frames.items()
            bounded = _bounded(term, name, frame)
            result = result if bounded is None else bounded
        if constant.any():
            at = constant.arg_true()
            rows = pl.DataFrame([frame["least"].gather(at).alias(name) for name, frame in frames.items()])
            result = result.scatter(at, _holds(term, rows) & result.gather(at))
    except (pl.exceptions.PolarsError, TypeError, ValueError):
        return None
    return None if result.all() else result


def _either(term: pl.Expr, zones: Zones) -> pl.Series | None:
    parts = term.meta.pop()
    if len(parts) == 2 and any((a | b).meta.eq(term) for a, b in (parts, parts[::-1])):
        sides = [_all(conjuncts(part), zones) for part in parts]
        if sides[0] is not None and sides[1] is not None:
            return sides[0] | sides[1]
    return None


def _all(terms: Sequence[pl.Expr], zones: Zones) -> pl.Series | None:
    known = [result for term in terms if (result := may_pass(term, zones)) is not None]
    return pl.select(pl.all_horizontal(known)).to_series() if known else None


def _is_constant(frame: pl.DataFrame) -> pl.Series:
    """Groups in which the column has one value, or none at all. Zero is left out: it has two signs."""
    least, greatest = frame["least"], frame["greatest"]
    same = (least == greatest) & (frame["nulls"] == 0) & (frame["nans"] == 0)
    if least.dtype.is_float():
        same &= least != 0
    return (same | (frame["nulls"] == frame["rows"])).fill_null(False)


def _holds(term: pl.Expr, rows: pl.DataFrame) -> pl.Series:
    result = rows.select(term.alias("holds")).to_series()
    if result.dtype != pl.Boolean or result.len() != rows.height:
        raise ValueError("not one truth value a row")
    return result.fill_null(False)


def _bounded(term: pl.Expr, name: str, frame: pl.DataFrame) -> pl.Series | None:
    """The answer of a recognized term for values between the bounds, and for nulls and NaN."""
    ordinary = _between_bounds(term, name, frame)
    if ordinary is None:
        return None
    kind = frame["least"].dtype
    # where there are values but no bounds (or not both), nothing is known
    some = (frame["nulls"] + frame["nans"] < frame["rows"]).fill_null(True)
    known = frame["least"].is_not_null() & frame["greatest"].is_not_null()
    result = some & (ordinary | ~known)
    special = pl.DataFrame({name: pl.Series([None, float("nan") if kind.is_float() else None], dtype=kind)})
    of_null, of_nan = _holds(term, special)
    if of_null:
        result |= (frame["nulls"] > 0).fill_null(True)
    if of_nan and kind.is_float():
        result |= (frame["nans"] > 0).fill_null(True)
    return result


def _between_bounds(term: pl.Expr, name: str, frame: pl.DataFrame) -> pl.Series | None:
    column = pl.col(name)
    least = pl.DataFrame([frame["least"].alias(name)])
    greatest = pl.DataFrame([frame["greatest"].alias(name)])
    if any(test.meta.eq(term) for test in (column.is_null(), column.is_nan())):
        return frame["least"].is_null() & False
    if any(test.meta.eq(term) for test in (column.is_not_null(), column.is_not_nan())):
        return frame["least"].is_null() | True
    if term.meta.eq(column):
        return _holds(term, greatest)
    if term.meta.eq(~column):
        return _holds(term, least)
    parts = term.meta.pop()[::-1]
    if len(parts) == 3 and _ascends(parts[0], name) and all(map(_is_value, parts[1:])):
        operand, low, high = parts
        if any(operand.is_between(low, high, closed=closed).meta.eq(term) for closed in _CLOSED):
            return _holds(operand >= low, greatest) & _holds(operand <= high, least)
    if len(parts) != 2:
        return None
    if any(column.is_in(parts[1], nulls_equal=equal).meta.eq(term) for equal in (False, True)):
        return _any_between(parts[1], frame) if parts[0].meta.eq(column) else None
    for operand, value in (parts, parts[::-1]):
        if not (_ascends(operand, name) and _is_value(value)):
            continue
        same = operand is parts[0]
        if term.meta.eq(operand == value if same else value == operand):
            return _holds(operand <= value, least) & _holds(operand >= value, greatest)
        if term.meta.eq(operand != value if same else value != operand):
            return (frame["least"] != frame["greatest"]) | _holds(term, least)
        below = (operand < value, operand <= value) if same else (value > operand, value >= operand)
        if any(test.meta.eq(term) for test in below):
            return _holds(term, least)
        above = (operand > value, operand >= value) if same else (value < operand, value <= operand)
        if any(test.meta.eq(term) for test in above):
            return _holds(term, greatest)
    return None


def _ascends(operand: pl.Expr, name: str) -> bool:
    """Whether the operand is the column, or its cast to float: neither puts a greater value below a smaller one."""
    column = pl.col(name)
    casts = (column.cast(pl.Float64, strict=strict) for strict in (True, False))
    return operand.meta.eq(column) or any(operand.meta.eq(cast) for cast in casts)


def _is_value(value: pl.Expr) -> bool:
    return value.meta.is_literal() and pl.select(value).height == 1


def _any_between(collection: pl.Expr, frame: pl.DataFrame) -> pl.Series | None:
    """Whether some element of a literal collection lies between the bounds."""
    values = pl.select(collection).to_series()
    if isinstance(values.dtype, pl.List):
        values = values.explode(empty_as_null=False) if values.len() == 1 else values
    least, greatest = frame["least"], frame["greatest"]
    if values.dtype != least.dtype or not collection.meta.is_literal():
        return None
    values = values.drop_nulls()
    if values.dtype.is_float():
        # without a sign at zero, so that one zero is found as the other
        values, least, greatest = (series + 0.0 for series in (values.drop_nans(), least, greatest))
    values = values.unique().sort()
    known = least.is_not_null() & greatest.is_not_null()
    if values.is_empty() or not known.any():
        return known & False
    from_here = values.search_sorted(least.fill_null(values[0]), side="left")
    to_here = values.search_sorted(greatest.fill_null(values[0]), side="right")
    return known & (pl.Series(to_here) > pl.Series(from_here))
