"""What one representation tells of another, in nats."""

from __future__ import annotations

from lamina.information.ksg import ksg

__all__ = ["ksg"]
