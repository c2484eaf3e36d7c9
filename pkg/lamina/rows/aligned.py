"""Two matrices whose rows belong together, read side by side, the rows of a group one after another."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl

from lamina.errors import SchemaError
from lamina.rows.groups import Groups, groups_of, labels_of
from lamina.rows.pairing import pair_rows
from lamina.rows.rows import Rows
from lamina.rows.stream import Stream, is_stream, together

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class Block:
    """Rows of both matrices.

    Attributes:
        x: [k, dx].
        y: [k, dy].
        codes: int64 [k], the number of each row's group.
    """

    x: torch.Tensor
    y: torch.Tensor
    codes: np.ndarray


@dataclass(frozen=True)
class Aligned:
    """Paired rows of x and y.

    Attributes:
        x: Rows, or a stream of blocks.
        y: The same.
        groups: The groups of the pairs, in the order in which they are read.
        dropped: How many rows were left out, by reason.
        refuses: Whether a row that is not finite is an error, instead of left out.
    """

    x: Rows | Stream
    y: Rows | Stream
    groups: Groups
    dropped: dict[str, int]
    refuses: bool
    _at: tuple[np.ndarray, np.ndarray] | None
    _kept: np.ndarray | None = None

    def __len__(self) -> int:
        return self.groups.codes.size

    @property
    def gathers(self) -> bool:
        """Whether rows can be read in any order, not only from first to last."""
        return self._at is not None

    @property
    def places(self) -> np.ndarray:
        """int64, which row of x is read at each place."""
        assert self._at is not None, "a stream cannot be read in any order"
        return self._at[0]

    def blocks(self, size: int, wanted: np.ndarray | None = None) -> Iterator[Block]:
        """The rows in order, at most `size` at a time; with a mask over groups only those of the wanted groups."""
        if self._at is None:
            yield from self._streamed(size, wanted)
            return
        codes = self.groups.codes
        chosen = np.arange(codes.size) if wanted is None else np.flatnonzero(wanted[codes])
        for start in range(0, chosen.size, size):
            yield self.gather(chosen[start : start + size])

    def gather(self, rows: np.ndarray) -> Block:
        """The rows at these places."""
        assert self._at is not None, "a stream cannot be read in any order"
        assert isinstance(self.x, Rows)
        assert isinstance(self.y, Rows)
        x = self.x.gather(_neighbors(self._at[0][rows]))
        same = self.x is self.y and self._at[0] is self._at[1]
        return Block(x, x if same else self.y.gather(_neighbors(self._at[1][rows])), self.groups.codes[rows])

    def narrowed(self) -> tuple[Rows, Rows]:
        """The rows of x and of y in the order in which they are read, which pair by order."""
        assert self._at is not None, "a stream cannot be read in any order"
        assert isinstance(self.x, Rows)
        assert isinstance(self.y, Rows)
        return self.x[self._at[0]], self.y[self._at[1]]

    def _streamed(self, size: int, wanted: np.ndarray | None) -> Iterator[Block]:
        import torch

        first, seen = 0, 0
        for x, y in together(self.x, self.y, size):
            rows = np.arange(first, first + len(x))
            first += len(x)
            if self._kept is not None:
                inside = self._kept[rows]
                x, y, rows = x[torch.from_numpy(inside)], y[torch.from_numpy(inside)], rows[inside]
            codes = self.groups.codes[seen : seen + rows.size]
            seen += rows.size
            if wanted is not None:
                inside = wanted[codes]
                x, y, codes = x[torch.from_numpy(inside)], y[torch.from_numpy(inside)], codes[inside]
            if codes.size:
                yield Block(x, y, codes)

    def keep(self, rows: np.ndarray, reason: str) -> Aligned:
        """Leave out the rows where the mask is False, and count them under `reason`."""
        count = int(rows.size - np.count_nonzero(rows))
        if not count:
            return self
        at = self._at and (self._at[0][rows], self._at[1][rows])
        if at and self._at and self._at[0] is self._at[1]:
            at = (at[0], at[0])
        dropped = self.dropped | {reason: count}
        return replace(self, groups=self.groups.take(rows), dropped=dropped, _at=at, _kept=None if at else rows)


def align(x: Any, y: Any, *, groups: Any = None, pair: str | None = None, non_finite: str = "drop") -> Aligned:
    """Pair the rows of x and y, and order them so that each group's rows stand together.

    Args:
        x: `Rows`, a tensor or array [n, d], or an iterable of blocks [k, d] that can be read more than once.
        y: The same.
        groups: As in `lamina.rows.groups.groups_of`; for iterables a label a row, or None.
        pair: As in `lamina.rows.pairing.pair_rows`.
        non_finite: `"drop"` or `"refuse"`: what `lamina.rows.centering.centered` does with rows that are not finite.

    Raises:
        SchemaError: Rows that do not pair, labels that do not fit, or an iterable that divides a group.
    """
    if non_finite not in ("drop", "refuse"):
        raise SchemaError(f"non_finite={non_finite!r}", hint="it is 'drop' or 'refuse'")
    refuses = non_finite == "refuse"
    if is_stream(x) or is_stream(y):
        return _stream(x, y, groups, pair, refuses)
    same = x is y
    x = _on_the_cpu(Rows.of(x))
    y = x if same else _on_the_cpu(Rows.of(y))
    in_x, in_y, dropped = pair_rows(x, y, pair)
    whole = groups_of(x, groups)
    here = whole if in_x.size == len(x) else whole.take(in_x)
    if not _contiguous(here):
        order = np.argsort(here.codes, kind="stable")
        here = replace(here, codes=here.codes[order])
        in_x, in_y = in_x[order], in_y[order]
    return Aligned(x, y, here, dropped, refuses, (in_x, in_x if same else in_y))


def _stream(x: Any, y: Any, groups: Any, pair: str | None, refuses: bool) -> Aligned:
    if pair not in (None, "order"):
        raise SchemaError(f"pair={pair!r}", hint="iterables pair by order")
    first = Stream.of(x)
    second = first if x is y else Stream.of(y)
    if isinstance(groups, str):
        raise SchemaError(f"an iterable has no column {groups!r}", hint="give groups= a label for each row")
    n = first.count()
    if second is not first and (m := second.count()) != n:
        raise SchemaError(f"x has {n} rows and y has {m}, which pair by order", hint="give the same rows to both")
    numbers = Groups.of(pl.Series("row", np.arange(n)) if groups is None else labels_of(groups, n))
    if not _contiguous(numbers):
        raise SchemaError("the iterable divides a group", hint="give a group's rows one after another, or use Rows")
    return Aligned(first, second, numbers, {}, refuses, None)


def _contiguous(groups: Groups) -> bool:
    return int(np.count_nonzero(np.diff(groups.codes))) == max(len(groups) - 1, 0)


def _on_the_cpu(rows: Rows) -> Rows:
    """Return rows that come to another device as rows that come to the CPU, where measures compute."""
    return rows if rows.device.type == "cpu" else rows.to("cpu")


def _neighbors(rows: np.ndarray) -> np.ndarray | range:
    """Return rows that stand side by side as a range, which is read as a whole."""
    if rows.size and rows[-1] - rows[0] == rows.size - 1 and (np.diff(rows) == 1).all():
        return range(int(rows[0]), int(rows[-1]) + 1)
    return rows
