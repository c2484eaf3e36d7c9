"""What the pictures of heads measure: means of what was recorded of each head, with their errors."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from lamina.errors import SchemaError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from lamina.measures import Estimate
    from lamina.rows import Rows


def heads_mean(x: Any, *, groups: Any = None) -> Estimate:
    """The mean over rows of each head, with its error by group."""
    rows, values = _read(x)
    return _ratio(rows, values, np.ones_like(values), groups, "mean over rows")


def heads_share(x: Any, labels: Any, *, of: str, groups: Any = None) -> Estimate:
    """What rows with the label `of` receive of what all rows do, for each head, with its error by group.

    As every query gives 1 in all, it is the mean weight of a query on those rows.
    """
    rows, values = _read(x)
    chosen = (rows.labels(labels) == of).to_numpy()
    return _ratio(rows, values * chosen[:, None], values, groups, "ratio of sums over rows", of=of)


def _read(x: Any) -> tuple[Rows, NDArray[np.float64]]:
    import torch

    from lamina.rows import Rows

    rows = Rows.of(x)
    return rows, torch.cat([block.double() for block in rows.blocks(8192)]).numpy()


def _ratio(
    rows: Rows, above: NDArray[np.float64], below: NDArray[np.float64], groups: Any, estimator: str, **options: str
) -> Estimate:
    """Return the ratio of two sums over rows [n, heads]; rows that are not finite are left out."""
    from lamina.measures import Estimate, Replicates
    from lamina.rows.groups import groups_of

    finite = np.flatnonzero(np.isfinite(above).all(1))
    if not finite.size:
        raise SchemaError("no row is finite")
    known = groups_of(rows, groups).take(finite)
    buckets, keys = known.buckets()
    of_rows = buckets[known.codes]
    sums = np.zeros((len(keys), 2, above.shape[1]))
    np.add.at(sums, of_rows, np.stack([above[finite], below[finite]], 1))
    sizes = np.bincount(of_rows, minlength=len(keys))
    value, left = Replicates.of_sums(keys, sizes, sums, lambda sums: sums[:, 0] / sums[:, 1])
    return Estimate(
        "heads",
        value,
        left.stderr(value),
        n=finite.size,
        n_groups=len(known),
        dropped={"non_finite": len(rows) - finite.size} if finite.size < len(rows) else {},
        estimator=estimator,
        options=options,
        replicates=left,
        axes={"head": tuple(range(above.shape[1]))},
    )
