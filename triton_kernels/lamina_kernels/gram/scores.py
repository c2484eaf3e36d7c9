"""Tiles of the matrix of a kernel function, in plain torch."""

from __future__ import annotations

import torch

from lamina_kernels.gram.kernels import RBF, Distance, Kernel

Index = slice | torch.Tensor


class Scores:
    """The matrix k(x_i, y_j), of which one tile at a time is in memory.

    The whole exponent of an RBF kernel is one matrix product: with c = 1 / (2 bandwidth²), the rows
    (2c x, -c|x|², 1) and (y, 1, -c|y|²) multiply to -c|x - y|². Both sets of rows are first moved by the mean of
    y, in which distances do not change: the product then cancels less. A distance is its root, with c = 1.

    Args:
        kernel: The kernel function.
        x: [n, d], the rows of the matrix.
        y: [m, d], its columns.
        block: The most rows and columns of a tile.
        dtype: What the rows are converted to before they are multiplied, a tile at a time.
    """

    def __init__(self, kernel: Kernel, x: torch.Tensor, y: torch.Tensor, block: int, dtype: torch.dtype) -> None:
        self._kernel, self._x, self._y, self._dtype = kernel, x, y, dtype
        self._memory = torch.empty(min(block, len(x)) * min(block, len(y)), dtype=dtype, device=x.device)
        self._scale = kernel.scale if isinstance(kernel, RBF) else 1.0 if isinstance(kernel, Distance) else None
        self._shift = None if self._scale is None else middle(y).to(dtype)
        self._left = None

    def turn_to(self, rows: Index) -> None:
        """Make the tiles that follow tiles of these rows of x."""
        x = self._rows(self._x, rows)
        if (scale := self._scale) is not None:
            x = torch.cat([2 * scale * x, -scale * _squares(x), torch.ones_like(x[:, :1])], 1)
        self._left = x

    def tile(self, columns: Index) -> torch.Tensor:
        """Return k(x_i, y_j) of the rows turned to and these rows of y, in memory that the next call takes back."""
        y = self._rows(self._y, columns)
        if self._left is None:
            raise RuntimeError("a tile was asked for before its rows")
        if self._scale is not None:
            y = torch.cat([y, torch.ones_like(y[:, :1]), -self._scale * _squares(y)], 1)
        out = self._memory[: len(self._left) * len(y)].view(len(self._left), len(y))
        torch.mm(self._left, y.T, out=out)
        if isinstance(self._kernel, Distance):
            return out.neg_().clamp_min_(0).sqrt_().neg_()
        return out.clamp_max_(0).exp_() if isinstance(self._kernel, RBF) else out

    def _rows(self, rows: torch.Tensor, index: Index) -> torch.Tensor:
        taken = rows[index].to(self._dtype)
        return taken if self._shift is None else taken - self._shift


def middle(rows: torch.Tensor) -> torch.Tensor:
    """Return the mean of the rows in float64, [d]; 0 where it is not finite, so that one broken row breaks no other."""
    return rows.mean(0, dtype=torch.float64).nan_to_num(0, 0, 0)


def _squares(rows: torch.Tensor) -> torch.Tensor:
    """Return the squared norm of each row, [b, 1]."""
    return rows.square().sum(1, keepdim=True)
