"""Pages of pictures about runs."""

from __future__ import annotations

from lamina.report.build import report

__all__ = ["report"]
