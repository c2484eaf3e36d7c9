"""What did not find a partner when two matrices were paired."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import polars as pl

from lamina.rows.pairing import pair_rows

if TYPE_CHECKING:
    from lamina.rows.rows import Rows


def unpaired(x: Rows, y: Rows) -> pl.DataFrame:
    """Return one row for each row of x and of y that has no partner: what `Estimate.dropped` counts, by name.

    Args:
        x: Rows.
        y: Rows, paired with those of x as every measure pairs them.

    Returns:
        side ("x" or "y"), row (its name), and where both have them example and position; in stored order.

    Raises:
        SchemaError: As a measure would: nothing pairs, or keys occur twice.

    Example:
        >>> import torch
        >>> from lamina.rows import Rows, unpaired
        >>> unpaired(Rows.of(torch.zeros(3, 2)), Rows.of(torch.ones(3, 5))).height
        0
    """
    sides = []
    columns = ["row", *(name for name in ("example", "position") if name in x.columns and name in y.columns)]
    in_x, in_y, _ = pair_rows(x, y)
    for side, rows, paired in (("x", x, in_x), ("y", y, in_y)):
        left = np.ones(len(rows), bool)
        left[paired] = False
        found = rows.metadata(columns).filter(pl.Series(left))
        sides.append(found.select(pl.lit(side).alias("side"), pl.all()))
    return pl.concat(sides)
