"""Estimates as rows of a frame."""

from __future__ import annotations

import itertools
import json
from typing import TYPE_CHECKING

import numpy as np
import polars as pl

if TYPE_CHECKING:
    from lamina.measures.estimate import Estimate


def frame_of(estimate: Estimate) -> pl.DataFrame:
    """Return a row for each number of an estimate."""
    parts = ["/".join(map(str, labels)) for labels in itertools.product(*estimate.axes.values())]
    values = np.asarray(estimate.value, np.float64).reshape(-1).tolist()
    errors = np.asarray(estimate.stderr, np.float64).reshape(-1).tolist()
    rows = [
        {
            "measure": estimate.measure,
            "part": part or "value",
            "estimator": estimate.estimator,
            "options": json.dumps(dict(estimate.options), default=str),
            "value": value,
            "unit": estimate.unit,
            "stderr": stderr,
            "n": estimate.n,
            "n_groups": estimate.n_groups,
            "dropped": json.dumps(dict(estimate.dropped)),
            "seed": estimate.seed,
        }
        for part, value, stderr in zip(parts, values, errors, strict=True)
    ]
    return pl.DataFrame(rows, schema_overrides={"seed": pl.Int64})
