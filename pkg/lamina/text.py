"""Numbers, sizes, cells and settings as people read them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from datetime import datetime
from typing import Any


def cell(value: object) -> str:
    """Return a table cell: four significant digits for a float, thousands apart, nothing for null."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return number(value)
    if isinstance(value, datetime):
        return value.strftime("%Y-%m-%d %H:%M:%S")
    return str(value)


def number(value: float) -> str:
    """Return a float with four significant digits.

    Example:
        >>> number(1234.5), number(0.00012345), number(0.5), number(float("nan"))
        ('1,234', '0.0001234', '0.5', 'nan')
    """
    if not math.isfinite(value):
        return str(value)
    if value and (abs(value) >= 1e7 or abs(value) < 1e-4):
        return f"{value:.3e}"
    digits = 4 if value == 0 else max(0, 3 - math.floor(math.log10(abs(value))))
    text = f"{value:,.{digits}f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def size(count: float) -> str:
    """Return a number of bytes in decimal units.

    Example:
        >>> size(999), size(1_234_567)
        ('999 B', '1.23 MB')
    """
    value, units = float(count), ["B", "kB", "MB", "GB", "TB", "PB"]
    while value >= 999.5 and len(units) > 1:
        value /= 1000
        units.pop(0)
    return f"{value:.0f} B" if units[0] == "B" else f"{value:.3g} {units[0]}"


def settings_of(config: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """Return nested settings under dotted names, as text.

    Example:
        >>> settings_of({"optimizer": {"name": "adam", "lr": 1e-3}, "steps": 500})
        {'optimizer.name': 'adam', 'optimizer.lr': '0.001', 'steps': '500'}
    """
    settings: dict[str, str] = {}
    for name, value in config.items():
        if isinstance(value, Mapping) and value:
            settings |= settings_of(value, f"{prefix}{name}.")
        else:
            settings[f"{prefix}{name}"] = f"{value:g}" if isinstance(value, float) else str(value)
    return settings
