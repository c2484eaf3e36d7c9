"""What measures have in common: the estimate that they return, its error, and the register that they stand in."""

from __future__ import annotations

from lamina.measures.estimate import Estimate
from lamina.measures.grids import Grid, Plan
from lamina.measures.jackknife import Replicates
from lamina.measures.multiple import benjamini_hochberg
from lamina.measures.permutation import PermutationTest, permutation_test
from lamina.measures.registry import Measure, list_measures, measure
from lamina.measures.summary import summarize

__all__ = [
    "Estimate",
    "Grid",
    "Measure",
    "PermutationTest",
    "Plan",
    "Replicates",
    "benjamini_hochberg",
    "list_measures",
    "measure",
    "permutation_test",
    "summarize",
]
