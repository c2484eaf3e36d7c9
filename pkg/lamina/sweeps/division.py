"""Cells divided into pieces of work, before it is known where they are computed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass

from lamina.errors import LaminaError
from lamina.measures import Estimate
from lamina.measures.grids import BUDGET, Plan
from lamina.sweeps.cells import Cell, measured
from lamina.sweeps.subjects import Subject
from lamina.sweeps.taking import Taken

_BY_CALLS = "one by one"
"""The name of a plan that has nothing to share."""

Numbered = list[tuple[int, Cell]]


@dataclass(frozen=True)
class Piece:
    """Cells that are computed together.

    Attributes:
        called: The measure.
        cells: Their numbers, and they.
        plan: How a grid computes them; None for a call each.
    """

    called: Taken
    cells: Numbered
    plan: Plan | None = None

    def __str__(self) -> str:
        first = str(self.cells[0][1])
        return first if len(self.cells) == 1 else f"{len(self.cells)} cells, of which the first is {first}"

    def outcomes(self) -> Iterator[tuple[int, Estimate | LaminaError]]:
        """Yield the number of each cell, and its estimate or why there is none.

        Raises:
            Exception: What a measure raises that is not ours.
        """
        left = dict(self.cells)
        # what a grid does not give is left to a call, which says what is wrong with it
        with suppress(LaminaError):
            for number, estimate in self._of_grid():
                del left[number]
                yield number, estimate
        for number, cell in left.items():
            try:
                outcome = measured(self.called.function, cell.subjects, self.called.options)
            except LaminaError as error:
                outcome = error
            yield number, outcome

    def collected(self) -> list[tuple[int, Estimate | LaminaError]]:
        """Return all outcomes at once, as a worker does."""
        return list(self.outcomes())

    def _of_grid(self) -> Iterator[tuple[int, Estimate]]:
        grid = self.called.grid
        if grid is None or self.plan is None:
            return
        subjects, pairs = _numbered(self.cells)
        rows = [subject.rows() for subject in subjects]
        for place, estimate in grid.compute(rows, pairs, budget=BUDGET, **self.called.options):
            yield self.cells[place][0], estimate


def divided(called: Taken, cells: Sequence[Cell]) -> list[Piece]:
    """Return one piece a cell; cells that share subjects are one where the measure's grid is ahead of calls.

    How they are divided follows from the cells alone, so that the bits do not depend on who computes them.
    """
    numbered = list(enumerate(cells))
    grid = called.grid
    if grid is None:
        return [Piece(called, [one]) for one in numbered]
    pieces: list[Piece] = []
    for part in _components(numbered):
        subjects, pairs = _numbered(part)
        planned = None
        if len(part) > 1:
            planned = grid.plan([subject.rows().shape for subject in subjects], pairs, BUDGET, **called.options)
        if planned is None or planned.name == _BY_CALLS:
            pieces += [Piece(called, [one]) for one in part]
        else:
            pieces.append(Piece(called, part, planned))
    return pieces


def together(pieces: Sequence[Piece]) -> Plan | None:
    """Return one plan for all that grids compute; None if they compute nothing."""
    plans = [piece.plan for piece in pieces if piece.plan is not None]
    if not plans:
        return None
    names = " and ".join(dict.fromkeys(plan.name for plan in plans))
    seconds, read = sum(plan.seconds for plan in plans), sum(plan.bytes for plan in plans)
    return Plan(names, seconds, max(plan.passes for plan in plans), read)


def _numbered(cells: Numbered) -> tuple[list[Subject], list[tuple[int, int]]]:
    """Return the subjects of comparisons, each once, and the comparisons as numbers of them."""
    places: dict[Subject, int] = {}
    for _, cell in cells:
        for subject in cell.subjects:
            places.setdefault(subject, len(places))
    return list(places), [(places[cell.subjects[0]], places[cell.subjects[1]]) for _, cell in cells]


def _components(cells: Numbered) -> list[Numbered]:
    """Divide comparisons into those that share no subject."""
    root: dict[Subject, Subject] = {}

    def find(one: Subject) -> Subject:
        while root.setdefault(one, one) is not one:
            root[one] = root[root[one]]
            one = root[one]
        return one

    for _, cell in cells:
        a, b = cell.subjects
        root[find(b)] = find(a)
    found: dict[Subject, Numbered] = {}
    for number, cell in cells:
        found.setdefault(find(cell.subjects[0]), []).append((number, cell))
    return list(found.values())
