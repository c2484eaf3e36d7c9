"""Faults of sums over pairs of rows."""

from __future__ import annotations

from typing import Any

import pytest

from tests.faults.table import fault


@fault
def gram_drops_the_last_tile(patch: pytest.MonkeyPatch) -> None:
    """A loop over whole tiles only: the remainder of the rows is never summed."""
    from lamina_kernels.gram.sums import linear

    patch.setattr(linear, "tiles", lambda rows, block: (slice(s, s + block) for s in range(0, rows - block + 1, block)))


@fault
def gram_sums_in_the_dtype_of_its_input(patch: pytest.MonkeyPatch) -> None:
    """Sums over rows that are rounded to half precision after every tile."""
    from lamina_kernels.gram.sums import linear

    patch.setattr(linear, "accumulation_dtype", lambda dtype: dtype)


@fault
def gram_forgets_y(patch: pytest.MonkeyPatch) -> None:
    """The second set of rows is taken to be the first."""
    from dataclasses import replace

    from lamina_kernels.gram.sums import linear

    whole = linear.product
    patch.setattr(linear, "product", lambda p, v: whole(replace(p, y=p.x[: p.m]), v))


@fault
def rbf_forgets_the_half(patch: pytest.MonkeyPatch) -> None:
    """The bandwidth of an RBF kernel is another one than its formula says."""
    from lamina_kernels.gram import RBF

    patch.setattr(RBF, "scale", property(lambda self: 1 / self.bandwidth**2))


@fault
def rbf_rows_are_not_moved(patch: pytest.MonkeyPatch) -> None:
    """Distances are computed where the rows are, however far from the origin."""
    import torch

    from lamina_kernels.gram import base, blocked_bases, matrix

    for module in (base, blocked_bases, matrix):
        patch.setattr(module, "middle", lambda rows: torch.zeros(rows.shape[1], dtype=torch.float64))


@fault
def hsic_swaps_the_kernels(patch: pytest.MonkeyPatch) -> None:
    """Each kernel function is applied to the rows of the other."""
    from lamina_kernels.gram.paired import problem

    whole: Any = problem.build
    patch.setattr(problem, "build", lambda *rows: whole(*rows[:4], rows[5], rows[4], *rows[6:]))


@fault
def hsic_moments_keep_the_diagonal(patch: pytest.MonkeyPatch) -> None:
    """The shortcut of linear kernels pairs each row with itself."""
    from lamina_kernels.gram.paired import moments

    patch.setattr(moments, "cheaper", lambda problem: True)
    patch.setattr(moments, "_subtract_diagonal", lambda problem, sums: None)


@fault
def hsic_tiles_keep_the_diagonal(patch: pytest.MonkeyPatch) -> None:
    """Tiles on the diagonal pair each row with itself."""
    import torch

    patch.setattr(torch.Tensor, "fill_diagonal_", lambda self, value: self)


@fault
def hsic_tiles_have_no_mirror_image(patch: pytest.MonkeyPatch) -> None:
    """Tiles above the diagonal do not count for their columns."""
    from lamina_kernels.gram.paired import blocked

    whole = blocked._add
    patch.setattr(
        blocked, "_add", lambda sums, rows, tile, span: whole(sums, rows, tile, span) if tile.stride(0) == 1 else None
    )


@fault
def hsic_drops_the_last_tile(patch: pytest.MonkeyPatch) -> None:
    """A loop over whole tiles only: the remainder of the rows is never summed."""
    from lamina_kernels.gram.paired import blocked

    patch.setattr(
        blocked, "tiles", lambda rows, block: (slice(s, s + block) for s in range(0, rows - block + 1, block))
    )


@fault
def hsic_tiles_come_in_any_order(patch: pytest.MonkeyPatch) -> None:
    """Other tiles at every call: the sums round differently."""
    import itertools

    from lamina_kernels.gram.paired import blocked

    sizes, whole = itertools.count(17), blocked.hsic_sums
    patch.setattr(blocked, "hsic_sums", lambda problem: patch.setattr(blocked, "BLOCK", next(sizes)) or whole(problem))


@fault
def hsic_groups_are_not_sorted(patch: pytest.MonkeyPatch) -> None:
    """Rows are taken in their own order where they should be in that of their groups."""
    import torch

    from lamina_kernels.gram.paired import blocked

    whole = blocked.by_group
    patch.setattr(blocked, "by_group", lambda groups, n: whole(groups, n)._replace(order=torch.arange(len(groups))))


@fault
def hsic_groups_share_what_is_broken(patch: pytest.MonkeyPatch) -> None:
    """Groups are summed by a product with ones and zeros, where zero times infinity is not zero."""
    import torch

    from lamina_kernels.gram.paired import blocked

    def of_groups(tile: torch.Tensor, group: torch.Tensor, bounds: Any) -> torch.Tensor:
        return torch.nn.functional.one_hot(group, len(bounds) - 1).to(tile).T @ tile

    patch.setattr(blocked, "_of_groups", of_groups)


@fault
def hsic_moves_the_rows_in_place(patch: pytest.MonkeyPatch) -> None:
    """The caller's rows are moved, instead of copies."""
    from lamina_kernels.gram.blocked_bases import Dot

    patch.setattr(Dot, "_rows", lambda self, rows, index: rows.sub_(1)[index])


@fault
def hsic_sums_tiles_in_single(patch: pytest.MonkeyPatch) -> None:
    """Sums of tiles are kept in single precision."""
    import torch

    from lamina_kernels.gram.paired import api, problem

    patch.setattr(problem.Problem, "zeros", lambda self: torch.zeros(5, self.n, self.n_groups))
    whole = api._result
    patch.setattr(api, "_result", lambda p, sums, impl: whole(p, [each.double() for each in sums], impl))


@fault
def hsic_tiles_are_half(patch: pytest.MonkeyPatch) -> None:
    """Scores of rows in half precision are kept in half precision."""
    from lamina_kernels.gram.paired import blocked

    patch.setattr(blocked, "accumulation_dtype", lambda dtype: dtype)


def _hsic_launch(patch: pytest.MonkeyPatch, **changes: Any) -> None:
    """Replace arguments and constants of the Triton kernel behind `hsic_sums`."""
    from lamina_kernels.gram.paired import launch

    whole = launch.plan
    patch.setattr(launch, "plan", lambda *a: (p := whole(*a))._replace(arguments=p.arguments | changes))


@fault
def hsic_kernel_keeps_the_diagonal(patch: pytest.MonkeyPatch) -> None:
    """Each row is paired with itself."""
    _hsic_launch(patch, DIAGONAL=False)


@fault
def hsic_kernel_forgets_the_order(patch: pytest.MonkeyPatch) -> None:
    """Sums of rows that were sorted by group are written as if they were not."""
    _hsic_launch(patch, order=None)


@fault
def hsic_kernel_ignores_the_strides(patch: pytest.MonkeyPatch) -> None:
    """Rows are taken to stand without gaps inside."""
    from lamina_kernels.gram import base

    patch.setattr(base, "_contiguous", lambda rows: rows)


@fault
def hsic_kernel_rounds_its_rows(patch: pytest.MonkeyPatch) -> None:
    """Rows are rounded to TF32 although accuracy was asked for."""
    from lamina_kernels.gram.paired import launch

    patch.setattr(launch, "products_of", lambda p, target: "tf32")


@fault
def hsic_kernel_skips_a_program(patch: pytest.MonkeyPatch) -> None:
    """The last program never runs: its sums are whatever the memory held."""
    from lamina_kernels.gram.paired import launch

    whole = launch.plan
    patch.setattr(launch, "plan", lambda *a: (p := whole(*a))._replace(grid=(p.grid[0] - 1,)))


@fault
def hsic_kernel_tiles_as_it_likes(patch: pytest.MonkeyPatch) -> None:
    """Tiles of other sizes at every call: the sums round differently."""
    import itertools

    from lamina_kernels.gram import tiling

    sizes, whole = itertools.cycle([32, 64]), tiling.scores
    patch.setattr(tiling, "scores", lambda *a: whole(*a)._replace(columns=next(sizes)))


@fault
def hsic_kernel_forgets_the_edge(patch: pytest.MonkeyPatch) -> None:
    """Columns beyond the last row are taken for it."""
    import triton.language as tl

    from lamina_kernels.gram.paired import forward
    from lamina_kernels.gram.tile import At

    whole: Any = forward.at_of

    def at_of(*arguments: Any) -> Any:
        rows, valid, columns, _, first = whole(*arguments)
        columns = tl.minimum(columns, arguments[5] - 1)
        return At(rows, valid, columns, columns == columns, first)

    patch.setattr(forward, "at_of", at_of)


@fault
def hsic_kernel_sums_tiles_in_single(patch: pytest.MonkeyPatch) -> None:
    """Sums of tiles are kept in single precision."""
    import triton.language as tl

    from lamina_kernels.gram.paired import forward

    patch.setattr(forward, "ACROSS_TILES", tl.constexpr(tl.float32))


@fault
def hsic_kernel_counts_in_32_bits(patch: pytest.MonkeyPatch) -> None:
    """Addresses overflow behind two billion numbers."""
    import triton.language as tl

    from lamina_kernels.tiles import dot, load

    for module in (dot, load):
        patch.setattr(module, "INDEX", tl.constexpr(tl.int32))


@fault
def hsic_triton_gives_way(patch: pytest.MonkeyPatch) -> None:
    """Where Triton was asked for, another form runs under its name."""
    from lamina_kernels.gram.paired import blocked, launch

    patch.setattr(launch, "hsic_sums", blocked.hsic_sums)


def _hsic_tiling(patch: pytest.MonkeyPatch, **changes: int) -> None:
    """Change the sizes of the tiles of the Triton kernel behind `hsic_sums`."""
    from lamina_kernels.gram import tiling

    whole = tiling.scores
    patch.setattr(tiling, "scores", lambda *arguments: whole(*arguments)._replace(**changes))


@fault
def hsic_kernel_takes_large_tiles(patch: pytest.MonkeyPatch) -> None:
    """Tiles in flight that take more shared memory than a GPU has."""
    _hsic_tiling(patch, stages=12)


@fault
def hsic_kernel_spills(patch: pytest.MonkeyPatch) -> None:
    """Tiles that do not fit into the registers of their warps."""
    _hsic_tiling(patch, columns=128)


@fault
def hsic_kernel_leaves_the_tensor_cores(patch: pytest.MonkeyPatch) -> None:
    """float32 is multiplied one number at a time."""
    _hsic_launch(patch, X_PRECISION="ieee", Y_PRECISION="ieee")


@fault
def hsic_swaps_the_squares(patch: pytest.MonkeyPatch) -> None:
    """The sums of squares of one kernel are returned for the other."""
    from lamina_kernels.gram.paired import api

    whole = api._result

    def result(*arguments: Any) -> api.HsicSums:
        made = whole(*arguments)
        return made._replace(square_x=made.square_y, square_y=made.square_x)

    patch.setattr(api, "_result", result)


@fault
def distances_forget_their_root(patch: pytest.MonkeyPatch) -> None:
    """The distance is its square: HSIC with linear kernels."""
    from lamina_kernels.gram.blocked_bases import Euclidean

    whole = Euclidean.tile

    def squared(self: Any, columns: Any) -> Any:
        tile = whole(self, columns)
        return tile.mul_(-tile)

    patch.setattr(Euclidean, "tile", squared)
