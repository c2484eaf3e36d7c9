"""Altair charts of frames: one file a family, each a function from a Polars frame to a chart."""

from __future__ import annotations

from lamina.plot.curves import curves
from lamina.plot.heatmap import heatmap
from lamina.plot.intervals import intervals
from lamina.plot.mds import mds
from lamina.plot.scaling import scaling
from lamina.plot.scatter import scatter
from lamina.plot.spectra import spectra

__all__ = ["curves", "heatmap", "intervals", "mds", "scaling", "scatter", "spectra"]
