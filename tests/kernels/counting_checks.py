"""What holds for `count` and `distance_histogram` in every form, by integer arithmetic and planted truths."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from tests.kernels.hsic_checks import normal, poisoned
from tests.kernels.selection_checks import integers, of_integers, on, whole

Count = Callable[..., Tensor]


def points_of_a_lattice_in_a_ball(count: Count) -> None:
    """The circle problem of Gauss: 81 points within 5 of the origin, 12 at 5; in space 123 within 3, 30 at 3."""
    plane, space = (torch.arange(-7.0, 8, device="cpu") for _ in range(2))
    plane, space = torch.cartesian_prod(plane, plane), torch.cartesian_prod(space, space, space)
    for rows, radius, closed, on_it in ((plane, 5.0, 81, 12), (space, 3.0, 123, 30)):
        for shift in (0.0, 1000.0):
            origin = torch.full((1, rows.shape[1]), shift)
            assert count(origin, on(rows + shift), radius).tolist() == [closed]
            assert count(origin, on(rows + shift), radius, strict=True).tolist() == [closed - on_it]
            assert count(origin, on(rows + shift), radius**2, distance="squared").tolist() == [closed]


def whole_distances_are_counted_exactly(count: Count) -> None:
    """A radius a row, at distances that occur; by every measure, with and without groups."""
    x, y = integers(70, 4, 4, seed=0), integers(130, 4, 4, seed=1)
    radii = torch.arange(70, device="cpu") % 11
    groups = torch.arange(70) // 5, torch.arange(130) // 8
    for distance in of_integers(count):
        far = whole(x, y, distance)
        for strict in (False, True):
            within = far < radii[:, None] if strict else far <= radii[:, None]
            found = count(on(x), on(y), on(radii), distance=distance, strict=strict)
            assert torch.equal(found.cpu(), within.sum(1))
            apart = (groups[0][:, None] != groups[1]).cpu()
            found = count(on(x), on(y), on(radii), distance=distance, strict=strict, exclude=groups)
            assert torch.equal(found.cpu(), (within & apart).sum(1))


def the_row_itself_counts_unless_excluded(count: Count) -> None:
    x = torch.cat([normal(40, 3, seed=2), normal(40, 3, seed=2)]) + 1000
    assert count(x, None, 0.0).tolist() == [2] * 80
    assert count(x, None, 0.0, exclude="self").tolist() == [1] * 80
    assert count(x, None, 0.0, strict=True).tolist() == [0] * 80
    assert count(x, None, math.inf).tolist() == [80] * 80


def a_crowd_below_the_rounding_of_products(count: Count) -> None:
    crowd = torch.cat([1000 * normal(9, 12, seed=3), 1e-3 * normal(60, 12, seed=4)])
    far = (crowd.double()[:, None] - crowd.double()).square().sum(2).sqrt()
    for radius in (2e-3, 5e-3, 2000.0):
        assert torch.equal(count(crowd, None, radius), (far <= radius).sum(1))


def broken_rows_are_within_nothing(count: Count) -> None:
    x = normal(60, 3, seed=5)
    x[7, 1], x[50, 0] = math.nan, math.inf
    kept = x.isfinite().all(1)
    found = count(x, None, 2.5)
    assert found[[7, 50]].tolist() == [0, 0]
    assert torch.equal(found[kept], count(x[kept], None, 2.5))


def no_rows_count_nothing(count: Count) -> None:
    y = torch.ones(3, 2)
    assert count(torch.empty(0, 2), y, 1.0).shape == (0,)
    assert count(y, torch.empty(0, 2), 1.0).tolist() == [0, 0, 0]
    assert count(torch.ones(2, 0), None, 0.0).tolist() == [2, 2]


def roots_and_squares_of_radii_are_told_alike(count: Count) -> None:
    """Radii whose squares are rounded: the root of a distance decides, as it is told."""
    y = torch.arange(60.0)[:, None]
    for scale in (0.1, 3e-20, 7e18):
        x, rows = torch.zeros(60, 1), y * torch.tensor(scale, dtype=torch.float32)
        radii = rows[:, 0].double().square().sqrt()
        assert count(x, rows, radii).tolist() == list(range(1, 61))
        assert count(x, rows, radii, strict=True).tolist() == list(range(60))
        assert count(x, rows, radii.nextafter(radii.new_zeros(()))).tolist()[1:] == list(range(1, 60))


def counts_like_differences(count: Count, n: int, m: int, d: int, dtype: torch.dtype, distance: str) -> None:
    """Any shape and strides, between memory that is NaN: against distances from differences in float64, twice."""
    x, y = (normal(2 * rows, d + 3, seed=rows, dtype=dtype)[::2, 3:] for rows in (n, m))
    a, b = x.double(), y.double()
    if distance == "cosine":
        a, b = (rows / rows.norm(dim=1, keepdim=True) for rows in (a, b))
        far = 1 - a @ b.T
    else:
        far = -(a @ b.T) if distance == "dot" else (a[:, None] - b).square().sum(2)
    # Between the middle two, where no rounding decides.
    radii = far.sort(1).values[:, m // 2 - 1 : m // 2 + 1].mean(1) if m > 1 else far[:, 0].abs() + 1
    options: dict[str, Any] = {"distance": distance}
    if distance != "dot" and m > 1:
        options["exclude"] = torch.arange(n) // 3, torch.arange(m) // 4
        far = far.masked_fill(torch.arange(n)[:, None] // 3 == torch.arange(m) // 4, math.inf)
    with poisoned():
        found, again = (count(x, y, radii, **options) for _ in range(2))
    assert torch.equal(found, (far <= radii[:, None]).sum(1))
    assert torch.equal(found, again)


def it_is_one_launch(count: Count) -> None:
    from lamina_kernels.gram.counting import launch

    launched: list[str] = []
    whole = launch.run
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(launch, "run", lambda kernel, *rest: (launched.append(kernel.fn.__name__), whole(kernel, *rest)))
        count(normal(70, 4, seed=12), normal(300, 4, seed=13), [1.0, 2.0])
    assert launched == ["counts_kernel"]


def addresses_take_64_bits(count: Count) -> None:
    # The last of 40 rows starts 2^31 numbers behind the first, and more; memory that nobody touches costs nothing.
    stride = 55_200_000
    far = torch.empty(39 * stride + 8, dtype=torch.float16).as_strided((40, 8), (stride, 1))
    near = normal(40, 8, seed=15, dtype=torch.float16)
    far.copy_(near)
    expected = count(near, near.clone(), [0.0, 3.0, 4.0])
    assert torch.equal(count(far, near, [0.0, 3.0, 4.0]), expected)
    assert torch.equal(count(near, far, [0.0, 3.0, 4.0]), expected)


def torch_finds_the_operators_in_order(count: Count) -> None:
    """Their schemas and fake tensors."""
    from lamina_kernels.gram.counting import op
    from lamina_kernels.gram.counting.thresholds import thresholds
    from lamina_kernels.gram.distances import pairs
    from lamina_kernels.gram.pairs import flat

    p = pairs("", normal(9, 3, seed=16), normal(8, 3, seed=17), "euclidean", None, None)
    radii = thresholds(p, torch.linspace(0, 3, 9, dtype=torch.float64), "euclidean")
    for operator in (op._count, op._histogram):
        torch.library.opcheck(operator, (*flat(p), *radii, "triton"))


def refusals(count: Count) -> None:
    """What the kernel does not take is refused, never given to another form."""
    x = normal(20, 4, seed=14)
    with pytest.raises(NotImplementedError, match="selection or counting by l1 is not supported"):
        count(x, None, [1.0, 2.0], distance="l1")
    with pytest.raises(ValueError, match="float64 has the forms"):
        count(x.double(), None, [1.0, 2.0])


COUNTS = [
    points_of_a_lattice_in_a_ball,
    whole_distances_are_counted_exactly,
    the_row_itself_counts_unless_excluded,
    a_crowd_below_the_rounding_of_products,
    broken_rows_are_within_nothing,
    no_rows_count_nothing,
    roots_and_squares_of_radii_are_told_alike,
]

SHAPES: list[tuple[Any, ...]] = [
    # n, m, d, dtype, distance
    (1, 1, 1, torch.float16, "squared"),
    (150, 65, 17, torch.float32, "squared"),
    (40, 330, 3, torch.float16, "dot"),
    (70, 129, 130, torch.float16, "squared"),
    (33, 200, 100, torch.float32, "cosine"),
    (3, 8, 1024, torch.float16, "squared"),
]


def pairs_of_whole_distances_fall_into_bins(histogram: Count) -> None:
    """Distances lie on the edges, also the last one."""
    x, y = integers(60, 3, 3, seed=6), integers(90, 3, 3, seed=7)
    edges_of = {"squared": [0, 1, 4, 9, 30], "l1": [2, 3, 7, 8], "dot": [-9, -1, 0, 4]}
    for distance in of_integers(histogram):
        edges = edges_of[distance]
        counts, _ = np.histogram(whole(x, y, distance).numpy(), edges)
        assert histogram(on(x), on(y), edges, distance=distance).tolist() == counts.tolist()


def pairs_on_a_line(histogram: Count) -> None:
    n = 199
    line = torch.arange(float(n))[:, None] + 1000
    found = histogram(line, None, [0.0, 0.5, 1.5, 2.5, math.inf], exclude="self")
    assert found.tolist() == [0, 2 * (n - 1), 2 * (n - 2), n * (n - 1) - 2 * (n - 1) - 2 * (n - 2)]
    groups = torch.arange(n) // 2
    assert histogram(line, None, [0, 1, 2], exclude=groups).tolist() == [0, (n - 1) + 2 * (n - 2)]


def broken_rows_are_in_no_bin(histogram: Count) -> None:
    x = normal(50, 3, seed=8)
    x[11, 0], x[12, 2] = math.nan, -math.inf
    found = histogram(x, None, [0, 1, 2, 50])
    assert found.tolist() == histogram(x[x.isfinite().all(1)], None, [0, 1, 2, 50]).tolist()
    assert int(found.sum()) == 48**2


def rows_with_gradients_are_counted_like_others(histogram: Count) -> None:
    x = normal(9, 3, seed=18)
    plain = histogram(x, None, [0.0, 1.0, 4.0])
    assert torch.equal(histogram(x.requires_grad_(), None, [0.0, 1.0, 4.0]), plain)


HISTOGRAMS = [pairs_of_whole_distances_fall_into_bins, pairs_on_a_line, broken_rows_are_in_no_bin]
