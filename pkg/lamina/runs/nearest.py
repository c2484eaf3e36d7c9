"""Hints for a name or a step that is not there."""

from __future__ import annotations

import bisect
import difflib
from collections.abc import Collection, Sequence

_MOST = 3


def nearest_names(name: str, names: Collection[str]) -> str:
    """Return a hint that lists the names most like `name`.

    Args:
        name: The name that was asked for.
        names: The names that exist.

    Returns:
        One line for the hint of an error: the nearest names, or the first ones if none is near.

    Example:
        >>> from lamina.runs.nearest import nearest_names
        >>> nearest_names("blocks.0.mpl.output", ["blocks.0.mlp.output", "loss"])
        'nearest: blocks.0.mlp.output'
    """
    if not names:
        return "there are none"
    near = difflib.get_close_matches(name, names, n=_MOST, cutoff=0.6)
    if near:
        return f"nearest: {', '.join(near)}"
    first = sorted(names)[:_MOST]
    more = len(names) - len(first)
    return f"there are: {', '.join(first)}" + (f" and {more} more" if more else "")


def nearest_steps(step: int, steps: Sequence[int]) -> str:
    """Return a hint that lists the steps around `step`.

    Args:
        step: The step that was asked for.
        steps: The steps that exist, ascending.

    Returns:
        One line for the hint of an error.

    Example:
        >>> from lamina.runs.nearest import nearest_steps
        >>> nearest_steps(5, [0, 1, 2, 4, 8, 16])
        'nearest: 2, 4, 8'
    """
    if not steps:
        return "there are none"
    at = bisect.bisect_left(steps, step)
    around = sorted(steps[max(0, at - _MOST) : at + _MOST], key=lambda other: (abs(other - step), other))[:_MOST]
    return f"nearest: {', '.join(map(str, sorted(around)))}"
