"""Sweeps: a measure over runs, sites and steps, cached, as a tidy frame."""

from __future__ import annotations

from lamina.sweeps.estimating import Measured, estimates
from lamina.sweeps.subjects import Subject
from lamina.sweeps.sweeping import sweep

__all__ = ["Measured", "Subject", "estimates", "sweep"]
