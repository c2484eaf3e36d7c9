"""Altair charts of frames: one file a family, each a function from a Polars frame to a chart."""

from __future__ import annotations

from lamina.plot.curves import curves
from lamina.plot.heatmap import heatmap
from lamina.plot.intervals import intervals
from lamina.plot.planes import planes

__all__ = ["curves", "heatmap", "intervals", "planes"]
