"""The cells that are not kept, computed here or elsewhere."""

from __future__ import annotations

import sys
from collections.abc import Generator, Sequence
from contextlib import closing
from dataclasses import replace

from lamina.errors import LaminaError
from lamina.measures import Estimate
from lamina.sweeps.cells import Cell
from lamina.sweeps.division import Piece, divided, together
from lamina.sweeps.executors import Executor, Task, execute
from lamina.sweeps.taking import Taken
from lamina.sweeps.threads import torch_threads, usual_threads


def computed(
    called: Taken, cells: Sequence[Cell], executor: Executor | None, progress: bool
) -> Generator[tuple[int, Estimate | Exception], None, None]:
    """Yield the number of each cell, and its estimate or why there is none.

    Raises:
        Exception: What a measure raises that is not ours; what was yielded before stands.
    """
    pieces = divided(called, cells)
    plan = together(pieces)
    if progress and plan is not None:
        sys.stderr.write(f"{called.name}, {len(cells):,} cells by {plan}\n")
    outcomes = _here(pieces) if executor is None else _elsewhere(pieces, executor)
    with closing(outcomes):
        for number, outcome in outcomes:
            yield number, _completed(outcome, called) if isinstance(outcome, Estimate) else outcome


def _here(pieces: Sequence[Piece]) -> Generator[tuple[int, Estimate | LaminaError], None, None]:
    """Compute in this process: what a piece has found is not lost if it is interrupted."""
    with torch_threads(usual_threads()):
        for piece in pieces:
            yield from piece.outcomes()


def _elsewhere(pieces: Sequence[Piece], executor: Executor) -> Generator[tuple[int, Estimate | Exception], None, None]:
    tasks = [Task(Piece.collected, (piece,), str(piece)) for piece in pieces]
    with closing(execute(tasks, executor)) as outcomes:
        for index, outcome in outcomes:
            if outcome.error is None:
                yield from outcome.value
            else:
                yield from ((number, outcome.error) for number, _ in pieces[index].cells)


def _completed(estimate: Estimate, called: Taken) -> Estimate:
    """Add options that were given as numbers and texts and of which the measure says nothing."""
    told = {name: value for name, value in called.options.items() if isinstance(value, bool | int | float | str)}
    told.pop("seed", None)
    return replace(estimate, options={**told, **estimate.options})
