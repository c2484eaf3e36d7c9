"""The shortcut of dot products: sums over rows become moments of rows."""

from __future__ import annotations

import torch

from lamina_kernels.gram.paired.groups import by_group
from lamina_kernels.gram.paired.problem import SUMS, Problem
from lamina_kernels.tiles.rows import tiles

_BLOCK = 4096


def cheaper(problem: Problem) -> bool:
    """Return whether both kernels are dot products and moments take fewer operations than all pairs of rows.

    The operations of the moments are in float64 and count twice. Gradients cost as much as the sums again by moments,
    and eight times as much by pairs.
    """
    if not problem.linear:
        return False
    n, m, (dx, dy) = problem.n, problem.m, _widths(problem)
    pairs = n * m * (dx + dy) // (2 if problem.diagonal else 1)
    by_moments = 2 * (dx * dx + dx * dy + dy * dy) * (m + n * problem.n_groups)
    return 2 * by_moments < 9 * pairs if problem.wants_gradients else by_moments < pairs


def hsic_sums(problem: Problem) -> torch.Tensor:
    """Return the five sums, float64 [5, n, n_groups], of dot products without forming one.

    sum_j K_ij L_ij = x_iᵀ (sum_j x'_j y'_jᵀ) y_i, likewise the squares, and sum_j K_ij = x_i · sum_j x'_j. On a
    diagonal block the term of the row itself is subtracted. All in float64, in which the subtraction loses nothing
    that matters.
    """
    sums = problem.zeros()
    order, bounds = torch.arange(problem.m, device=sums.device), [0, problem.m]
    if problem.groups is not None:
        order, _, starts = by_group(problem.groups, problem.n_groups)
        bounds = starts.tolist()
    for group in range(problem.n_groups):
        _add_group(problem, order[bounds[group] : bounds[group + 1]], sums[:, :, group])
    if problem.diagonal:
        _subtract_diagonal(problem, sums)
    return sums


def _add_group(problem: Problem, members: torch.Tensor, sums: torch.Tensor) -> None:
    """Set the sums of all rows, [5, n], over the rows `members`."""
    of_x, of_y = problem.pairs
    dx, dy = _widths(problem)
    cross, square_x, square_y = (sums.new_zeros(*shape) for shape in ((dx, dy), (dx, dx), (dy, dy)))
    total_x, total_y = sums.new_zeros(dx), sums.new_zeros(dy)
    for rows in tiles(len(members), _BLOCK):
        x, y = of_x.y[members[rows]].double(), of_y.y[members[rows]].double()
        cross.addmm_(x.T, y)
        square_x.addmm_(x.T, x)
        square_y.addmm_(y.T, y)
        total_x += x.sum(0)
        total_y += y.sum(0)
    for rows in tiles(problem.n, _BLOCK):
        x, y = of_x.x[rows].double(), of_y.x[rows].double()
        sums[0, rows] = (x @ cross).mul_(y).sum(1)
        sums[1, rows] = x @ total_x
        sums[2, rows] = y @ total_y
        sums[3, rows] = (x @ square_x).mul_(x).sum(1)
        sums[4, rows] = (y @ square_y).mul_(y).sum(1)


def _subtract_diagonal(problem: Problem, sums: torch.Tensor) -> None:
    """Take the pair of each row with itself out of the sum over its own group."""
    for rows in tiles(problem.n, _BLOCK):
        k, l = (t[rows].double().square().sum(1) for t in (problem.of_x.x, problem.of_y.x))  # noqa: E741
        own = torch.zeros_like(k, dtype=torch.long) if problem.groups is None else problem.groups[rows]
        own_terms = torch.stack([k * l, k, l, k * k, l * l])
        sums[:, rows].scatter_add_(2, own.expand(SUMS, -1)[:, :, None], -own_terms[:, :, None])


def _widths(problem: Problem) -> tuple[int, int]:
    """Return the widths of the rows of x and of y."""
    return problem.of_x.x.shape[1], problem.of_y.x.shape[1]
