"""Estimates as JSON, and back."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import fields
from typing import Any

import numpy as np

from lamina.measures import Estimate, Replicates


def to_text(estimate: Estimate) -> str:
    """Return JSON text of all that an estimate holds. Numbers that are not finite are NaN, Infinity and -Infinity."""
    record: dict[str, Any] = {each.name: getattr(estimate, each.name) for each in fields(estimate)}
    for name in ("value", "stderr"):
        record[name] = np.asarray(getattr(estimate, name)).tolist()
    record["axes"] = {name: list(labels) for name, labels in estimate.axes.items()}
    if (left := record.pop("replicates")) is not None:
        record["replicates"] = [left.keys, left.sizes, left.values]
    return json.dumps(record, default=_plain, separators=(",", ":"))


def of_text(text: str | bytes) -> Estimate:
    """Return the estimate that `to_text` wrote. Of options and labels that JSON has no type for it has the text."""
    record = json.loads(text)
    left = record.pop("replicates", None)
    value, stderr = (np.array(record.pop(name), np.float64) for name in ("value", "stderr"))
    record["axes"] = {name: tuple(labels) for name, labels in record["axes"].items()}
    if left is not None:
        keys, sizes, values = left
        left = Replicates(tuple(keys), tuple(sizes), _tuples(values))
    return Estimate(value=value, stderr=stderr, replicates=left, **record)


def _plain(value: Any) -> Any:
    if isinstance(value, np.ndarray | np.generic):
        return value.tolist()
    if isinstance(value, Mapping):
        return dict(value)
    return str(value)


def _tuples(values: Any) -> Any:
    return tuple(map(_tuples, values)) if isinstance(values, list) else values
