"""What holds for `nearest` and `argmin` in every form, by integer arithmetic and planted truths."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from lamina_kernels.gram import Assigned, Nearest
from tests.kernels import descriptor_faults, selection_faults  # noqa: F401  # where the interpreter runs too
from tests.kernels.covering import pairwise
from tests.kernels.hsic_checks import normal, poisoned

Search = Callable[..., Nearest]
Assign = Callable[..., Assigned]


def whole(x: Tensor, y: Tensor, distance: str) -> Tensor:
    """Return distances [n, m] of integer rows in integers."""
    x, y = x.cpu().long(), y.cpu().long()
    if distance == "dot":
        return -(x @ y.T)
    differences = (x[:, None] - y).abs()
    return (differences if distance == "l1" else differences.square()).sum(2)


def integers(n: int, d: int, most: int, *, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(-most, most + 1, (n, d), generator=generator, device="cpu").float()


def measures(form: Any) -> tuple[str, ...]:
    """Return the distances that a form has."""
    return ("squared", "dot", "cosine") if form.keywords["impl"] == "triton" else ("squared", "dot", "cosine", "l1")


def of_integers(form: Any) -> list[str]:
    return [distance for distance in measures(form) if distance != "cosine"]


def equal(found: Nearest, distances: Tensor, indices: Tensor) -> None:
    assert torch.equal(found.indices.cpu(), indices)
    assert torch.equal(found.distances.cpu().double(), distances.double())


def neighbors_on_a_lattice(nearest: Search) -> None:
    """Many rows are equally far: the first of them are taken, at whole distances, by any measure and in any dtype."""
    axis = torch.arange(5.0, device="cpu")
    lattice = torch.cartesian_prod(axis, axis, axis) - 2
    lattice = lattice[torch.randperm(125, generator=torch.Generator().manual_seed(0), device="cpu")]
    dtypes = [torch.float32, torch.float16]
    for case in pairwise({"distance": of_integers(nearest), "k": [1, 7, 64], "dtype": dtypes}):
        distance, k, dtype = case.values()
        values, places = whole(lattice, lattice, distance).sort(dim=1, stable=True)
        found = nearest(on(lattice).to(dtype), None, k, distance=distance)
        equal(found, values[:, :k], places[:, :k])


def on(x: Tensor) -> Tensor:
    return x.to(torch.get_default_device())


def rows_on_a_line(nearest: Search) -> None:
    line = torch.arange(300.0)[:, None]
    with poisoned():
        found = nearest(line + 1000, None, 3, exclude="self", distance="euclidean")
    at = torch.arange(300, device="cpu")
    inner = torch.stack([at - 1, at + 1, at - 2], 1)[2:-1]
    assert torch.equal(found.indices.cpu()[2:-1], inner)
    assert torch.equal(found.distances.cpu()[2:-1], torch.tensor([1.0, 1.0, 2.0], device="cpu").expand(297, 3))
    assert found.indices[0].tolist() == [1, 2, 3]
    assert found.distances[-1].tolist() == [1, 2, 3]


def duplicates_are_zeros_in_order(nearest: Search) -> None:
    """Forty copies of some rows among others: more than are asked for, and more than are kept in reserve."""
    x = normal(9, 20, seed=0)
    rows = torch.cat([x] * 40)
    found = nearest(rows, None, 5, exclude="self")
    copies = [[j for j in range(i % 9, 360, 9) if j != i][:5] for i in range(360)]
    assert found.indices.tolist() == copies
    assert found.zeros.tolist() == [5] * 360
    assert not found.distances.any()
    near = nearest(rows, x + 1e-4, 3)
    assert not near.zeros.any()


def agrees_with_differences(
    nearest: Search, n: int, m: int | None, d: int, k: int, distance: str, shift: float
) -> None:
    """Any shape: against distances from differences in float64, one row at a time."""
    x = normal(n, d, seed=1) + shift
    y = None if m is None else normal(m, d, seed=2) + shift
    x_groups, y_groups = torch.arange(n) // 3, torch.arange(m or n) // 4
    exclude = None if m is not None and m <= k + 4 else (x_groups, y_groups)
    found = nearest(x, y, k, distance=distance, exclude=exclude)
    others = (x if y is None else y).double()
    for i, row in enumerate(x.double()):
        if distance == "cosine":
            far = 1 - (others @ row) / others.norm(dim=1) / row.norm()
        elif distance == "dot":
            far = -(others @ row)
        else:
            order, power = (1, 1) if distance == "l1" else (2, 2 if distance == "squared" else 1)
            far = torch.linalg.vector_norm(others - row, ord=order, dim=1) ** power
        if exclude is not None:
            far[y_groups == x_groups[i]] = torch.inf
        expected = far.sort().values[:k]
        torch.testing.assert_close(found.distances[i].double(), expected, rtol=1e-6, atol=1e-6)
        torch.testing.assert_close(far[found.indices[i]], expected, rtol=1e-6, atol=1e-6)
        assert (far[found.indices[i]].diff() >= -1e-6).all()


def what_products_cannot_tell_apart(nearest: Search) -> None:
    """Far from the others, a crowd whose distances lie below the rounding of products, and one row very far."""
    crowd = torch.cat([1000 * normal(20, 12, seed=3), 1e-3 * normal(280, 12, seed=4), 1e9 * normal(1, 12, seed=5)])
    found = nearest(crowd, None, 4, exclude="self")
    differences = (crowd.double()[:, None] - crowd.double()).square().sum(2).fill_diagonal_(torch.inf)
    values, places = differences.sort(1)
    assert torch.equal(found.indices, places[:, :4])
    torch.testing.assert_close(found.distances.double(), values[:, :4], rtol=1e-6, atol=0)


def a_crowd_is_compared_again_and_counted(nearest: Search) -> None:
    """Of 260 rows, 200 are nearer to each other than products can tell; the others are far from all."""
    others, crowd = 1000 * normal(60, 12, seed=16), 1e4 + 1e-2 * normal(200, 12, seed=17)
    found = nearest(torch.cat([others, crowd]), None, 4, exclude="self")
    assert found.repaired.item() == (0 if nearest.keywords["impl"] == "reference" else 200)  # pyright: ignore[reportFunctionMemberAccess]


def sizes_at_the_edge_of_single_precision(nearest: Search) -> None:
    """Numbers whose squares overflow or vanish in single precision."""
    x = normal(90, 6, seed=6)
    _, places = (x.double()[:, None] - x.double()).square().sum(2).fill_diagonal_(torch.inf).sort(1)
    for scale in (1e-30, 1e-20, 1e19, 1e30):
        scaled = x.double().mul(scale).float()
        assert torch.equal(nearest(scaled, None, 3, exclude="self").indices, places[:, :3])


def fewer_rows_than_asked_for(nearest: Search) -> None:
    x, groups = normal(7, 2, seed=7), torch.tensor([0, 0, 0, 0, 1, 1, 2])
    found = nearest(x, None, 5, exclude=groups)
    assert found.distances.isinf().sum(1).tolist() == [2, 2, 2, 2, 0, 0, 0]
    assert torch.equal(found.indices == -1, found.distances.isinf())
    alone = nearest(x, None, 2, exclude=torch.zeros(7, dtype=torch.long))
    assert alone.indices.tolist() == [[-1, -1]] * 7
    assert not alone.zeros.any()


def broken_rows_are_near_nothing(nearest: Search) -> None:
    """One, and a crowd of them: in a product they are zeros, which are nearer than most."""
    for bad, crowd in ((math.nan, 1), (math.inf, 20)):
        for distance in measures(nearest):
            x = normal(90, 17, seed=8)
            lost = (torch.arange(90) >= 31) & (torch.arange(90) < 31 + crowd)
            expected = nearest(x[~lost], None, 3, exclude="self", distance=distance)
            x[lost, 2] = bad
            found = nearest(x, None, 3, exclude="self", distance=distance)
            assert found.distances[lost].isnan().all()
            assert (found.indices[lost] == -1).all()
            torch.testing.assert_close(found.distances[~lost], expected.distances, rtol=1e-6, atol=1e-6)
            assert torch.equal(found.indices[~lost], expected.indices + crowd * (expected.indices >= 31))


def no_rows_and_no_columns(nearest: Search) -> None:
    y = normal(4, 3, seed=9)
    assert nearest(torch.empty(0, 3), y, 2).indices.shape == (0, 2)
    assert nearest(y[:1], None, 1).indices.tolist() == [[0]]
    assert nearest(y[:1], None, 1, exclude="self").distances.tolist() == [[math.inf]]
    assert nearest(torch.ones(3, 0), None, 2).indices.tolist() == [[0, 1]] * 3


def strides_do_not_matter(nearest: Search) -> None:
    wide, tall = normal(60, 90, seed=10), normal(30, 120, seed=11)
    x, y = wide[:, ::3], tall.T[::2]
    found, expected = nearest(x, y, 4), nearest(x.contiguous(), y.contiguous(), 4)
    assert all(torch.equal(a, b) for a, b in zip(found[:3], expected[:3], strict=True))


def the_same_bits_every_time_and_all_are_written(nearest: Search) -> None:
    x = normal(133, 9, seed=12)
    with poisoned():
        first, second = nearest(x, None, 3, exclude="self"), nearest(x, None, 3, exclude="self")
    assert first.distances.isfinite().all()
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


def rows_in_the_worst_order(nearest: Search) -> None:
    """Each row is nearer than all before it: every tile changes every list."""
    y = torch.arange(400.0, 0, -1)[:, None].expand(400, 3)
    found = nearest(torch.zeros(5, 3), y, 6)
    assert found.indices.tolist() == [[399, 398, 397, 396, 395, 394]] * 5
    assert found.distances[0].tolist() == [3.0 * i * i for i in range(1, 7)]


def the_arguments_leave_as_they_came(nearest: Search) -> None:
    for distance in measures(nearest):
        x = normal(50, 4, seed=13, dtype=torch.float64 if "l1" in measures(nearest) else torch.float32)
        x[3] = math.inf
        before = x.clone()
        nearest(x, None, 2, distance=distance)
        assert torch.equal(x, before)


def ordinary_rows_are_not_compared_twice(nearest: Search) -> None:
    for distance in measures(nearest):
        for k in (1, 16):
            x = normal(150, 17, seed=15) + 3
            assert nearest(x, None, k, distance=distance, exclude="self").repaired == 0


def no_precision_changes_the_neighbors(nearest: Search) -> None:
    """A row that is nearest by less than TF32 holds, which rounds it away from all others; and a mirror image.

    Likewise by less than the first part of a number holds, which makes its product too small, but not its norm.
    """
    levels = torch.tensor([9] * 2 + [13] * 98 + [16] * 100)
    single = ("bf16x6", "bf16x3")
    # Of numbers from a quarter to a half, in TF32 and in bfloat16.
    for step, part, precisions in ((2.0**-12, 0.51, (None, *single, "tf32", "ieee")), (2.0**-9, 0.49, single)):
        y = 0.25 + step * (torch.arange(17) < levels[:, None])
        y = torch.cat([y, torch.full((1, 17), 0.25 + part * step)])
        x, y = torch.full((3, 17), 0.1875), torch.cat([y, -y])
        for precision in precisions:
            assert nearest(x, y, 2, precision=precision).indices.tolist() == [[200, 0]] * 3, precision


def addresses_take_64_bits(nearest: Search) -> None:
    # The last of 40 rows starts 2^31 numbers behind the first, and more; memory that nobody touches costs nothing.
    stride = 55_200_000
    far = torch.empty(39 * stride + 8, dtype=torch.float16).as_strided((40, 8), (stride, 1))
    near = normal(40, 8, seed=19, dtype=torch.float16)
    far.copy_(near)
    for rows, others in ((far, near), (near, far)):
        found, expected = nearest(rows, others, 3), nearest(near, near.clone(), 3)
        assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))


def torch_finds_the_operator_in_order(nearest: Search) -> None:
    """Its schema, its fake tensors, and gradients with static and dynamic shapes."""
    from lamina_kernels.gram.distances import pairs
    from lamina_kernels.gram.pairs import flat
    from lamina_kernels.gram.selection import op

    x, y = (normal(n, 3, seed=n).requires_grad_() for n in (9, 8))
    groups = torch.arange(9) // 2, torch.arange(8) // 2
    torch.library.opcheck(op._nearest, (*flat(pairs("", x, y, "squared", groups, None)), 3, "triton"))


def it_is_one_launch(nearest: Search) -> None:
    from lamina_kernels.gram.selection import launch

    launched: list[str] = []
    whole = launch.run
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(launch, "run", lambda kernel, *rest: (launched.append(kernel.fn.__name__), whole(kernel, *rest)))
        nearest(normal(70, 4, seed=12), normal(300, 4, seed=13), 3)
    assert launched == ["nearest_groups_kernel"]


def refusals(nearest: Search) -> None:
    """What the kernel does not take is refused, never given to another form."""
    x = normal(20, 4, seed=14)
    with pytest.raises(
        NotImplementedError, match="nearest: selection or counting by l1 is not supported: it takes no matrix product"
    ):
        nearest(x, None, 2, distance="l1")
    with pytest.raises(ValueError, match="float64 has the forms"):
        nearest(x.double(), None, 2)


TRUTHS = [
    neighbors_on_a_lattice,
    rows_on_a_line,
    duplicates_are_zeros_in_order,
    what_products_cannot_tell_apart,
    a_crowd_is_compared_again_and_counted,
    sizes_at_the_edge_of_single_precision,
    fewer_rows_than_asked_for,
    broken_rows_are_near_nothing,
    no_rows_and_no_columns,
    strides_do_not_matter,
    the_same_bits_every_time_and_all_are_written,
    rows_in_the_worst_order,
    the_arguments_leave_as_they_came,
    ordinary_rows_are_not_compared_twice,
]


def full_lists_are_looked_behind(nearest: Search) -> None:
    """Near rows of more groups than a list holds, all in one part of y, which products cannot tell apart."""
    y = torch.cat([3000 + 1e-3 * integers(600, 3, 9, seed=40), -3000 + integers(1800, 3, 9, seed=41)])
    x = 3000 + 1e-3 * integers(3, 3, 9, seed=42)
    found = nearest(on(x), on(y), 64)
    far = (x[:, None].double() - y.double()).square().sum(2)
    torch.testing.assert_close(found.distances.cpu(), far.sort(1).values[:, :64].float(), rtol=1e-6, atol=0)


SHAPES: list[tuple[Any, ...]] = [
    # n, m, d, k, distance, shift
    (1, 1, 1, 1, "squared", 0.0),
    (150, None, 17, 16, "squared", 1000.0),
    (40, 330, 3, 64, "euclidean", 0.0),
    (70, 65, 130, 5, "dot", 0.0),
    (33, 200, 8, 9, "l1", 5.0),
    (33, 200, 8, 9, "cosine", 1.0),
    (3, 70, 5, 64, "squared", 0.0),
    (70, 700, 9, 16, "squared", 3.0),
    (4, 9, 16_384, 2, "squared", 0.0),
]


def codes_gather_their_rows(argmin: Assign) -> None:
    """Rows around codes that are far apart; two codes have none, and a broken row has none."""
    codes = 8 * integers(1, 24, 1, seed=0) + 50 * torch.eye(24, device="cpu")[:7]
    which = torch.randint(0, 5, (200,), generator=torch.Generator().manual_seed(1), device="cpu")
    x = codes[which] + integers(200, 24, 2, seed=2)
    x[9, 3] = math.nan
    found = argmin(on(x), on(codes))
    kept = torch.arange(200, device="cpu") != 9
    assert torch.equal(found.indices.cpu(), which.masked_fill(~kept, -1))
    members = torch.nn.functional.one_hot(which[kept], 7)
    assert torch.equal(found.counts.cpu(), members.sum(0))
    assert found.sums is not None
    assert torch.equal(found.sums.cpu(), members.T.float() @ x[kept])
    assert torch.equal(found.distances.cpu()[kept], (x - codes[which])[kept].square().sum(1))
    assert found.distances[9].isnan()


def the_first_of_equal_codes_is_taken(argmin: Assign) -> None:
    x, codes = integers(300, 3, 3, seed=3), integers(150, 3, 3, seed=4)
    for distance in of_integers(argmin):
        values, places = whole(x, codes, distance).sort(dim=1, stable=True)
        found = argmin(on(x), on(codes), distance=distance, sums=False)
        assert found.sums is None
        assert torch.equal(found.indices.cpu(), places[:, 0])
        assert torch.equal(found.distances.cpu().long(), values[:, 0])
        assert torch.equal(found.counts.cpu(), places[:, 0].bincount(minlength=150))
