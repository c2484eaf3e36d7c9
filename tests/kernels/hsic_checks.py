"""What holds for `hsic_sums` in every form, by closed forms and planted truths."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch

from lamina_kernels.gram import RBF, Distance, HsicSums, Linear
from lamina_kernels.gram.kernels import Kernel
from tests.kernels import gram_kernel_faults as gram_kernel_faults  # known where checks run

Sums = Callable[..., HsicSums]
LINEAR, NARROW, WIDE = Linear(), RBF(1.5), RBF(4.0)


def normal(*shape: int, seed: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    """Normal numbers, the same on every device, rounded to `dtype`."""
    generator = torch.Generator().manual_seed(seed)
    drawn = torch.randn(*shape, generator=generator, device="cpu", dtype=torch.float64)
    return drawn.to(dtype).to(torch.get_default_device())


def ids(n: int, groups: int, *, seed: int) -> torch.Tensor:
    """Groups of different sizes, drawn at random."""
    generator = torch.Generator().manual_seed(seed)
    sizes = torch.rand(groups, generator=generator, device="cpu") ** 2
    return torch.multinomial(sizes, n, replacement=True, generator=generator).to(torch.get_default_device())


def close(got: HsicSums, *wanted: Any, rtol: float = 1e-5, atol: float = 1e-5) -> None:
    """Assert that product, sums and squares are these, or the first of them."""
    for name, value, expected in zip(got._fields, got[:5], wanted, strict=False):
        expected = torch.as_tensor(expected, dtype=torch.float64)
        assert value.dtype == torch.float64, name
        torch.testing.assert_close(
            value, expected, rtol=rtol, atol=atol * max(1.0, expected.abs().max().item() if expected.numel() else 1.0)
        )


def dense(
    x: torch.Tensor,
    y: torch.Tensor,
    x_other: torch.Tensor | None = None,
    y_other: torch.Tensor | None = None,
    *,
    kernel_x: Kernel = LINEAR,
    kernel_y: Kernel = LINEAR,
    groups: torch.Tensor | None = None,
    groups_other: torch.Tensor | None = None,
) -> list[torch.Tensor]:
    """The five sums in float64 by differences of rows, one row at a time: nothing here is shared with the forms."""

    def against(kernel: Kernel, row: torch.Tensor, others: torch.Tensor) -> torch.Tensor:
        row, others = row.double(), others.double()
        if isinstance(kernel, Linear):
            return (others * row).sum(1)
        if isinstance(kernel, Distance):
            return -(others - row).norm(dim=1)
        assert isinstance(kernel, RBF)
        return torch.exp(-((others - row) ** 2).sum(1) / (2 * kernel.bandwidth**2))

    where = groups if x_other is None else groups_other
    k_rows, l_rows = [], []
    for i in range(len(x)):
        k = against(kernel_x, x[i], x if x_other is None else x_other)
        l = against(kernel_y, y[i], y if y_other is None else y_other)  # noqa: E741
        if x_other is None:
            k[i], l[i] = 0, 0
        k_rows.append(k)
        l_rows.append(l)
    K, L = torch.stack(k_rows), torch.stack(l_rows)
    if where is None:
        return [M.sum(1) for M in (K * L, K, L, K * K, L * L)]
    columns = [where == g for g in range(int(where.max()) + 1)]
    return [torch.stack([M[:, c].sum(1) for c in columns], 1) for M in (K * L, K, L, K * K, L * L)]


def three_rows_by_hand(sums: Sums) -> None:
    x = torch.tensor([[1.0, 0.0], [1.0, 2.0], [0.0, 3.0]])
    y = torch.tensor([[1.0], [2.0], [-1.0]])
    # K = 1 0 6 and L = 2 -1 -2 for the pairs 01, 02, 12.
    close(sums(x, y), [2, 2 - 12, -12], [1, 7, 6], [1, 0, -3], [1, 37, 36], [5, 8, 5])


def one_hot_rows_count_their_classes(sums: Sums) -> None:
    # K_ij says that i and j share the class of x, L_ij that of y.
    a, b = torch.arange(150) % 3, torch.arange(150) % 5
    x, y = (torch.nn.functional.one_hot(labels).half() for labels in (a, b))
    close(sums(x, y), *(torch.full((150,), count) for count in (9, 49, 29, 49, 29)))


def rows_on_a_line_see_a_gaussian_of_their_distance(sums: Sums) -> None:
    # Rows one apart: k = exp(-(i - j)^2 / (2 b^2)), far from the origin.
    n, b = 90, 10.0
    x = (torch.arange(float(n)) + 100)[:, None]
    terms = [[math.exp(-((i - j) ** 2) / (2 * b * b)) for j in range(n) if i != j] for i in range(n)]
    expected = [sum(row) for row in terms]
    squares = [sum(t * t for t in row) for row in terms]
    close(sums(x, x, kernel_x=RBF(b), kernel_y=RBF(b)), squares, expected, expected, squares, squares)


def equal_rows_score_one(sums: Sums) -> None:
    x = normal(1, 70, seed=0).expand(140, 70)
    close(sums(x, x, kernel_x=NARROW, kernel_y=NARROW), *torch.full((5, 140), 139.0))


def kernels_are_not_swapped(sums: Sums) -> None:
    x, y = torch.zeros(40, 3), torch.ones(40, 2)
    close(sums(x, y, kernel_x=NARROW), *(torch.full((40,), total) for total in (78, 39, 78, 39, 156)))
    close(sums(y, x, kernel_y=NARROW), *(torch.full((40,), total) for total in (78, 78, 39, 156, 39)))


def agrees_with_dense(sums: Sums, n: int, m: int | None, dx: int, dy: int, kernel_x, kernel_y, groups: int) -> None:
    """Any shape, with and without others (m) and groups."""
    x, y = normal(n, dx, seed=1), normal(n, dy, seed=2)
    others = () if m is None else (normal(m, dx, seed=3), normal(m, dy, seed=4))
    where = {("groups" if m is None else "groups_other"): ids(m or n, groups, seed=5)} if groups else {}
    options = {"kernel_x": kernel_x, "kernel_y": kernel_y, **where}
    close(sums(x, y, *others, **options), *dense(x, y, *others, **options))


def blocks_add_up_to_the_whole(sums: Sums, kernel_x, kernel_y) -> None:
    x, y = normal(130, 20, seed=6), normal(130, 5, seed=7)
    options = {"kernel_x": kernel_x, "kernel_y": kernel_y}
    whole = sums(x, y, **options)
    total = torch.zeros(5, 130, dtype=torch.float64)
    cuts = [slice(0, 50), slice(50, 51), slice(51, 130)]
    for rows in cuts:
        for others in cuts:
            pair = () if rows == others else (x[others], y[others])
            total[:, rows] += torch.stack(sums(x[rows], y[rows], *pair, **options)[:5])
    close(whole, *total)


def groups_add_up_and_keep_to_themselves(sums: Sums) -> None:
    # One-hot rows of their group: K_ij is 1 within the group of i and 0 elsewhere. Group 2 is empty.
    where = torch.tensor([0, 1, 3, 4]).repeat_interleave(torch.tensor([1, 70, 9, 40]))
    where = where[torch.randperm(120, generator=torch.Generator().manual_seed(8), device="cpu").to(where.device)]
    x, y = torch.nn.functional.one_hot(where, 5).float(), torch.ones(120, 1)
    sizes = torch.bincount(where)
    own = torch.nn.functional.one_hot(where, 5)
    close(sums(x, y, groups=where), *[own * (sizes - 1)] * 2, sizes - own, own * (sizes - 1), sizes - own)


def no_rows_and_no_columns(sums: Sums) -> None:
    empty = torch.empty(0, 4)
    x, y = torch.ones(3, 4), torch.ones(3, 0)
    assert sums(empty, empty).product.shape == (0,)
    assert sums(empty, empty, groups=torch.empty(0, dtype=torch.long)).product.shape == (0, 0)
    close(sums(x, x, empty, empty), *torch.zeros(5, 3))
    assert sums(x, x, empty, empty, groups_other=torch.empty(0, dtype=torch.long)).sums_x.shape == (3, 0)
    assert sums(empty, empty, x, x, groups_other=torch.tensor([0, 2, 2])).sums_x.shape == (0, 3)
    # Rows without columns: a product of nothing is 0, a distance of nothing is 0.
    close(sums(y, y, kernel_x=NARROW), [0, 0, 0], [2, 2, 2], [0, 0, 0])
    close(sums(x[:1], x[:1], kernel_x=NARROW), [0], [0], [0])


def strides_do_not_matter(sums: Sums) -> None:
    wide, tall = normal(60, 90, seed=9), normal(7, 120, seed=10)
    x, y = wide[:, ::3], tall.T[::2]
    options = {"kernel_x": WIDE, "kernel_y": NARROW}
    expected = sums(x.contiguous(), y.contiguous(), **options)
    assert x.stride(1) == 3
    assert y.stride(1) == 120
    close(sums(x, y, **options), *expected[:5])


def the_same_bits_every_time(sums: Sums) -> None:
    x, y, where = normal(200, 9, seed=11), normal(200, 4, seed=12), ids(200, 6, seed=13)
    for options in ({"kernel_x": WIDE}, {"kernel_x": WIDE, "groups": where}):
        first, second = sums(x, y, **options), sums(x, y, **options)
        assert all(torch.equal(a, b) for a, b in zip(first[:5], second[:5], strict=True))


@contextmanager
def poisoned() -> Iterator[None]:
    """Memory that is allocated and not yet written holds NaN."""
    before = torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(True, warn_only=True)
    try:
        assert torch.empty(3).isnan().all()
        yield
    finally:
        torch.use_deterministic_algorithms(before)


def every_sum_is_written(sums: Sums) -> None:
    x, y, where = normal(129, 5, seed=14), normal(129, 33, seed=15), ids(129, 4, seed=16)
    with poisoned():
        for options in ({}, {"groups": where}, {"x_other": x[:70], "y_other": y[:70]}):
            assert all(t.isfinite().all() for t in sums(x, y, kernel_y=NARROW, **options)[:5])


def a_broken_row_shows_and_breaks_no_other_group(sums: Sums) -> None:
    for bad in (math.nan, math.inf):
        x, y = normal(80, 6, seed=17), normal(80, 3, seed=18)
        where = torch.arange(80) // 20
        x[45] = bad
        got = sums(x, y, kernel_x=NARROW, groups=where)
        others = torch.arange(80) != 45
        if math.isnan(bad):
            assert got.sums_x[:, 2].isnan().all()
        product, sums_x, *_ = (t[others][:, [0, 1, 3]] for t in dense(x, y, kernel_x=NARROW, groups=where))
        finite = {"product": got.product[others][:, [0, 1, 3]], "sums_x": got.sums_x[others][:, [0, 1, 3]]}
        close(got._replace(**finite), product, sums_x, dense(y, y, groups=where)[2])


def the_arguments_leave_as_they_came(sums: Sums) -> None:
    x, y, where = normal(50, 4, seed=19), normal(50, 3, seed=20), ids(50, 3, seed=21)
    before = x.clone(), y.clone(), where.clone()
    sums(x, y, kernel_x=NARROW, kernel_y=WIDE, groups=where)
    assert all(torch.equal(a, b) for a, b in zip((x, y, where), before, strict=True))


TRUTHS = [
    three_rows_by_hand,
    one_hot_rows_count_their_classes,
    rows_on_a_line_see_a_gaussian_of_their_distance,
    equal_rows_score_one,
    kernels_are_not_swapped,
    groups_add_up_and_keep_to_themselves,
    no_rows_and_no_columns,
    strides_do_not_matter,
    the_same_bits_every_time,
    every_sum_is_written,
    a_broken_row_shows_and_breaks_no_other_group,
    the_arguments_leave_as_they_came,
]

SHAPES = [
    # n, m, dx, dy, kernels, groups
    (1, None, 1, 1, LINEAR, LINEAR, 0),
    (2, None, 3, 200, NARROW, LINEAR, 0),
    (129, None, 17, 3, WIDE, NARROW, 0),
    (257, None, 16, 64, LINEAR, LINEAR, 0),
    (100, None, 130, 7, WIDE, WIDE, 5),
    (66, None, 2, 2, LINEAR, NARROW, 1),
    (1, 300, 5, 5, NARROW, NARROW, 0),
    (140, 3, 65, 129, WIDE, LINEAR, 0),
    (50, 270, 33, 1, LINEAR, LINEAR, 7),
    (131, 65, 9, 31, NARROW, WIDE, 30),
    (70, None, 3, 40, Distance(), WIDE, 4),
]
