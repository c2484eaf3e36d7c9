"""Frames as plots read them: both sides folded into one, values that are none left out, what differs named."""

from __future__ import annotations

from collections.abc import Sequence

import polars as pl

from lamina.errors import SchemaError

SIDES = ("run", "site", "step")
NUMBERS = ("value", "stderr", "low", "high", "within", "count", "missing", "n", "n_groups", "dropped", "seed", "time")
"""Columns that say something about a value, and nothing about what it is a value of."""
_FIRST = ("measure", "part", "site", "run", "step", "name", "source")
"""The order in which columns that differ are named."""


def read(frame: pl.DataFrame | pl.LazyFrame) -> pl.DataFrame:
    """Return a frame with the columns run_a, site_a, step_a, run_b, site_b, step_b, `value` (f64) and what else it had.

    Columns `run`, `site` and `step` stand for the first side; what a frame does not have is null. Rows whose value is
    null or not finite stay, as nulls.

    Raises:
        SchemaError: It is no frame of Polars, or has no numbers in `value`.
    """
    if not isinstance(frame, pl.DataFrame | pl.LazyFrame):
        raise SchemaError(
            f"a plot takes a frame of Polars, not {type(frame).__name__}", hint="such as lamina.sweep(…) returns"
        )
    frame = frame.lazy().collect()
    if "value" not in frame.columns or not (frame["value"].dtype.is_numeric() or frame["value"].dtype == pl.Null):
        raise SchemaError("the frame has no numbers in a column 'value'", hint=f"it has {', '.join(frame.columns)}")
    value = pl.col("value").cast(pl.Float64)
    frame = frame.with_columns(value=pl.when(value.is_finite()).then(value))
    for side in SIDES:
        a, b = f"{side}_a", f"{side}_b"
        dtype = pl.Int64 if side == "step" else pl.String
        if a not in frame.columns:
            frame = frame.rename({side: a}) if side in frame.columns else frame.with_columns(pl.lit(None).alias(a))
        if b not in frame.columns:
            frame = frame.with_columns(pl.lit(None).alias(b))
        try:
            frame = frame.with_columns(pl.col(a, b).cast(dtype))
        except pl.exceptions.PolarsError as error:
            raise SchemaError(f"{side} is {frame[a].dtype}, not {dtype}") from error
    return frame


def within(frame: pl.DataFrame, side: str) -> bool:
    """Whether the two sides of every row share their run, site or step, or have only one."""
    return not frame.filter(pl.col(f"{side}_a") != pl.col(f"{side}_b")).height


def fold(frame: pl.DataFrame, *sides: str) -> pl.DataFrame:
    """Return the frame with `run`, `site` or `step` in place of their two columns: one name, or `a, b`."""
    for side in sides:
        a, b = pl.col(f"{side}_a"), pl.col(f"{side}_b")
        if not within(frame, side):
            a = pl.when(b.is_null() | (a == b)).then(a.cast(pl.String)).otherwise(pl.format("{}, {}", a, b))
        frame = frame.with_columns(a.alias(side)).drop(f"{side}_a", f"{side}_b")
    return frame


def differing(frame: pl.DataFrame, used: Sequence[str] = ()) -> list[str]:
    """Return the columns in which rows differ beyond those in `used`; none that follows from those before it."""
    names = [name for name in frame.columns if name not in NUMBERS and not frame[name].dtype.is_nested()]
    names.sort(key=lambda name: _FIRST.index(name) if name in _FIRST else len(_FIRST))
    known, found = [name for name in used if name in names], []
    count = frame.select(known).n_unique() if known else 1
    for name in names:
        if name in known or frame[name].n_unique() == 1:
            continue
        if (finer := frame.select(*known, name).n_unique()) > count:
            known, found, count = [*known, name], [*found, name], finer
    return found


def alone(frame: pl.DataFrame, used: Sequence[str], *, hint: str = "filter the frame to one of them") -> None:
    """Raise SchemaError if rows differ in more than `used`, or a value occurs twice."""
    for name in differing(frame, used):
        values = frame[name].unique(maintain_order=True).to_list()
        shown = ", ".join(map(str, values[:4])) + (", …" if len(values) > 4 else "")
        raise SchemaError(f"the frame differs in {name} too: {shown}", hint=hint)
    if used and frame.height and frame.select(used).is_duplicated().any():
        twice = frame.filter(frame.select(used).is_duplicated()).select(used).row(0, named=True)
        place = ", ".join(f"{name} {value}" for name, value in twice.items() if value is not None)
        raise SchemaError(
            f"there are several values{' at ' + place if place else ''}", hint="keep a column that tells them apart"
        )


def joined(frame: pl.DataFrame, names: Sequence[str]) -> pl.Expr:
    """Return a text column of the columns `names`, ` · ` between them."""
    for name in names:
        if name not in frame.columns:
            raise SchemaError(f"the frame has no column {name!r}", hint=f"it has {', '.join(frame.columns)}")
    texts = [pl.col(name).cast(pl.String) for name in names]
    return pl.concat_str(texts, separator=" · ", ignore_nulls=True) if texts else pl.lit("")


def told_apart(frame: pl.DataFrame, by: str | Sequence[str] | None, x: str) -> tuple[pl.DataFrame, list[str]]:
    """Return the frame with a text column `series`, a line of its own for each, and the columns that make it.

    Args:
        frame: A frame of `read` whose `run` may still have two sides; they are folded.
        by: Columns; None takes all that differ beyond `x`, and beyond the run where values are of one run each. Where
            it names the run, runs are no longer averaged.
        x: The column along which lines go.
    """
    averaged = "run_a" not in frame.columns or within(frame, "run")
    frame = fold(frame, *(side for side in SIDES if f"{side}_a" in frame.columns))
    names = [by] if isinstance(by, str) else list(by or [])
    if by is None:
        names = differing(frame, [x, "run"] if averaged else [x])
    return frame.with_columns(series=joined(frame, names), run=pl.lit("") if "run" in names else pl.col("run")), names
