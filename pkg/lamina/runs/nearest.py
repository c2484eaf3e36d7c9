"""Hints for a name, a step or a run that is not there."""

from __future__ import annotations

import bisect
import difflib
from collections.abc import Collection, Sequence
from pathlib import Path

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
    near = difflib.get_close_matches(str(name), names, n=_MOST, cutoff=0.6)
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


def nearest_runs(path: Path) -> str | None:
    """Return a hint for a path where there is no run: the runs in it, or those beside it; None if there are none.

    Args:
        path: What was to be opened.

    Example:
        >>> import lamina, pathlib, tempfile
        >>> from lamina.runs.nearest import nearest_runs
        >>> folder = pathlib.Path(tempfile.mkdtemp())
        >>> run = lamina.Run.create(folder / "digits-0")
        >>> nearest_runs(folder / "digit-0")
        'nearest: digits-0'
    """
    if inside := _runs_in(path):
        return f"it holds runs, such as {min(inside)}: lamina.open_runs() opens them all"
    beside = _runs_in(path.parent)
    return nearest_names(path.name, beside) if beside else None


def is_run(path: Path) -> bool:
    """Whether a path holds a run, be it one whose run.json is lost."""
    return (path / "run.json").exists() or (path / "commits").is_dir()


def _runs_in(folder: Path) -> list[str]:
    try:
        return [inner.name for inner in folder.iterdir() if is_run(inner)]
    except OSError:
        return []
