"""Many pairs of rows in one go: how a measure that can do so says it, and what it says beforehand."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from lamina.text import size

if TYPE_CHECKING:
    from lamina.measures.estimate import Estimate

Shape = tuple[int, int]
Pair = tuple[int, int]

BUDGET = 2 * 2**30
"""Bytes that a grid may hold, unless told otherwise."""


@dataclass(frozen=True)
class Plan:
    """How many pairs are going to be computed.

    Attributes:
        name: What is computed, in words.
        seconds: The predicted time on this machine.
        passes: How often the rows are read, at most.
        bytes: What is read, as stored in four bytes a number.
    """

    name: str
    seconds: float
    passes: int
    bytes: int

    def __str__(self) -> str:
        passes = "pass" if self.passes == 1 else "passes"
        return f"{self.name}: {self.passes} {passes} over the rows, {size(self.bytes)}, some {self.seconds:.2g} s"

    __repr__ = __str__


@dataclass(frozen=True)
class Grid:
    """How a measure of two rows computes many pairs in one go.

    Attributes:
        compute: Takes rows, pairs of their numbers, the bytes that it may hold and the measure's options; yields the
            number of a pair and its estimate, in any order. They are those of a call each, but for rounding. A pair
            that it does not yield is left to a call, which computes it or says what is wrong with it.
        plan: Takes the shapes of rows, pairs, the bytes and the options, and says how they will be computed; nothing is
            read.
    """

    compute: Callable[..., Iterator[tuple[int, Estimate]]]
    plan: Callable[..., Plan]
