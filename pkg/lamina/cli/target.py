"""What a RUN on the command line may be: a run's folder, a folder of runs, or a pattern."""

from __future__ import annotations

import warnings

import lamina
from lamina.cli.show import warn
from lamina.errors import LaminaError, LaminaWarning
from lamina.paths import path_of
from lamina.runs import Run, Runs


def open_target(target: str) -> Run | Runs:
    """Open what `target` names.

    Raises:
        NotARunError: The path holds no run.
        NotFoundError: The pattern matches no run.
    """
    path = path_of(target)
    with warnings.catch_warnings():
        # They are told in the command line's own form, by `warn_of_problems` or by `lamina info`.
        warnings.simplefilter("ignore", LaminaWarning)
        pattern = any(mark in target for mark in "*?[") and not path.exists()
        folder = not (path / "run.json").exists() and any(path.glob("*/run.json"))
        return lamina.open_runs(path) if pattern or folder else lamina.open(path)


def warn_of_problems(opened: Run | Runs) -> None:
    """Tell on standard error, a line each, what was found damaged and passed over."""
    for run in members(opened):
        for problem in run.problems:
            warn(f"{run.name}: {LaminaError(*problem)}")


def members(opened: Run | Runs) -> list[Run]:
    """Return the runs of what was opened."""
    return [opened] if isinstance(opened, Run) else list(opened)
