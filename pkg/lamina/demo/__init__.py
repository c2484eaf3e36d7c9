"""The demo: networks that learn to read digits, features of a pretrained one, a report, and three questions."""

from __future__ import annotations

from lamina.demo.run import demo

__all__ = ["demo"]
