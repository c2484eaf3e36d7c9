"""Measures that count how often they are asked."""

from __future__ import annotations

from typing import Any

import torch

from lamina.measures import Estimate
from lamina.rows import Rows


class Calls:
    """How often."""

    def __init__(self) -> None:
        self.count = 0

    def since(self) -> int:
        found, self.count = self.count, 0
        return found


CALLS = Calls()


def mean_of(x: Rows, *, power: float = 1.0, groups: Any = None, weights: Any = None) -> Estimate:
    CALLS.count += 1
    block = x.gather(slice(None)).double()
    return Estimate("mean_of", float((block**power).mean()), 0.5, n=len(x), estimator="mean")


def product_of(x: Rows, y: Rows) -> Estimate:
    """Tells which comes first."""
    CALLS.count += 1
    a, b = (rows.gather(slice(None)).double().mean() for rows in (x, y))
    return Estimate("product_of", float(a + 2 * b), 0.1, n=len(x), estimator="mean")


def by_label(x: Rows, labels: Any) -> Estimate:
    """One number a class."""
    CALLS.count += 1
    named = x.labels(labels)
    classes = sorted(named.unique().to_list())
    block = x.gather(slice(None)).double()
    at = torch.tensor(named.to_list())
    values = [float(block[at == one].mean()) for one in classes]
    errors = [float("nan")] * len(values)
    return Estimate("by_label", values, errors, n=len(x), estimator="mean", axes={"class": classes})
