"""Rows: an (n, d) matrix in blocks, which every analysis takes."""

from __future__ import annotations

from lamina.rows.rows import Rows

__all__ = ["Rows"]
