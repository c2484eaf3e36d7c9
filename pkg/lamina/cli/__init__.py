"""The command `lamina`: see `lamina --help`."""

from __future__ import annotations

from lamina.cli.app import app, main

__all__ = ["app", "main"]
