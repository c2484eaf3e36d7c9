"""The shape of the cloud that rows make."""

from __future__ import annotations

from lamina.geometry.twonn import twonn

__all__ = ["twonn"]
