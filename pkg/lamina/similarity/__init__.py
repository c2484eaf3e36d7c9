"""How alike two representations of the same examples are."""

from __future__ import annotations

from lamina.similarity.cka import cka

__all__ = ["cka"]
