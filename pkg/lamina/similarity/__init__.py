"""How alike two representations of the same examples are."""

from __future__ import annotations

from lamina.similarity.cka import cka
from lamina.similarity.distance_correlation import distance_correlation
from lamina.similarity.hsic import hsic
from lamina.similarity.linear_regression import linear_regression

__all__ = ["cka", "distance_correlation", "hsic", "linear_regression"]
