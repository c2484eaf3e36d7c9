"""The pre-activations of an encoder, tile by tile."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from lamina_kernels.sparse.encoding.problem import Problem, survey
from lamina_kernels.tiles.rows import tiles

ROWS, COLUMNS = 256, 4096
"""Rows and units of a tile, of 4 MB in float32: the more units in one, the fewer are kept for a while."""
TOGETHER = 32
"""Blocks of rows that meet the same units, which are made ready once for all of them."""


class Walk:
    """The tiles of a problem.

    Attributes:
        lost: [n], which rows met a number that is not finite; complete when all tiles were seen.
    """

    def __init__(self, p: Problem, *, positive: bool = False) -> None:
        self._p = p
        self.lost, self._overflows = survey(p)
        self._room = torch.empty(ROWS * COLUMNS, dtype=p.dtype, device=p.x.device)
        self._positive = torch.zeros(p.m if positive else 0, dtype=torch.int64, device=p.x.device)
        self._zeroed = bool(self.lost.any())

    def together(self) -> Iterator[list[slice]]:
        """Yield lists of blocks of rows that are visited together."""
        blocks = list(tiles(self._p.n, ROWS))
        return (blocks[some] for some in tiles(len(blocks), TOGETHER))

    def tiles(self, blocks: list[slice], cuts: Iterator[slice]) -> Iterator[tuple[int, slice, Tensor]]:
        """Yield, for each of some cuts of the units, the tile of each block: its number, the cut, pre-activations.

        A tile is overwritten by the next one. Lost rows hold finite numbers.
        """
        p = self._p
        rows = [p.x[block].to(p.dtype) for block in blocks]
        if self._zeroed:
            rows = [x.masked_fill(self.lost[block, None], 0) for x, block in zip(rows, blocks, strict=True)]
        for cut in cuts:
            weight = p.weight[cut].to(p.dtype).T
            bias = None if p.bias is None else p.bias[cut].to(p.dtype)
            for number, (x, block) in enumerate(zip(rows, blocks, strict=True)):
                tile = self._room[: len(x) * weight.shape[1]].view(len(x), -1)
                if bias is None:
                    torch.mm(x, weight, out=tile)
                else:
                    torch.addmm(bias, x, weight, out=tile)
                if self._overflows or self._zeroed:
                    self.lost[block] |= ~tile.isfinite().all(1)
                    tile.nan_to_num_(0.0, 0.0, 0.0)
                if len(self._positive):
                    self._positive[cut] += (tile > 0).sum(0)
                yield number, cut, tile

    def positive(self) -> Tensor:
        """Return how many rows that are not lost have a positive pre-activation, [M] int64, when all tiles were seen.

        No elements if not asked for.
        """
        if len(self._positive) == 0 or not bool(self.lost.any()):
            return self._positive
        # They are not known before the last tile: what was counted of them is counted once more, and taken off.
        lost = Walk(Problem(self._p.x[self.lost], self._p.weight, self._p.bias), positive=True)
        for blocks in lost.together():
            for _ in lost.tiles(blocks, tiles(self._p.m, COLUMNS)):
                pass
        return self._positive - lost._positive
