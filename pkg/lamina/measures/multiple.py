"""Many tests at once."""

from __future__ import annotations

from typing import Any

import numpy as np

from lamina.errors import SchemaError


def benjamini_hochberg(p: Any) -> np.ndarray:
    """Return p-values that are adjusted for their number: those below q have a false discovery rate of at most q.

    The adjusted value of the i-th smallest of m is the least of m p_(j) / j over j >= i, at most 1 (Benjamini and
    Hochberg, Journal of the Royal Statistical Society B 57, 1995). The rate holds for independent tests and for tests
    that depend positively on each other.

    Args:
        p: p-values of any shape, from 0 to 1; NaN where there was no test, which stays NaN and does not count.

    Raises:
        SchemaError: A value is not between 0 and 1.

    Example:
        >>> benjamini_hochberg([0.01, 0.04, 0.03, 0.5]).round(4).tolist()
        [0.04, 0.0533, 0.0533, 0.5]
    """
    given = np.asarray(p, np.float64)
    flat = given.reshape(-1)
    tested = ~np.isnan(flat)
    values = flat[tested]
    if ((values < 0) | (values > 1)).any():
        raise SchemaError("a p-value is not between 0 and 1", hint="give p, not a statistic")
    order = np.argsort(values, kind="stable")
    ranked = values[order] * len(values) / np.arange(1, len(values) + 1)
    adjusted = np.empty_like(values)
    adjusted[order] = np.minimum(np.minimum.accumulate(ranked[::-1])[::-1], 1)
    result = np.full(flat.shape, np.nan)
    result[tested] = adjusted
    return result.reshape(given.shape)
