"""What measures have in common: the estimate that they return, and its error."""

from __future__ import annotations

from lamina.measures.estimate import Estimate
from lamina.measures.jackknife import Replicates

__all__ = ["Estimate", "Replicates"]
