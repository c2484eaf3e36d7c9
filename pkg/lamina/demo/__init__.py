"""The demo: small networks that learn to read digits, with recording on, a report, and three questions."""

from __future__ import annotations

from lamina.demo.run import demo

__all__ = ["demo"]
