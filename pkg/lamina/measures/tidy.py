"""Estimates as rows of a frame."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl

if TYPE_CHECKING:
    from lamina.measures.estimate import Estimate

_SCHEMA = {
    "measure": pl.String,
    "options": pl.String,
    "part": pl.String,
    "estimator": pl.String,
    "value": pl.Float64,
    "unit": pl.String,
    "stderr": pl.Float64,
    "n": pl.Int64,
    "n_groups": pl.Int64,
    "dropped": pl.String,
    "seed": pl.Int64,
}


def frame_of(estimate: Estimate) -> pl.DataFrame:
    """Return a row for each number of an estimate."""
    frame = frame_of_all([({}, estimate)], {})
    order = ["measure", "part", "estimator", "options"]
    return frame.select(*order, *(name for name in frame.columns if name not in order))


def frame_of_all(
    estimates: Iterable[tuple[Mapping[str, Any], Estimate]], schema: Mapping[str, type[pl.DataType]]
) -> pl.DataFrame:
    """Return a row for each number of each estimate, with columns of `schema` before them, whose values come along."""
    types = {**schema, **_SCHEMA}
    columns: dict[str, list[Any]] = {name: [] for name in types}
    for beside, estimate in estimates:
        values = np.asarray(estimate.value, np.float64).reshape(-1).tolist()
        alike = {
            **beside,
            "measure": estimate.measure,
            "options": json.dumps(dict(estimate.options), default=str),
            "estimator": estimate.estimator,
            "unit": estimate.unit,
            "n": estimate.n,
            "n_groups": estimate.n_groups,
            "dropped": json.dumps(dict(estimate.dropped)),
            "seed": estimate.seed,
        }
        for name, value in alike.items():
            columns[name].extend([value] * len(values))
        labels = itertools.product(*estimate.axes.values())
        columns["part"].extend("/".join(map(str, one)) or "value" for one in labels)
        columns["value"].extend(values)
        columns["stderr"].extend(np.asarray(estimate.stderr, np.float64).reshape(-1).tolist())
    return pl.DataFrame(columns, schema=types)
