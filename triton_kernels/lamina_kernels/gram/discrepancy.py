"""The maximum mean discrepancy of two samples, with its error and a permutation test, from one pass over all pairs."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from lamina_kernels import checks
from lamina_kernels.gram.forms import Impl, choose
from lamina_kernels.gram.kernels import Kernel
from lamina_kernels.gram.pairs import build, numbered
from lamina_kernels.gram.sums import op, reference
from lamina_kernels.gram.sums.api import Precision
from lamina_kernels.operators import operator


class Discrepancy(NamedTuple):
    """What `mmd` returns, float64.

    Attributes:
        value: The unbiased estimate of the squared discrepancy; it may be below 0. Differentiable.
        variance: Of `value`, of first order: near 0 where the samples are alike, whose spread is of second order.
        p_value: How often a permutation gives as much, itself among them; NaN without permutations, and of rows that
            are not finite.
    """

    value: Tensor
    variance: Tensor
    p_value: Tensor


def mmd(
    x: Tensor,
    y: Tensor,
    *,
    kernel: Kernel,
    groups: tuple[Tensor, Tensor] | None = None,
    permutations: int = 0,
    seed: int = 0,
    precision: Precision | None = None,
    impl: Impl | None = None,
) -> Discrepancy:
    """Estimate the squared maximum mean discrepancy E k(x, x') + E k(y, y') - 2 E k(x, y) of two samples.

    The means are over pairs of rows of different groups. A permutation gives the two samples other groups, as many as
    before. With `Distance()`, `value` is the energy distance.

    Args:
        x: [n, d], float16, bfloat16, float32 or float64.
        y: [m, d], the same dtype and device.
        kernel: A kernel; characteristic ones (RBF, Laplace, Matern, Distance) see every difference.
        groups: Ids of the rows of x and of y, [n] and [m] integers; rows of one group are not independent, also where
            it stands on both sides, but then it cannot be permuted. None: each row is a group.
        permutations: How many permutations the test takes.
        seed: Of the permutations.
        precision: As of `product`.
        impl: As of `product`.

    Returns:
        The estimate, its variance and the p-value.

    Raises:
        ValueError: As of `product`; fewer than two groups on a side; or permutations of groups on both sides.
        TypeError: As of `product`.
        NotImplementedError: As of `product`.

    Cost:
        (n + m)² (2 d + 2 permutations) operations and values of the kernel; memory (n + m)(d + permutations).

    Source:
        Gretton et al., A Kernel Two-Sample Test, 2012.

    Example:
        >>> import torch
        >>> from lamina_kernels.gram import RBF
        >>> x = torch.arange(40.0)[:, None] % 7
        >>> found = mmd(x, x + 5, kernel=RBF(2.0), permutations=99)
        >>> found.value.item() > 0.5, round(found.p_value.item(), 2)
        (True, 0.01)
    """
    checks.matrices("mmd", x=x, y=y)
    checks.same_width("mmd", x=x, y=y)
    if permutations < 0:
        raise ValueError(f"mmd: permutations is {permutations}, expected a number from 0")
    n = len(x)
    of_x = torch.arange(n + len(y), device=x.device) < n
    ids = _grouped(of_x, (n, len(y)), groups)
    rows, drawn = torch.cat([x, y]), _drawn(of_x, ids, permutations, seed)
    members = torch.cat([of_x[None], drawn]).T.to(torch.float64)
    columns = torch.cat([members, torch.ones_like(members[:, :1])], 1)
    p = build("mmd", rows, None, kernel, ids, precision)
    form = choose("mmd", p, impl)
    # Members are 0 or 1: exact in any dtype, and no kernel multiplies float64.
    columns = columns.to(p.dtype)
    sums = (reference.sums(p, columns) if form == "reference" else op.sums(p, columns, form)).double()
    within, every = sums[:, :-1], sums[:, -1:]
    values = _discrepancies(members, within, every, ids)
    p_value = ((values[1:] >= values[0] - 1e-12 * values[0].abs()).sum() + 1).double() / (permutations + 1)
    # What rows that are broken give has no rank among permutations.
    p_value = p_value.masked_fill(values[0].isnan() | (permutations == 0), torch.nan)
    variance = _variance(of_x, within[:, 0].detach(), every[:, 0].detach(), ids)
    return Discrepancy(values[0], variance, p_value)


def _grouped(of_x: Tensor, sizes: tuple[int, int], groups: tuple[Tensor, Tensor] | None) -> Tensor:
    """Return the group of each row of both samples, from 0."""
    if groups is None:
        return torch.arange(len(of_x), device=of_x.device)
    if not isinstance(groups, tuple | list) or len(groups) != 2:
        raise TypeError(f"mmd: groups is a {type(groups).__name__}, expected a pair: ids of the rows of x, and of y")
    for name, group, size in zip("xy", groups, sizes, strict=True):
        fits = group.shape == (size,) and group.device == of_x.device
        if group.is_floating_point() or group.dtype == torch.bool or not fits:
            found, wanted = f"{group.dtype} {list(group.shape)} on {group.device}", f"[{size}] on {of_x.device}"
            raise ValueError(f"mmd: groups of {name} are {found}, expected integers {wanted}, one id a row")
    return numbered(torch.cat([group.long() for group in groups]))


@operator("gram_permutations", "(Tensor of_x, Tensor ids, int permutations, int seed) -> Tensor")
def _drawn(of_x: Tensor, ids: Tensor, permutations: int, seed: int) -> Tensor:
    """Return which rows are in x if groups change places, [permutations, rows]; as many groups are as there were."""
    if not permutations or not len(of_x):
        return of_x.new_empty(permutations, len(of_x))
    members = torch.zeros(int(ids.max()) + 1, 2, device=ids.device)
    inside, outside = members.index_add_(0, ids, torch.stack([of_x, ~of_x], 1).float()).T > 0
    if (inside & outside).any():
        raise ValueError("mmd: a group stands in x and in y: it cannot be permuted")
    generator = torch.Generator().manual_seed(seed)
    drawn = [inside[torch.randperm(len(inside), generator=generator)] for _ in range(permutations)]
    return torch.stack(drawn)[:, ids]


@torch.library.register_fake(_drawn)
def _(of_x: Tensor, ids: Tensor, permutations: int, seed: int) -> Tensor:
    return of_x.new_empty(permutations, len(of_x))


def _discrepancies(members: Tensor, within: Tensor, every: Tensor, ids: Tensor) -> Tensor:
    """Return the estimate for each way to part the rows.

    Args:
        members: [rows, parts], 1 where a row is one of x.
        within: [rows, parts]: sum_j k_ij over the members.
        every: [rows, 1]: sum_j k_ij over all rows.
        ids: [rows], the groups.
    """
    others = 1 - members
    pairs = [
        (members * within, members, members),
        (others * (every - within), others, others),
        (others * within, others, members),
    ]
    a, b, c = (part.sum(0) / _pairs(left, right, ids) for part, left, right in pairs)
    return a + b - 2 * c


def _pairs(left: Tensor, right: Tensor, ids: Tensor) -> Tensor:
    """Return how many pairs of a row of `left` and a row of `right` stand in different groups, [parts]."""
    sizes = left.new_zeros(2, *left.shape)
    sizes.index_add_(1, ids, torch.stack([left, right]))
    counts = left.sum(0) * right.sum(0) - (sizes[0] * sizes[1]).sum(0)
    if not torch.compiler.is_compiling() and (counts <= 0).any():
        raise ValueError("mmd: there are no pairs of rows of different groups, expected at least two groups a side")
    return counts


def _variance(of_x: Tensor, within: Tensor, every: Tensor, ids: Tensor) -> Tensor:
    """Return 4 times the variances of the means over x and over y of what a row adds, as groups vary."""
    total = torch.zeros((), dtype=torch.float64, device=ids.device)
    for mine, own, other in ((of_x, within, every - within), (~of_x, every - within, within)):
        size = mine.double().sum()
        added = own / (size - 1) - other / (len(mine) - size)
        apart = torch.where(mine, added - (added * mine).sum() / size, 0)
        by_group, members = (torch.zeros_like(apart).index_add(0, ids, each) for each in (apart, mine.double()))
        count = (members > 0).sum()
        total = total + 4 * by_group.square().sum() / size**2 * count / (count - 1)
    return total
