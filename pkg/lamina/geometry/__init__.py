"""The shape of the cloud that rows make."""

from __future__ import annotations

from lamina.geometry.neural_collapse import neural_collapse
from lamina.geometry.twonn import twonn

__all__ = ["neural_collapse", "twonn"]
