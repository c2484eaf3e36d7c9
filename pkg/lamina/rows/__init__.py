"""Rows: an (n, d) matrix in blocks, which every analysis takes."""

from __future__ import annotations

from lamina.rows.batches import Batches
from lamina.rows.mixing import Mixing, mixing
from lamina.rows.rows import Rows
from lamina.rows.unpaired import unpaired

__all__ = ["Batches", "Mixing", "Rows", "mixing", "unpaired"]
