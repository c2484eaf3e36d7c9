"""Pairing: which row of one matrix belongs to which row of another."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import polars as pl

from lamina.errors import SchemaError

if TYPE_CHECKING:
    from lamina.rows.rows import Rows


def pair_rows(x: Rows, y: Rows, pair: str | None = None) -> tuple[np.ndarray, np.ndarray, dict[str, int]]:
    """Pair the rows of two matrices.

    Stored rows pair by their permanent names where they share some (rows of one run and step), else by example, and
    by position where both have positions (two steps, two runs, two seeds). All others pair by order.

    Args:
        x: Rows.
        y: Rows.
        pair: `"order"` pairs the first with the first whatever they are; None as above.

    Returns:
        Positions in x and in y, int64 [pairs], in the order of x; and how many rows were left over, by reason
        (`unpaired_x`, `unpaired_y`; empty if all were paired).

    Raises:
        SchemaError: Different numbers of rows where they pair by order, keys that occur twice, nothing in common, or
            an unknown `pair`.
    """
    if pair not in (None, "order"):
        raise SchemaError(f"pair={pair!r}", hint="it is None or 'order'")
    if pair == "order" or x.stored is None or y.stored is None:
        if len(x) != len(y):
            raise SchemaError(
                f"x has {len(x)} rows and y has {len(y)}, which pair by order",
                hint="stored rows (`run.rows(...)`) pair by example and position",
            )
        return np.arange(len(x)), np.arange(len(y)), {}
    names = ["row"]
    if x.stored != y.stored or np.intersect1d(x.ids, y.ids).size == 0:
        names = _keys(x, y)
    mine, theirs = _frame(x, names, "x"), _frame(y, names, "y")
    both = mine.join(theirs, on=names, how="inner", maintain_order="left")
    if both.is_empty() and (len(x) or len(y)):
        raise SchemaError(
            f"no row of x has the {' and '.join(names)} of a row of y",
            hint="pair='order' pairs them by order",
        )
    left = {"unpaired_x": len(x) - len(both), "unpaired_y": len(y) - len(both)}
    dropped = {reason: count for reason, count in left.items() if count}
    return both["x"].to_numpy(), both["y"].to_numpy(), dropped


def _keys(x: Rows, y: Rows) -> list[str]:
    for side, rows in (("x", x), ("y", y)):
        if "example" not in rows.columns:
            raise SchemaError(f"the rows of {side} name no example to pair by", hint="pair='order' pairs them by order")
    shared = "position" in x.columns and "position" in y.columns
    return ["example", "position"] if shared else ["example"]


def _frame(rows: Rows, names: list[str], side: str) -> pl.DataFrame:
    frame = rows.metadata(names).with_columns(pl.Series(side, np.arange(len(rows))))
    if "position" in names:
        # rows that are no tokens have no position; they pair by example alone
        frame = frame.with_columns(pl.col("position").fill_null(-1))
    twice = frame.group_by(names).len().filter(pl.col("len") > 1).sort("len", descending=True)
    if len(twice):
        key = ", ".join(f"{name} {twice[name][0]}" for name in names)
        raise SchemaError(
            f"{twice['len'][0]} rows of {side} have {key}: they cannot be paired",
            hint="choose one step (step=) and one source (source=), or a call with where=",
        )
    return frame
