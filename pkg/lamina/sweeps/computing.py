"""The cells that are not kept, computed here or elsewhere."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from contextlib import closing
from dataclasses import replace

from lamina.measures import Estimate
from lamina.sweeps.cells import Cell, measured
from lamina.sweeps.executors import Executor, Task, execute
from lamina.sweeps.taking import Taken


def computed(
    called: Taken, cells: Sequence[Cell], executor: Executor | None
) -> Generator[tuple[int, Estimate | Exception], None, None]:
    """Yield the number of each cell, and its estimate or why there is none."""
    tasks = [Task(measured, (called.function, cell.subjects, called.options), str(cell)) for cell in cells]
    with closing(execute(tasks, executor)) as outcomes:
        for number, outcome in outcomes:
            error = outcome.error
            yield number, _completed(outcome.value, called) if error is None else error


def _completed(estimate: Estimate, called: Taken) -> Estimate:
    """Add options that were given as numbers and texts and of which the measure says nothing."""
    told = {name: value for name, value in called.options.items() if isinstance(value, bool | int | float | str)}
    told.pop("seed", None)
    return replace(estimate, options={**told, **estimate.options})
